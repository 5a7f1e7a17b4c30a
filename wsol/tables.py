"""The pandas tables, their columns and units, and how they are written; percent begins here.

summary      one row per method and protocol, percent; empty where a column does not apply
metrics      long: method, protocol, metric, iou_threshold, threshold, class, value, low, high; accuracies and
             shares in percent (`mean_iou`, `peak_mask_iou`, `energy_in_box` and error_* too), `empty_heatmaps` and
             `missing_heatmaps` as numbers of samples; `wsol.metrics` says what each measures. low and high: 95 %
             bootstrap interval over images of what the summary holds; τ is held, so where it was chosen on these
             images (an oracle) the interval is optimistic
per_image    one row per sample, method and protocol at the summary's threshold; boxes in original pixels, inclusive;
             `iou` a fraction, `rank` of the true class (0 is the best), `error_kind` as in `wsol.metrics.outcomes`
curves       accuracies in percent over τ, per IoU threshold
sweeps       box and IoU over τ, run-length coded: a row holds from `threshold` to the next row of its sample; boxes
             in score-map pixels and the protocol's convention
samples      sample id, label, rank of the true class (0 is the best, -1 without a prediction), five best logits with
             probabilities, image size, the view's rectangle, true boxes (x0 y0 x1 y1, one after the other)
sensitivity  GT-known localization in percent: a row per method, a column per protocol
resamples    PxAP, a fraction, of images drawn again, as often as intervals are drawn; only where there are masks
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsol.io import atomic_write
from wsol.localization.sweep import join_runs
from wsol.metrics import ERROR_KINDS, OUTCOMES, OutcomeCounts
from wsol.metrics.outcomes import COUNTED
from wsol.metrics.scoring import MethodScores, ProtocolScores

__all__ = [
    "METRIC_COLUMNS", "SHOWN", "SUMMARY_COLUMNS", "Results", "combine", "curve_table", "method_rows", "metric_rows",
    "per_image_table", "summary_row", "sweep_table", "write_tables",
]  # fmt: skip

SUMMARY_COLUMNS = (
    "dataset", "split", "model", "method", "layer", "view", "protocol", "n_images", "n_samples", "threshold",
    "threshold_source", "top1_cls", "top5_cls", "top1_loc", "top5_loc", "gt_known_loc", "mean_iou", "max_box_acc_30",
    "max_box_acc_50", "max_box_acc_70", "max_box_acc", "max_box_acc_v2", "pxap",
)  # fmt: skip
METRIC_COLUMNS = (
    "method", "protocol", "metric", "iou_threshold", "threshold", "class", "value", "low", "high",
)  # fmt: skip
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


def summary_row(
    about: Mapping[str, Any],
    part: ProtocolScores,
    counts: OutcomeCounts,
    threshold: float,
    source: str,
    ranked: bool,
    top5: bool,
) -> dict[str, Any]:
    """Make the summary's row of one method under one protocol.

    Parameters
    ----------
    about : mapping
        dataset, split, model, method, layer, view, n_images, n_samples.
    part : ProtocolScores
    counts : OutcomeCounts
        At the threshold.
    threshold : float
    source : str
        "fixed", "oracle" or the run it came from.
    ranked : bool
        Whether there are predictions at all, and one true class for each image to compare them with.
    top5 : bool
        Whether Top-5 says anything: more than five classes compete.
    """
    row: dict[str, Any] = dict.fromkeys(SUMMARY_COLUMNS) | dict(about) | {"protocol": part.protocol.name}
    shares = {name: 100 * float(value) for name, value in counts.compute().items() if value.ndim == 0}
    for name in ("top1_cls", "top5_cls"):
        row[name] = shares[name] if ranked and (top5 or "5" not in name) else None
    if int(part.accuracy.count):
        row |= {"threshold": threshold, "threshold_source": source}
        row |= {"gt_known_loc": shares["gt_known_loc"], "mean_iou": shares["mean_iou"]}
        row["top1_loc"] = shares["top1_loc"] if ranked else None
        row["top5_loc"] = shares["top5_loc"] if ranked and top5 else None
        deltas = part.protocol.iou_thresholds
        for delta in deltas:
            if f"max_box_acc_{round(100 * delta)}" in row:
                row[f"max_box_acc_{round(100 * delta)}"] = 100 * part.accuracy.max_box_acc(delta)
        if source != "fixed" and part.protocol.component == "any":
            row["max_box_acc_v2"] = 100 * part.accuracy.max_box_acc_v2(deltas)
        elif source != "fixed":
            row["max_box_acc"] = row["max_box_acc_50"]
    row["pxap"] = None if part.pxap.empty else 100 * float(part.pxap.compute()["pxap"])
    return row


def metric_rows(
    method: str,
    part: ProtocolScores,
    counts: OutcomeCounts,
    threshold: float,
    classes: Sequence[str],
    ranked: bool,
    top5: bool,
    multilabel: bool = False,
) -> list[dict[str, Any]]:
    """Make the long table's rows of one method under one protocol, overall and per class.

    Where images show several classes, GT-known localization of a class is its CorLoc, and `corloc` the mean over
    classes, as the literature gives it.
    """
    base = {"method": method, "protocol": part.protocol.name}
    rows: list[dict[str, Any]] = []

    def per_class(values: Iterable[float], **about: Any) -> None:
        for name, value in zip(classes, values, strict=True):
            if not np.isnan(value):
                rows.append(base | about | {"class": name, "value": 100 * float(value)})

    shares = counts.compute()
    for name in _applicable(COUNTED[:2], ranked, top5):
        per_class(shares[f"class_{name}"].reshape(-1).tolist(), metric=name)
    if int(part.accuracy.count):
        for delta in part.protocol.iou_thresholds:
            best, value = part.accuracy.best_threshold(delta), 100 * part.accuracy.max_box_acc(delta)
            rows.append(base | {"metric": "max_box_acc", "iou_threshold": delta, "threshold": best, "value": value})
            per_class(part.accuracy.class_max_box_acc(delta), metric="max_box_acc", iou_threshold=delta)
        for name in (*_applicable((*OUTCOMES, *ERROR_KINDS), ranked, top5), "mean_iou"):
            about = {"metric": f"error_{name}" if name in ERROR_KINDS else name, "threshold": threshold}
            if name in ERROR_KINDS:
                rows.append(base | about | {"value": 100 * float(shares[name])})
            per_class(shares[f"class_{name}"].reshape(-1).tolist(), **about)
        if multilabel:
            mean = 100 * float(shares["class_gt_known_loc"].nanmean())
            rows.append(base | {"metric": "corloc", "iou_threshold": 0.5, "threshold": threshold, "value": mean})
    if not part.pxap.empty:
        pixels = part.pxap.compute()
        peak = {"metric": "peak_mask_iou", "threshold": float(pixels["peak_threshold"])}
        rows.append(base | peak | {"value": 100 * float(pixels["peak_mask_iou"])})
        per_class(pixels["class_peak_mask_iou"].reshape(-1).tolist(), metric="peak_mask_iou")
        per_class(pixels["class_pxap"].reshape(-1).tolist(), metric="pxap")
    return rows


def _applicable(names: Sequence[str], ranked: bool, top5: bool) -> list[str]:
    """Leave out what says nothing: Top-k and wrong class without predictions, Top-5 among five classes or fewer."""
    kept = [name for name in names if ranked or not name.startswith(("top", "wrong_class"))]
    return [name for name in kept if top5 or not name.startswith("top5")]


def method_rows(scores: MethodScores, missing: int, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Make the long table's rows that no protocol changes: pointing, energy, empty and missing heatmaps."""
    base: dict[str, Any] = {"method": scores.method}
    rows: list[dict[str, Any]] = []
    if int(scores.pointing.count.sum()):
        shares = scores.pointing.compute()
        for name in ("pointing_game", "energy_in_box"):
            rows.append(base | {"metric": name, "value": 100 * float(shares[name])})
            pairs = zip(classes, shares[f"class_{name}"].reshape(-1).tolist(), strict=True)
            rows += [base | {"metric": name, "class": c, "value": 100 * v} for c, v in pairs if not np.isnan(v)]
    rows.append(base | {"metric": "empty_heatmaps", "value": float(len(scores.empty))})
    rows.append(base | {"metric": "missing_heatmaps", "value": float(missing)})
    return rows


def curve_table(method: str, part: ProtocolScores, ranked: bool, top5: bool) -> pd.DataFrame:
    """Make the curves of one method under one protocol."""
    mean_iou, tables = 100 * part.accuracy.compute()["mean_iou"].reshape(-1).numpy(), []
    shown = _applicable(OUTCOMES, ranked, top5)
    for delta in part.protocol.iou_thresholds:
        columns: dict[str, Any] = {"method": method, "protocol": part.protocol.name, "iou_threshold": delta}
        columns["threshold"] = part.accuracy.thresholds
        for name in OUTCOMES:
            columns[name] = 100 * part.accuracy.curve(name, delta) if name in shown else np.nan
        tables.append(pd.DataFrame(columns | {"mean_iou": mean_iou}))
    return pd.concat(tables, ignore_index=True)


def sweep_table(method: str, part: ProtocolScores, sample_ids: Sequence[str]) -> pd.DataFrame:
    """Make the run-length coded sweeps of one method under one protocol."""
    pairs = zip(sample_ids, part.sweeps, strict=True)
    known = {sample_id: sweep for sample_id, sweep in pairs if sweep is not None}
    runs = join_runs(list(known.values()), part.protocol.component)
    counts = np.diff([*np.flatnonzero(runs.first == 0), len(runs.first)])  # each sweep begins at the first threshold
    table = pd.DataFrame({"sample_id": np.repeat(np.array(list(known), object), counts)})
    table.insert(0, "protocol", part.protocol.name)
    table.insert(0, "method", method)
    table["threshold"] = part.accuracy.thresholds[runs.first]
    for number, name in enumerate(("x0", "y0", "x1", "y1")):
        table[name] = runs.boxes[:, number].astype(np.float32)
    table["iou"] = runs.iou
    return table


def per_image_table(
    samples: pd.DataFrame,
    outcomes: pd.DataFrame,
    method: str,
    protocol: str,
    threshold: float,
    ranked: bool,
    top5: bool,
) -> pd.DataFrame:
    """Make the per-image rows of one method under one protocol."""
    table = pd.concat([samples[["sample_id", "label", "class", "rank"]], outcomes.drop(columns="right")], axis=1)
    shown = _applicable(OUTCOMES, ranked, top5)
    table[[name for name in OUTCOMES if name not in shown]] = pd.NA
    table.insert(0, "threshold", threshold)
    table.insert(0, "protocol", protocol)
    table.insert(0, "method", method)
    return table


def combine(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], texts: Sequence[str]) -> pd.DataFrame:
    """Make a table of rows: text columns hold text, all others numbers, NaN where a row says nothing."""
    table = pd.DataFrame(list(rows), columns=list(columns))
    for column in columns:
        if column in texts:
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
