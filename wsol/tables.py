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
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsol.errors import UserError, first_names
from wsol.io import atomic_write, read_environment
from wsol.localization import Protocol
from wsol.metrics.localization import (
    ACCURACIES,
    ERROR_KINDS,
    METRICS,
    OUTCOMES,
    Sweeps,
    mean_by_class,
    outcomes_of,
    per_image_outcomes,
)
from wsol.metrics.scoring import MethodScores
from wsol.metrics.statistics import interval_table, resample

__all__ = [
    "METRIC_COLUMNS", "SHOWN", "SUMMARY_COLUMNS", "ChosenThresholds", "Results", "SampleTable", "is_for_testing",
    "make_tables", "read_thresholds", "write_tables",
]  # fmt: skip

logger = logging.getLogger("wsol")

SUMMARY_COLUMNS = (
    "dataset", "split", "model", "method", "layer", "view", "protocol", "n_images", "n_samples", "threshold",
    "threshold_source", "top1_cls", "top5_cls", "top1_loc", "top5_loc", "gt_known_loc", "mean_iou", "max_box_acc_30",
    "max_box_acc_50", "max_box_acc_70", "max_box_acc", "max_box_acc_v2", "pxap",
)  # fmt: skip
METRIC_COLUMNS = ("method", "protocol", "metric", "iou_threshold", "threshold", "class", "value", "low", "high")
TEXTS = ("dataset", "split", "model", "method", "layer", "view", "protocol", "threshold_source", "metric", "class")
SHOWN = {
    "method": "method", "protocol": "protocol", "threshold": "τ", "top1_cls": "Top-1 cls", "top1_loc": "Top-1 loc",
    "top5_loc": "Top-5 loc", "gt_known_loc": "GT-known", "max_box_acc_30": "MBA 30", "max_box_acc_50": "MBA 50",
    "max_box_acc_70": "MBA 70", "max_box_acc_v2": "MBA V2", "pxap": "PxAP",
}  # fmt: skip


@dataclass(eq=False)
class Results:
    """The tables of one run.

    Parameters
    ----------
    summary, metrics, per_image, curves, sweeps, samples : DataFrame
        See the module's text for columns and units.
    resamples : DataFrame
        PxAP of images drawn again; without rows where there are no masks.
    environment : dict
        Versions, device, times, and what the reader must know of the run.
    config : dict
        What was asked for.
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
    """The first table, and what the others need to know of its samples.

    Parameters
    ----------
    table : DataFrame
        `samples`, without ground-truth boxes.
    classes : sequence of str
    gt_boxes : list (N,) of arrays (G, 4), optional
        None where the dataset has masks only.
    image_sizes : list (N,) of (width, height)
    multilabel : bool
        Of several classes on one image none is "the" true one: there is no Top-k and no wrong class.
    top5 : bool
        Whether Top-5 says anything: more than five classes compete, and five of each prediction are known.
    """

    table: pd.DataFrame
    classes: Sequence[str]
    gt_boxes: list[np.ndarray] | None
    image_sizes: list[tuple[int, int]]
    multilabel: bool
    top5: bool

    @property
    def ranks(self) -> np.ndarray:
        """Rank of the true class: int (N,); -1 where there is no prediction, or no one true class."""
        return np.full(len(self.table), -1) if self.multilabel else self.table["rank"].to_numpy()

    def means(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean over all samples, and over those of each class (C,): fractions, NaN without any."""
        return mean_by_class(values, self.table["label"].to_numpy(), len(self.classes))

    def applicable(self, metrics: Iterable[str]) -> list[str]:
        """Leave out what says nothing: Top-k and wrong class without predictions, Top-5 where it says nothing."""
        ranked = bool((self.ranks >= 0).any())
        kept = [metric for metric in metrics if ranked or not metric.startswith(("top", "wrong_class"))]
        return [metric for metric in kept if self.top5 or not metric.startswith("top5")]

    def with_boxes(self) -> pd.DataFrame:
        """`samples` with ground-truth boxes, one after the other: reports need them, and not the dataset then."""
        if self.gt_boxes is None:
            return self.table
        return self.table.assign(true_boxes=pd.Series([one.reshape(-1) for one in self.gt_boxes], self.table.index))


class Entry:
    """One method under one protocol, with what became of each sample: a row of the summary and some of each table."""

    def __init__(
        self, scores: MethodScores, protocol: Protocol, samples: SampleTable, chosen: ChosenThresholds | None
    ) -> None:
        self.protocol, self.samples = protocol, samples
        self.names = {"method": scores.method, "protocol": protocol.name}
        self.sweeps: Sweeps | None = None  # None where the dataset has masks only
        threshold, self.source = None, ""
        if samples.gt_boxes is not None:
            self.sweeps = Sweeps.join(scores.sweeps[protocol.name], protocol.component, protocol.grid())
            threshold, self.source = _threshold(scores.method, protocol, chosen)
        self.outcomes = outcomes_of(self.sweeps, samples.ranks, protocol, threshold)
        self.threshold = self.outcomes.thresholds.get("gt_known_loc", np.nan)
        self.per_image = pd.DataFrame()
        if samples.gt_boxes is not None:
            self.per_image = per_image_outcomes(
                self.outcomes, scores.sweeps[protocol.name], protocol, samples.ranks, samples.gt_boxes,
                samples.image_sizes,
            )  # fmt: skip
        pixels = scores.pixels.get(protocol.name)
        self.drawn_pxap = None if pixels is None else pixels.drawn_pxap()  # (R,), fractions
        self.pixels = None if pixels is None or pixels.pxap.empty else pixels.pxap.compute()

    def tables(self) -> dict[str, pd.DataFrame]:
        """Its rows of the tables that have many."""
        tables = {}
        if self.sweeps is not None:
            tables["per_image"] = _per_image_table(self)
            tables["curves"] = _curve_table(self, self.sweeps)
            tables["sweeps"] = _sweep_table(self, self.sweeps)
        if self.drawn_pxap is not None:
            tables["resamples"] = pd.DataFrame({**self.names, "pxap": self.drawn_pxap})
        return tables


def make_tables(
    scored: Iterable[MethodScores],
    samples: SampleTable,
    protocols: Mapping[str, Protocol],
    layers: Mapping[str, str],
    source: Mapping[str, Any],
    chosen: ChosenThresholds | None = None,
) -> Results:
    """Make all tables, with an interval for every number of the summary.

    `scored` are of the samples of the table, in its order; `layers` by method and `source` (dataset, split, model,
    view) are for the summary; `chosen` are another run's thresholds.
    """
    summary, metrics, outcomes, tables = [], [], [], defaultdict(list)
    columns = {name: source.get(name) for name in ("dataset", "split", "model", "view")}
    columns |= {"n_images": samples.table["image_id"].nunique(), "n_samples": len(samples.table)}
    for scores in scored:
        metrics += _method_rows(scores, samples)
        for entry in (Entry(scores, protocol, samples, chosen) for protocol in protocols.values()):
            row = {**_summary_row(entry), **columns, "layer": layers[scores.method]}
            summary.append(row)
            metrics += _metric_rows(entry)
            for name, table in entry.tables().items():
                tables[name].append(table)
            drawn = entry.drawn_pxap if row["pxap"] is not None else None
            pxap = None if drawn is None else (row["pxap"] / 100, drawn)
            applicable = entry.outcomes.only([metric for metric in METRICS if row[metric] is not None], pxap)
            if applicable.thresholds:
                outcomes.append((scores.method, entry.protocol.name, applicable))
    long = _combine(metrics, METRIC_COLUMNS)
    if outcomes:
        long = _with_intervals(long, interval_table(outcomes, resample(outcomes, samples.table)))

    def joined(name: str) -> pd.DataFrame:
        return pd.concat(tables[name], ignore_index=True) if tables[name] else pd.DataFrame()

    return Results(
        summary=_combine(summary, SUMMARY_COLUMNS),
        metrics=long,
        per_image=joined("per_image"),
        curves=joined("curves"),
        sweeps=joined("sweeps"),
        samples=samples.with_boxes(),
        resamples=joined("resamples"),
    )


def _threshold(method: str, protocol: Protocol, chosen: ChosenThresholds | None) -> tuple[float | None, str]:
    """τ, None for the oracle's, and where it comes from: a fixed one wins over another run's, that over the oracle."""
    if protocol.threshold is not None:
        return protocol.threshold, "fixed"
    return (None, "oracle") if chosen is None else (chosen.values[method, protocol.name], chosen.source)


def _summary_row(entry: Entry) -> dict[str, Any]:
    """The summary's row, percent; None where a column does not apply."""
    row: dict[str, Any] = dict.fromkeys(SUMMARY_COLUMNS) | entry.names
    values, protocol = entry.outcomes.values, entry.protocol
    applicable = entry.samples.applicable(name for name in (*ACCURACIES, "mean_iou") if name in values)
    row |= {name: 100 * entry.samples.means(values[name])[0] for name in applicable}
    row["pxap"] = None if entry.pixels is None else 100 * entry.pixels["pxap"]
    if entry.sweeps is None:
        return row
    row |= {"threshold": entry.threshold, "threshold_source": entry.source}
    best = [float(entry.outcomes.curves[delta].max() / entry.sweeps.count) for delta in protocol.iou_thresholds]
    columns = [f"max_box_acc_{round(100 * delta)}" for delta in protocol.iou_thresholds]
    row |= {column: 100 * value for column, value in zip(columns, best, strict=True) if column in row}
    if entry.source != "fixed" and protocol.component == "any":
        row["max_box_acc_v2"] = 100 * float(np.mean(best))
    elif entry.source != "fixed":
        row["max_box_acc"] = row["max_box_acc_50"]
    return row


def _metric_rows(entry: Entry) -> list[dict[str, Any]]:
    """The long table's rows of one method under one protocol; `_with_intervals` adds what the summary holds too."""
    rows = []
    for name in entry.samples.applicable(("top1_cls", "top5_cls")):
        _, by_class = entry.samples.means(entry.outcomes.values[name])
        rows += _class_rows(entry.samples, by_class, **entry.names, metric=name)
    if entry.sweeps is not None:
        rows += _best_box_rows(entry, entry.sweeps) + _threshold_rows(entry)
    return rows if entry.pixels is None else rows + _pixel_rows(entry, entry.pixels)


def _class_rows(samples: SampleTable, fractions: np.ndarray, **columns: Any) -> list[dict[str, Any]]:
    """A row for each class that has samples, percent; `columns` say of what."""
    pairs = zip(samples.classes, fractions.tolist(), strict=True)
    return [columns | {"class": name, "value": 100 * value} for name, value in pairs if not np.isnan(value)]


def _best_box_rows(entry: Entry, sweeps: Sweeps) -> list[dict[str, Any]]:
    """MaxBoxAcc at each IoU threshold, at its best τ; that of each class at its own."""
    rows, labels = [], entry.samples.table["label"].to_numpy()
    counts = np.bincount(labels, minlength=len(entry.samples.classes))
    for delta in entry.protocol.iou_thresholds:
        columns = entry.names | {"metric": "max_box_acc", "iou_threshold": delta}
        curve = entry.outcomes.curves[delta]
        best = float(sweeps.grid[curve.argmax()])
        rows.append(columns | {"threshold": best, "value": 100 * float(curve.max() / sweeps.count)})
        right = sweeps.right_by_class(delta, entry.protocol.iou_comparison, labels, len(counts)).max(axis=1)
        with np.errstate(invalid="ignore"):
            rows += _class_rows(entry.samples, right / counts, **columns)
    return rows


def _threshold_rows(entry: Entry) -> list[dict[str, Any]]:
    """Accuracies per class and error kinds at the summary's τ.

    Where images show several classes, GT-known localization of a class is its CorLoc, and `corloc` the mean over
    classes, as the literature gives it.
    """
    rows, columns = [], entry.names | {"threshold": entry.threshold}
    kinds = entry.per_image["error_kind"].to_numpy()
    for name in (*entry.samples.applicable((*OUTCOMES, *ERROR_KINDS)), "mean_iou"):
        values = kinds == name if name in ERROR_KINDS else entry.outcomes.values[name]
        overall, by_class = entry.samples.means(values)
        metric = f"error_{name}" if name in ERROR_KINDS else name
        rows += [columns | {"metric": metric, "value": 100 * overall}] if name in ERROR_KINDS else []
        rows += _class_rows(entry.samples, by_class, **columns, metric=metric)
    if entry.samples.multilabel:
        _, by_class = entry.samples.means(entry.outcomes.values["gt_known_loc"])
        corloc = 100 * float(np.nanmean(by_class))
        rows.append(columns | {"metric": "corloc", "iou_threshold": 0.5, "value": corloc})
    return rows


def _pixel_rows(entry: Entry, pixels: Mapping[str, Any]) -> list[dict[str, Any]]:
    peak = {"metric": "peak_mask_iou", "threshold": pixels["peak_threshold"], "value": 100 * pixels["peak_mask_iou"]}
    rows = [entry.names | peak]
    for metric in ("peak_mask_iou", "pxap"):
        rows += _class_rows(entry.samples, pixels[f"class_{metric}"], **entry.names, metric=metric)
    return rows


def _method_rows(scores: MethodScores, samples: SampleTable) -> list[dict[str, Any]]:
    """The long table's rows that no protocol changes: pointing, energy, empty and missing heatmaps."""
    rows: list[dict[str, Any]] = []
    for metric, values in (("pointing_game", scores.hits), ("energy_in_box", scores.energies)):
        if samples.gt_boxes is not None:
            overall, by_class = samples.means(np.array(values))
            rows.append({"method": scores.method, "metric": metric, "value": 100 * overall})
            rows += _class_rows(samples, by_class, method=scores.method, metric=metric)
    for metric, flags in (("empty_heatmaps", scores.empty), ("missing_heatmaps", scores.missing)):
        rows.append({"method": scores.method, "metric": metric, "value": float(np.sum(flags))})
    return rows


def _per_image_table(entry: Entry) -> pd.DataFrame:
    columns = entry.samples.table[["sample_id", "label", "class", "rank"]]
    table = pd.concat([columns, entry.per_image], axis=1)
    table[[name for name in OUTCOMES if name not in entry.samples.applicable(OUTCOMES)]] = pd.NA
    return _with_names(entry, table, threshold=entry.threshold)


def _curve_table(entry: Entry, sweeps: Sweeps) -> pd.DataFrame:
    ranks, protocol, tables = entry.samples.ranks, entry.protocol, []
    among = {"top1_loc": ranks == 0, "top5_loc": (ranks >= 0) & (ranks < 5)}
    applicable, mean_iou = entry.samples.applicable(among), 100 * sweeps.mean_iou()
    for delta in protocol.iou_thresholds:
        table = pd.DataFrame({"iou_threshold": delta, "threshold": sweeps.grid})
        table["gt_known_loc"] = 100 * (entry.outcomes.curves[delta] / sweeps.count)
        for name, ranked in among.items():
            right = sweeps.right(delta, protocol.topk_iou_comparison, ranked) if name in applicable else np.nan
            table[name] = 100 * (right / sweeps.count)
        tables.append(_with_names(entry, table.assign(mean_iou=mean_iou)))
    return pd.concat(tables, ignore_index=True)


def _sweep_table(entry: Entry, sweeps: Sweeps) -> pd.DataFrame:
    table = pd.DataFrame({"sample_id": entry.samples.table["sample_id"].to_numpy(object)[sweeps.sample]})
    table["threshold"] = sweeps.grid[sweeps.first]
    for number, name in enumerate(("x0", "y0", "x1", "y1")):
        table[name] = sweeps.boxes[:, number].astype(np.float32)
    return _with_names(entry, table.assign(iou=sweeps.iou))


def _with_names(entry: Entry, table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """Put columns that have one value in front."""
    for position, (name, value) in enumerate((entry.names | columns).items()):
        table.insert(position, name, value)
    return table


def _with_intervals(metrics: pd.DataFrame, intervals: pd.DataFrame) -> pd.DataFrame:
    """Put intervals into the long table: into the rows of MaxBoxAcc, which are there, and as rows of their own."""
    parts = intervals["metric"].str.extract(r"^(?P<metric>.*?)(?:_(?P<percent>\d\d))?$")
    rows = intervals.assign(
        metric=parts["metric"], iou_threshold=pd.to_numeric(parts["percent"]) / 100, **{"class": ""}
    )
    best_box = rows["metric"] == "max_box_acc"  # at an IoU threshold, or once more without saying which
    others = rows.loc[~best_box, [name for name in metrics.columns if name in rows]]
    filled = metrics.copy()
    overall = (metrics["metric"] == "max_box_acc") & (metrics["class"] == "")
    keys = ["method", "protocol", "iou_threshold"]
    limits = metrics.loc[overall, keys].merge(rows.loc[best_box, [*keys, "low", "high"]], on=keys, how="left")
    filled.loc[overall, ["low", "high"]] = limits[["low", "high"]].to_numpy()
    return pd.concat([filled, others], ignore_index=True)


def _combine(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Make a table of rows: text columns hold text, all others numbers, NaN where a row says nothing."""
    table = pd.DataFrame(list(rows), columns=list(columns))
    for column in columns:
        if column in TEXTS:
            table[column] = table[column].astype(object).where(table[column].notna(), "").astype(str)
        else:
            table[column] = pd.to_numeric(table[column])
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


@dataclass(frozen=True)
class ChosenThresholds:
    """τ by method and protocol, chosen by another run; `source` says which, and on what, for the tables."""

    source: str
    values: dict[tuple[str, str], float]


def is_for_testing(split: str, role: str) -> bool:
    """Whether settings chosen on this split have seen what they will be tested on.

    Examples
    --------
    >>> is_for_testing("val", "train-fullsup"), is_for_testing("val", "test"), is_for_testing("test", "")
    (False, True, True)
    """
    return role == "test" or (role == "" and split == "test")


def read_thresholds(
    run: Path | str | None,
    source: Mapping[str, Any],
    methods: Iterable[str],
    protocols: Mapping[str, Protocol],
    from_test: bool = False,
) -> ChosenThresholds | None:
    """Read the thresholds that another run, if any, chose for these methods; protocols with a fixed τ need none.

    Those chosen on a split for testing, or on the one that is scored now (`source`: dataset, split, model), are refused
    unless `from_test` says that they are wanted; the tables then say so.
    """
    if run is None:
        return None
    path = Path(run).expanduser() / "summary.csv"
    if not path.is_file():
        raise UserError(f"threshold_from={run}: no summary.csv there; pass the folder of a run")
    try:
        summary = pd.read_csv(path, dtype={"split": str}).dropna(subset=["threshold"])
        names = zip(summary["method"].astype(str), summary["protocol"].astype(str), strict=True)
        values = dict(zip(names, summary["threshold"].astype(float), strict=True))
    except (KeyError, ValueError, AttributeError) as error:
        raise UserError(f"threshold_from={run}: {path} is no summary of a run: {error}") from error
    for method, protocol in product(methods, (rules for rules in protocols.values() if rules.threshold is None)):
        if (method, protocol.name) not in values:
            raise UserError(
                f"threshold_from={run}: that run has no threshold for method {method} under protocol {protocol.name}; "
                f"it has {first_names(f'{m} under {p}' for m, p in values) or 'none'}"
            )
        protocol.threshold_index(values[method, protocol.name])
    chosen_on = "" if summary.empty else _chosen_on(run, summary.iloc[0], source, from_test)
    return ChosenThresholds(f"{run} (chosen on {chosen_on})" if chosen_on else str(run), values)


def _chosen_on(run: Path | str, row: pd.Series, source: Mapping[str, Any], from_test: bool) -> str:
    """Say it if thresholds were chosen where they must not be: on a split for testing, or on this very one."""
    dataset, split, model = ("" if pd.isna(row[name]) else str(row[name]) for name in ("dataset", "split", "model"))
    on_test = is_for_testing(split, str(read_environment(Path(run).expanduser()).get("role") or ""))
    on_this = (dataset, split) == (source.get("dataset"), source.get("split"))
    if (on_test or on_this) and not from_test:
        why = "whose role is test" if on_test else "which is scored now"
        raise UserError(
            f"threshold_from={run}: its thresholds were chosen on {dataset} ({split}), {why}. Choose them on a split "
            f"with the role train-fullsup (a run on val, say); threshold_from_test=true takes them all the same, and "
            f"the tables then say so"
        )
    if model != source.get("model", ""):
        logger.warning("threshold_from=%s: its model is %s, not %s", run, model or "none", source.get("model", "none"))
    return "this very split" if on_this else "test" if on_test else ""
