"""The pandas tables, their columns and units, and how they are written; percent begins here.

summary      one row per method and protocol, percent; empty where a column does not apply
metrics      long: method, protocol, metric, iou_threshold, threshold, class, value, low, high; accuracies and
             shares in percent, `empty_heatmaps` and `missing_heatmaps` as numbers of samples
per_image    one row per sample, method and protocol at the summary's threshold; boxes in original pixels, inclusive
curves       accuracies in percent over τ, per IoU threshold
sweeps       box and IoU over τ, run-length coded: a row holds from `threshold` to the next row of its sample; boxes
             in score-map pixels and the protocol's convention
samples      sample id, label, rank of the true class (0 is the best, -1 without a prediction), five best logits with
             probabilities, image size, the view's rectangle
sensitivity  GT-known localization in percent: a row per method, a column per protocol
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from wsol.files import whole_file, write_text
from wsol.metrics import ERROR_KINDS, OUTCOMES, OutcomeCounts
from wsol.metrics.outcomes import COUNTED
from wsol.metrics.scoring import MethodScores, ProtocolScores
from wsol.terminal import console

__all__ = [
    "METRIC_COLUMNS", "SUMMARY_COLUMNS", "Results", "combine", "curve_table", "method_rows", "metric_rows",
    "per_image_table", "print_summary", "summary_row", "sweep_table", "write_tables",
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
ORACLE = "τ*: the best on this very split (oracle); MBA (MaxBoxAcc) is an oracle by definition."


@dataclass(eq=False)
class Results:
    """The tables of one run.

    Parameters
    ----------
    summary, metrics, per_image, curves, sweeps, samples : DataFrame
        See the module's text for columns and units.
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
        Whether there are predictions at all.
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
) -> list[dict[str, Any]]:
    """Make the long table's rows of one method under one protocol, overall and per class."""
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
        for name in (*_applicable(OUTCOMES, ranked, top5), *ERROR_KINDS, "mean_iou"):
            about = {"metric": f"error_{name}" if name in ERROR_KINDS else name, "threshold": threshold}
            if name in ERROR_KINDS:
                rows.append(base | about | {"value": 100 * float(shares[name])})
            per_class(shares[f"class_{name}"].reshape(-1).tolist(), **about)
    if not part.pxap.empty:
        pixels = part.pxap.compute()
        peak = {"metric": "peak_mask_iou", "threshold": float(pixels["peak_threshold"])}
        rows.append(base | peak | {"value": 100 * float(pixels["peak_mask_iou"])})
        per_class(pixels["class_peak_mask_iou"].reshape(-1).tolist(), metric="peak_mask_iou")
        per_class(pixels["class_pxap"].reshape(-1).tolist(), metric="pxap")
    return rows


def _applicable(names: Sequence[str], ranked: bool, top5: bool) -> list[str]:
    """Leave out what says nothing: Top-k without predictions, Top-5 among five classes or fewer."""
    return [name for name in names if not name.startswith("top") or (ranked and (top5 or "5" not in name))]


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
    pairs = [
        (sample_id, sweep.runs(part.protocol.component), sweep.thresholds)
        for sample_id, sweep in zip(sample_ids, part.sweeps, strict=True)
        if sweep is not None
    ]
    counts = [len(runs.first) for _, runs, _ in pairs]
    boxes = np.concatenate([runs.boxes for _, runs, _ in pairs]) if pairs else np.zeros((0, 4))
    table = pd.DataFrame({"sample_id": np.repeat(np.array([name for name, _, _ in pairs], object), counts)})
    table.insert(0, "protocol", part.protocol.name)
    table.insert(0, "method", method)
    table["threshold"] = np.concatenate([taus[runs.first] for _, runs, taus in pairs]) if pairs else 0.0
    for number, name in enumerate(("x0", "y0", "x1", "y1")):
        table[name] = boxes[:, number].astype(np.float32)
    table["iou"] = np.concatenate([runs.iou for _, runs, _ in pairs]) if pairs else 0.0
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


def print_summary(results: Results) -> None:
    """Print the summary, best in bold, and the protocol sensitivity where there are several protocols."""
    screen = console()
    summary = results.summary
    first = summary.iloc[0]
    what = f"{first['dataset']} ({first['split']}, {first['n_samples']} samples)"
    title = f"{what}, {first['model']}, view {first['view']}; percent"
    table = Table(title=title, title_justify="left", header_style="bold")
    shown = [name for name in SHOWN if name in ("method", "protocol") or summary[name].notna().any()]
    for name in shown:
        table.add_column(SHOWN[name], justify="left" if name in ("method", "protocol") else "right", no_wrap=True)
    scores = [name for name in shown if name not in ("method", "protocol", "threshold")]
    best = summary.groupby("protocol")[scores].transform("max")
    for number in range(len(summary)):
        row, cells = summary.iloc[number], []
        for name in shown:
            text = _cell(name, row)
            is_best = name in best and row[name] == best[name].iloc[number]
            cells.append(Text(text, style="bold" if is_best else ""))
        table.add_row(*cells)
    screen.print(table)
    screen.print(_provenance(results), soft_wrap=True, markup=False)
    if "oracle" in set(summary["threshold_source"]):
        screen.print(ORACLE)
    if summary["protocol"].nunique() > 1 and summary["gt_known_loc"].notna().any():
        screen.print(_sensitivity(results.sensitivity))


def _provenance(results: Results) -> str:
    """Say what was loaded, where heatmaps were taken, and how classes met logits."""
    source, summary = results.environment.get("source", {}), results.summary
    layers = summary[summary["layer"] != ""].groupby("layer", sort=False)["method"].unique()
    taken = "; ".join(f"{', '.join(methods)} at {layer}" for layer, methods in layers.items())
    classes = f"classes matched by {source.get('class_map')}, predicted over {source.get('predict_over')}"
    return f"Weights: {source.get('weights')}; layers: {taken or 'none'}; {classes} ({source.get('competing')} logits)."


def _cell(name: str, row: pd.Series) -> str:
    value = row[name]
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    if name == "threshold":
        return f"{value:.3f}" + ("*" if row["threshold_source"] == "oracle" else "")
    return f"{value:.1f}"


def _sensitivity(sensitivity: pd.DataFrame) -> Table:
    table = Table(title="Protocol sensitivity: GT-known localization", title_justify="left", header_style="bold")
    protocols = [column for column in sensitivity.columns if column != "method"]
    for column in ("method", *protocols, "spread"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for _, row in sensitivity.iterrows():
        values = row[protocols].astype(float)
        spread = f"{values.max() - values.min():.1f}"
        table.add_row(str(row["method"]), *(f"{value:.1f}" for value in values), spread)
    return table


def write_tables(results: Results, folder: Path) -> None:
    """Write every table into a run's folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("per_image", "curves", "sweeps", "samples"):
        with whole_file(folder / f"{name}.parquet") as path:
            getattr(results, name).to_parquet(path, index=False)
    for name in ("metrics", "sensitivity", "summary"):
        with whole_file(folder / f"{name}.csv") as path:
            getattr(results, name).to_csv(path, index=False)
    shown = [name for name in SHOWN if results.summary[name].notna().any()]
    rows = [results.summary.iloc[number] for number in range(len(results.summary))]
    short = pd.DataFrame([{name: _cell(name, row) for name in shown} for row in rows], columns=shown)
    note = ORACLE if "oracle" in set(results.summary["threshold_source"]) else ""
    write_text(folder / "summary.md", _markdown(short) + (f"\n{note.replace('*', chr(92) + '*')}\n" if note else ""))
    write_text(folder / "summary.tex", _latex(short) + (f"% {note}\n" if note else ""))


def _markdown(table: pd.DataFrame) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"

    rules = ("---" if name in ("method", "protocol") else "---:" for name in table.columns)
    body = (line(row) for row in table.itertuples(index=False))
    return line(SHOWN[name] for name in table.columns) + line(rules) + "".join(body)


def _latex(table: pd.DataFrame) -> str:
    plain = table.rename(columns={name: SHOWN[name].replace("τ", "tau") for name in table.columns})
    columns = "".join("l" if name in ("method", "protocol") else "r" for name in table.columns)
    return plain.to_latex(index=False, escape=True, column_format=columns).replace(" tau ", r" $\tau$ ")
