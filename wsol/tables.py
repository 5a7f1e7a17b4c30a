"""The pandas tables, their columns and units, and how they are written; percent begins here.

summary      one row per method and protocol, percent; empty where a column does not apply
metrics      long: method, protocol, metric, iou_threshold, threshold, class, value, low, high; accuracies and
             shares in percent (`mean_iou`, `peak_mask_iou`, `energy_in_box` and error_* too), `empty_heatmaps` and
             `missing_heatmaps` as numbers of samples; `wsol.metrics` says what each measures. low and high: 95 %
             bootstrap interval over images of what the summary holds; τ is held, so where it was chosen on these
             images (an oracle) the interval is optimistic
per_image    one row per sample, method and protocol at the summary's threshold; boxes in original pixels, inclusive;
             `iou` a fraction, `rank` of the true class (0 is the best), `error_kind` as in `wsol.metrics.ERROR_KINDS`
curves       accuracies in percent over τ, per IoU threshold
sweeps       box and IoU over τ, run-length coded: a row holds from `threshold` to the next row of its sample; boxes
             in score-map pixels and the protocol's convention
samples      sample id, label, rank of the true class (0 is the best, -1 without a prediction), five best logits with
             probabilities, image size, the view's rectangle, ground-truth boxes (x0 y0 x1 y1, one after the other)
sensitivity  GT-known localization in percent: a row per method, a column per protocol
resamples    PxAP, a fraction, of images drawn again, as often as intervals are drawn; only where there are masks
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsol.errors import UserError, first_names
from wsol.io import atomic_write, read_environment, reading
from wsol.localization import Protocol, Sweep
from wsol.localization.boxes import to_image
from wsol.metrics.localization import (
    ERROR_KINDS,
    METRICS,
    OUTCOMES,
    ScoredBoxes,
    Sweeps,
    compare,
    error_kind,
    in_top,
    mean_by_class,
    outcomes_of,
)
from wsol.metrics.scoring import MethodScores
from wsol.metrics.statistics import interval_table, resample

logger = logging.getLogger("wsol")

SUMMARY_COLUMNS = (
    "dataset", "split", "model", "method", "layer", "view", "protocol", "n_images", "n_samples", "threshold",
    "threshold_source", *METRICS,
)  # fmt: skip
METRIC_COLUMNS = ("method", "protocol", "metric", "iou_threshold", "threshold", "class", "value", "low", "high")
BOX = ("x0", "y0", "x1", "y1")
NO_BOX = np.array([0.0, 0.0, -1.0, -1.0])
TEXTS = ("dataset", "split", "model", "method", "layer", "view", "protocol", "threshold_source", "metric", "class")
SHOWN = {
    "method": "method", "protocol": "protocol", "threshold": "τ", "top1_cls": "Top-1 cls", "top1_loc": "Top-1 loc",
    "top5_loc": "Top-5 loc", "gt_known_loc": "GT-known", "max_box_acc_30": "MBA 30", "max_box_acc_50": "MBA 50",
    "max_box_acc_70": "MBA 70", "max_box_acc_v2": "MBA V2", "pxap": "PxAP",
}  # fmt: skip


@dataclass(eq=False)
class Results:
    """The tables of one run; the module's text says their columns and units.

    Parameters
    ----------
    summary, metrics, per_image, curves, sweeps, samples, resamples : DataFrame
        `resamples` has no rows where there are no masks.
    environment, config : dict
        Versions, device, times, and what the reader must know of the run; and what was asked for.
    run_dir : Path, optional
        Where the tables lie.
    """

    summary: pd.DataFrame
    metrics: pd.DataFrame
    per_image: pd.DataFrame
    curves: pd.DataFrame
    sweeps: pd.DataFrame
    samples: pd.DataFrame
    resamples: pd.DataFrame = field(default_factory=pd.DataFrame)
    environment: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    run_dir: Path | None = None

    @property
    def sensitivity(self) -> pd.DataFrame:
        """How one method's GT-known localization moves from protocol to protocol: percent."""
        table = self.summary.pivot_table("gt_known_loc", "method", "protocol", sort=False)
        return table.reset_index().rename_axis(columns=None)


@dataclass(frozen=True, eq=False)
class SampleTable:
    """The first table, and what the others need to know of its samples."""

    table: pd.DataFrame  # `samples`, without ground-truth boxes
    gt_boxes: list[np.ndarray] | None  # (N,) of (G, 4); None where the dataset has masks only
    classes: Sequence[str]
    multilabel: bool  # of several classes on one image none is "the" true one: there is no Top-k and no wrong class
    top5: bool  # whether Top-5 says anything: more than five classes compete, and five of each prediction are known

    @cached_property
    def ranks(self) -> np.ndarray:
        """Rank of the true class: int (N,); -1 where there is no prediction, or no one true class."""
        return np.full(len(self.table), -1) if self.multilabel else self.table["rank"].to_numpy()

    def applicable(self, metrics: Iterable[str]) -> list[str]:
        """Leave out what says nothing: Top-k and wrong class without predictions, Top-5 where it says nothing."""
        ranked = bool((self.ranks >= 0).any())
        kept = [metric for metric in metrics if ranked or not metric.startswith(("top", "wrong_class"))]
        return [metric for metric in kept if self.top5 or not metric.startswith("top5")]

    def means(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean over all samples, and over those of each class (C,): fractions, NaN without any."""
        return mean_by_class(values, self.table["label"].to_numpy(), len(self.classes))

    def rows(self, overall: float | None, by_class: np.ndarray, **columns: Any) -> list[dict[str, Any]]:
        """Rows of `metrics`, percent, from fractions: over all samples, if wanted, and for each class that has some."""
        rows = [] if overall is None else [columns | {"value": 100 * overall}]
        pairs = zip(self.classes, by_class.tolist(), strict=True)
        return rows + [columns | {"class": name, "value": 100 * value} for name, value in pairs if not np.isnan(value)]


class Entry:
    """One method under one protocol, with what became of each sample: a row of the summary and some of each table."""

    def __init__(
        self, scores: MethodScores, protocol: Protocol, samples: SampleTable, threshold: float | None, source: str
    ) -> None:
        self.protocol, self.samples, self.source = protocol, samples, source
        self.names: dict[str, Any] = {"method": scores.method, "protocol": protocol.name}
        self.scored = scores.sweeps[protocol.name]
        self.sweeps: Sweeps | None = None  # None where the dataset has masks only
        if isinstance(self.scored, ScoredBoxes):
            self.sweeps = self.scored.sweeps()
        elif samples.gt_boxes is not None:
            self.sweeps = Sweeps.join(self.scored, protocol.component, protocol.grid())
        self.outcomes = outcomes_of(self.sweeps, samples.ranks, protocol, threshold)
        self.threshold = self.outcomes.thresholds.get("gt_known_loc", np.nan)
        counts = scores.pixels.get(protocol.name)
        self.drawn_pxap = None if counts is None else counts.resamples()  # (R,), fractions
        self.pixels = None if counts is None or counts.empty else counts.compute()
        # An accuracy at its best τ says nothing of a protocol whose τ is fixed; and each kind of box has a name for it.
        other = {"max_box_acc" if protocol.component == "any" else "max_box_acc_v2"}
        other |= {"max_box_acc", "max_box_acc_v2"} if source == "fixed" else set()
        metrics = [metric for metric in samples.applicable(self.outcomes.values) if metric not in other]
        pxap = None if self.pixels is None or self.drawn_pxap is None else (self.pixels["pxap"], self.drawn_pxap)
        self.applicable = self.outcomes.only(metrics, pxap)

    def summary_row(self) -> dict[str, Any]:
        """Its row of `summary`, percent; what does not apply is not in it."""
        row = self.names | {metric: 100 * self.applicable.mean(metric) for metric in self.applicable.thresholds}
        if self.sweeps is None:
            return row
        row |= {"threshold": self.threshold, "threshold_source": self.source}
        row["mean_iou"] = 100 * self.samples.means(self.outcomes.values["mean_iou"])[0]
        if "max_box_acc_v2" in row:
            curves = [self.outcomes.curves[delta] for delta in self.protocol.iou_thresholds]
            row["max_box_acc_v2"] = 100 * float(np.mean([curve.max() / self.sweeps.count for curve in curves]))
        return row

    def metric_rows(self) -> list[dict[str, Any]]:
        """Its rows of `metrics`; `_add_intervals` adds what the summary holds too."""
        rows, samples, values = [], self.samples, self.outcomes.values
        for name in samples.applicable(("top1_cls", "top5_cls")):
            rows += samples.rows(None, samples.means(values[name])[1], **self.names, metric=name)
        if self.sweeps is not None:
            rows += self._best_box_rows(self.sweeps) + self._threshold_rows()
        if self.pixels is not None:
            peak = {"metric": "peak_mask_iou", "threshold": self.pixels["peak_threshold"]}
            rows.append(self.names | peak | {"value": 100 * self.pixels["peak_mask_iou"]})
            for name in ("peak_mask_iou", "pxap"):
                rows += samples.rows(None, self.pixels[f"class_{name}"], **self.names, metric=name)
        return rows

    def _best_box_rows(self, sweeps: Sweeps) -> list[dict[str, Any]]:
        """MaxBoxAcc at each IoU threshold, at its best τ; that of each class at its own."""
        rows, labels = [], self.samples.table["label"].to_numpy()
        counts = np.bincount(labels, minlength=len(self.samples.classes))
        for delta in self.protocol.iou_thresholds:
            columns = self.names | {"metric": "max_box_acc", "iou_threshold": delta}
            curve = self.outcomes.curves[delta]
            best = {"threshold": float(sweeps.grid[curve.argmax()]), "value": 100 * float(curve.max() / sweeps.count)}
            right = sweeps.right_by_class(delta, self.protocol.iou_comparison, labels, len(counts)).max(axis=1)
            with np.errstate(invalid="ignore"):
                rows += [columns | best, *self.samples.rows(None, right / counts, **columns)]
        return rows

    def _threshold_rows(self) -> list[dict[str, Any]]:
        """Accuracies per class and error kinds at the summary's τ.

        Where images show several classes, GT-known localization of a class is its CorLoc, and `corloc` the mean over
        classes, as the literature gives it.
        """
        rows, columns, samples = [], self.names | {"threshold": self.threshold}, self.samples
        values = {name: self.outcomes.values[name] for name in samples.applicable(OUTCOMES)}
        for kind in samples.applicable(ERROR_KINDS):
            values[f"error_{kind}"] = (self.per_image["error_kind"] == kind).to_numpy()
        for name, of_samples in (values | {"mean_iou": self.outcomes.values["mean_iou"]}).items():
            overall, by_class = samples.means(of_samples)
            rows += samples.rows(overall if name.startswith("error_") else None, by_class, **columns, metric=name)
        if samples.multilabel:
            corloc = float(np.nanmean(samples.means(self.outcomes.values["gt_known_loc"])[1]))
            rows.append(columns | {"metric": "corloc", "iou_threshold": 0.5, "value": 100 * corloc})
        return rows

    def tables(self) -> dict[str, pd.DataFrame]:
        """Its rows of the tables that have many."""
        tables: dict[str, pd.DataFrame] = {}
        if self.sweeps is not None:
            rows = slice(0) if isinstance(self.scored, ScoredBoxes) else slice(None)  # nothing over τ
            tables |= {"per_image": self.per_image, "curves": self._curves(self.sweeps)[rows]}
            tables["sweeps"] = self._coded_sweeps(self.sweeps)[rows]
        if self.drawn_pxap is not None:
            tables["resamples"] = pd.DataFrame(self.names | {"pxap": self.drawn_pxap})
        return tables

    @cached_property
    def per_image(self) -> pd.DataFrame:
        """What became of each sample at the summary's τ."""
        protocol, samples, values = self.protocol, self.samples, self.outcomes.values
        table = samples.table
        if isinstance(self.scored, ScoredBoxes):
            boxes = self.scored.boxes.copy()
        else:
            index = protocol.threshold_index(self.threshold)
            sized = zip(self.scored, table["width"], table["height"], strict=True)
            boxes = np.array([_box_at(*sample, protocol.component, index) for sample in sized])  # (N, 4)
        topk_right = compare(values["mean_iou"], 0.5, protocol.topk_iou_comparison)
        judged = zip(samples.ranks.tolist(), topk_right, boxes, samples.gt_boxes or (), strict=True)
        kinds = [error_kind(*sample) for sample in judged]
        boxes[boxes[:, 2] < boxes[:, 0]] = np.nan
        applicable = samples.applicable(OUTCOMES)
        columns = self.names | {"threshold": self.threshold}
        columns |= {name: table[name] for name in ("sample_id", "label", "class", "rank")}
        columns |= dict(zip(BOX, boxes.T, strict=True)) | {"iou": values["mean_iou"]}
        columns |= {name: values[name] if name in applicable else pd.NA for name in OUTCOMES}
        return pd.DataFrame(columns | {"error_kind": kinds})

    def _curves(self, sweeps: Sweeps) -> pd.DataFrame:
        ranked = {f"{top}_loc": among for top, among in in_top(self.samples.ranks).items()}
        applicable, tables = self.samples.applicable(ranked), []
        for delta in self.protocol.iou_thresholds:
            right: dict[str, Any] = {"gt_known_loc": self.outcomes.curves[delta]} | dict.fromkeys(ranked, np.nan)
            for name in applicable:
                right[name] = sweeps.right(delta, self.protocol.topk_iou_comparison, ranked[name])
            columns = self.names | {"iou_threshold": delta, "threshold": sweeps.grid}
            columns |= {name: 100 * (count / sweeps.count) for name, count in right.items()}
            tables.append(pd.DataFrame(columns | {"mean_iou": 100 * sweeps.mean_iou()}))
        return pd.concat(tables, ignore_index=True)

    def _coded_sweeps(self, sweeps: Sweeps) -> pd.DataFrame:
        sample_ids = self.samples.table["sample_id"].to_numpy(object)
        columns = self.names | {"sample_id": sample_ids[sweeps.sample], "threshold": sweeps.grid[sweeps.first]}
        columns |= dict(zip(BOX, sweeps.boxes.astype(np.float32).T, strict=True))
        return pd.DataFrame(columns | {"iou": sweeps.iou})


def _box_at(sweep: Sweep | None, width: int, height: int, component: str, index: int) -> np.ndarray:
    """Box (4,) at one threshold, inclusive, in original pixels; x1 < x0 where there is none."""
    box, _ = (NO_BOX, 0.0) if sweep is None else sweep.to_inclusive().at(index, component)
    if sweep is None or box[2] < box[0] or box[3] < box[1]:
        return NO_BOX
    return to_image(box[None], sweep.size, (width, height), sweep.protocol)[0]


def make_tables(
    scored: Iterable[MethodScores],
    samples: SampleTable,
    protocols: Mapping[str, Protocol],
    thresholds: Mapping[tuple[str, str], tuple[float | None, str]],
    source: Mapping[str, Any],
) -> Results:
    """Make all tables, with an interval for every number of the summary.

    `scored` are of the samples of the table, in its order; `thresholds` are from `choose_thresholds`; `source` says
    dataset, split, model and view.
    """
    summary, metrics, outcomes = [], [], []
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in ("per_image", "curves", "sweeps", "resamples")}
    columns = {name: source.get(name) for name in ("dataset", "split", "model", "view")}
    columns |= {"n_images": samples.table["image_id"].nunique(), "n_samples": len(samples.table)}
    for scores in scored:
        metrics += _method_rows(scores, samples)
        for protocol in protocols.values():
            entry = Entry(scores, protocol, samples, *thresholds[scores.method, protocol.name])
            summary.append(columns | {"layer": scores.layer} | entry.summary_row())
            metrics += entry.metric_rows()
            for name, table in entry.tables().items():
                parts[name].append(table)
            if entry.applicable.thresholds:
                outcomes.append((scores.method, protocol.name, entry.applicable))
    if outcomes:
        _add_intervals(metrics, interval_table(outcomes, resample(outcomes, samples.table)))
    table = samples.table
    if samples.gt_boxes is not None:  # reports need them, and not the dataset then
        table = table.assign(true_boxes=pd.Series([boxes.reshape(-1) for boxes in samples.gt_boxes], table.index))
    joined: Any = {name: pd.concat(rows, ignore_index=True) if rows else pd.DataFrame() for name, rows in parts.items()}
    return Results(
        summary=_combine(summary, SUMMARY_COLUMNS), metrics=_combine(metrics, METRIC_COLUMNS), samples=table, **joined
    )


def _method_rows(scores: MethodScores, samples: SampleTable) -> list[dict[str, Any]]:
    """Rows of `metrics` that no protocol changes: pointing, energy, empty and missing heatmaps or boxes."""
    rows: list[dict[str, Any]] = []
    for metric, values in scores.numbers.items():
        if metric not in ("pointing_game", "energy_in_box"):
            rows.append({"method": scores.method, "metric": metric, "value": float(values.sum())})
        elif samples.gt_boxes is not None:
            rows += samples.rows(*samples.means(values.to_numpy()), method=scores.method, metric=metric)
    return rows


def _add_intervals(metrics: list[dict[str, Any]], intervals: pd.DataFrame) -> None:
    """Put intervals into the rows of MaxBoxAcc, which are there, and those of other metrics in rows of their own."""
    rows: list[dict[str, Any]] = intervals.to_dict("records")  # type: ignore[assignment]
    by_name = {(row["method"], row["protocol"], row["metric"]): row for row in rows}
    for row in metrics:
        if row["metric"] == "max_box_acc" and "class" not in row:
            name = f"max_box_acc_{round(100 * row['iou_threshold'])}"
            interval = by_name.get((row["method"], row["protocol"], name), {})
            row |= {end: interval[end] for end in ("low", "high") if end in interval}
    best_box = [f"max_box_acc{ending}" for ending in ("", "_30", "_50", "_70")]  # at its own τ, and once more
    metrics += [row for row in rows if row["metric"] not in best_box]


def _combine(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Make a table of rows: text columns hold text, all others numbers, NaN where a row says nothing."""
    table = pd.DataFrame(list(rows), columns=list(columns))
    for column in columns:
        text = table[column].astype(object).where(table[column].notna(), "").astype(str)
        table[column] = text if column in TEXTS else pd.to_numeric(table[column])
    return table


def write_tables(results: Results, folder: Path) -> None:
    """Write every table as CSV or Parquet into a run's folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = ("resamples",) if len(results.resamples) else ()
    for name in ("per_image", "curves", "sweeps", "samples", *drawn):
        with atomic_write(folder / f"{name}.parquet") as path:
            getattr(results, name).to_parquet(path, index=False)
    for name in ("metrics", "sensitivity", "summary"):
        with atomic_write(folder / f"{name}.csv") as path:
            getattr(results, name).to_csv(path, index=False)


def is_for_testing(split: str, role: str) -> bool:
    """Whether settings chosen on a split have seen what they will be tested on; where it has no role, by its name."""
    return role == "test" or (role == "" and split == "test")


def choose_thresholds(
    methods: Iterable[str],
    protocols: Mapping[str, Protocol],
    source: Mapping[str, Any],
    run: Path | str | None = None,
    from_test: bool = False,
) -> dict[tuple[str, str], tuple[float | None, str]]:
    """τ by method and protocol, and where it comes from; None: the oracle finds the best on the samples themselves.

    A protocol's own is "fixed" and wins; else those of another `run` are taken. Those that it chose on a split for
    testing, or on the one that is scored now (`source`: dataset, split, model), are refused unless `from_test` says
    that they are wanted; the tables then say so.
    """
    chosen, origin = (None, "oracle") if run is None else _read_thresholds(run, source, from_test)
    thresholds: dict[tuple[str, str], tuple[float | None, str]] = {}
    for method, protocol in product(methods, protocols.values()):
        key = (method, protocol.name)
        if protocol.threshold is not None:
            thresholds[key] = protocol.threshold, "fixed"
        elif chosen is None:
            thresholds[key] = None, origin
        elif key in chosen:
            protocol.threshold_index(chosen[key])
            thresholds[key] = chosen[key], origin
        else:
            raise UserError(
                f"threshold_from={run}: that run has no threshold for method {method} under protocol {protocol.name}; "
                f"it has {first_names(f'{m} under {p}' for m, p in chosen) or 'none'}"
            )
    return thresholds


def _read_thresholds(
    run: Path | str, source: Mapping[str, Any], from_test: bool
) -> tuple[dict[tuple[str, str], float], str]:
    """τ by method and protocol of another run; and how tables name that run, and a split that it shouldn't be from."""
    path = Path(run).expanduser() / "summary.csv"
    if not path.is_file():
        raise UserError(f"threshold_from={run}: no summary.csv there; pass the folder of a run")
    with reading(path):
        summary = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str))
        named = summary.dropna(subset=["threshold"]).set_index(["method", "protocol"])
        chosen: Any = named["threshold"].to_dict()
        dataset, split, model = summary[["dataset", "split", "model"]].fillna("").iloc[0]
    on_test = is_for_testing(split, str(read_environment(path.parent).get("role") or ""))
    on_this = (dataset, split) == (source.get("dataset"), source.get("split"))
    if (on_test or on_this) and not from_test:
        why = "whose role is test" if on_test else "which is scored now"
        raise UserError(
            f"threshold_from={run}: its thresholds were chosen on {dataset} ({split}), {why}. Choose them on a split "
            f"with the role train-fullsup; threshold_from_test=true takes them all the same, and the tables say so"
        )
    if model != source.get("model", ""):
        logger.warning("threshold_from=%s: its model is %s, not %s", run, model or "none", source.get("model", "none"))
    origin = " (chosen on this very split)" if on_this else " (chosen on test)" if on_test else ""
    return chosen, f"{run}{origin}"
