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
from wsol.metrics import OUTCOMES, OutcomeCounts
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
    shares = {name: 100 * float(value) for name, value in counts.compute().items()}
    for name in ("top1_cls", "top5_cls"):
        row[name] = shares[name] if ranked and (top5 or "5" not in name) else None
    if int(part.accuracy.count):
        row |= {"threshold": threshold, "threshold_source": source}
        row |= {"gt_known_loc": shares["gt_known_loc"], "mean_iou": shares["mean_iou"]}
        row["top1_loc"] = shares["top1_loc"] if ranked else None
        row["top5_loc"] = shares["top5_loc"] if ranked and top5 else None
        for delta in part.accuracy.iou_thresholds:
            if f"max_box_acc_{round(100 * delta)}" in row:
                row[f"max_box_acc_{round(100 * delta)}"] = 100 * part.accuracy.max_box_acc(delta)
        if source != "fixed" and part.protocol.component == "any":
            row["max_box_acc_v2"] = 100 * part.accuracy.max_box_acc_v2()
        elif source != "fixed":
            row["max_box_acc"] = row["max_box_acc_50"]
    row["pxap"] = None if part.pxap.empty else 100 * float(part.pxap.compute())
    return row


def metric_rows(
    method: str, part: ProtocolScores, counts: OutcomeCounts, threshold: float, classes: Sequence[str], ranked: bool
) -> list[dict[str, Any]]:
    """Make the long table's rows of one method under one protocol: oracles, error kinds, masks, classes."""
    base = {"method": method, "protocol": part.protocol.name}
    rows = []
    if int(part.accuracy.count):
        for delta in part.accuracy.iou_thresholds:
            best = part.accuracy.best_threshold(delta)
            value = 100 * part.accuracy.max_box_acc(delta)
            rows.append(base | {"metric": "max_box_acc", "iou_threshold": delta, "threshold": best, "value": value})
        names = [name for name in COUNTED if ranked or not name.startswith("top")]
        overall, per_class = counts.compute(), counts.per_class()
        for name in (name for name in names if name not in OUTCOMES and not name.endswith("cls")):
            rows.append(base | {"metric": f"error_{name}", "threshold": threshold, "value": 100 * float(overall[name])})
        for name in (*names, "mean_iou"):
            shown = name if name in OUTCOMES or name in ("mean_iou", "top1_cls", "top5_cls") else f"error_{name}"
            for label, value in enumerate(per_class[name].tolist()):
                if not np.isnan(value):
                    rows.append(
                        base | {"metric": shown, "threshold": threshold, "class": classes[label], "value": 100 * value}
                    )
    peak, at = part.pxap.peak_iou()
    if not np.isnan(peak):
        rows.append(base | {"metric": "peak_mask_iou", "threshold": at, "value": 100 * peak})
    return rows


def method_rows(scores: MethodScores, missing: int) -> list[dict[str, Any]]:
    """Make the long table's rows that no protocol changes: pointing, energy, empty and missing heatmaps."""
    rows = []
    if int(scores.pointing.count):
        shares = scores.pointing.compute()
        rows += [
            {"method": scores.method, "metric": name, "value": 100 * float(value)} for name, value in shares.items()
        ]
    rows.append({"method": scores.method, "metric": "empty_heatmaps", "value": float(len(scores.empty))})
    rows.append({"method": scores.method, "metric": "missing_heatmaps", "value": float(missing)})
    return rows


def curve_table(method: str, part: ProtocolScores, ranked: bool) -> pd.DataFrame:
    """Make the curves of one method under one protocol."""
    curves, tables = part.accuracy.compute(), []
    for number, delta in enumerate(part.accuracy.iou_thresholds):
        table = pd.DataFrame({"method": method, "protocol": part.protocol.name, "iou_threshold": delta}, index=[0])
        table = table.loc[[0] * len(part.accuracy.thresholds)].reset_index(drop=True)
        table["threshold"] = part.accuracy.thresholds
        for name in OUTCOMES:
            values = 100 * curves[name][number].numpy()
            table[name] = values if ranked or name == "gt_known_loc" else np.nan
        table["mean_iou"] = 100 * curves["mean_iou"].numpy()
        tables.append(table)
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
    samples: pd.DataFrame, outcomes: pd.DataFrame, method: str, protocol: str, threshold: float
) -> pd.DataFrame:
    """Make the per-image rows of one method under one protocol."""
    table = pd.concat([samples[["sample_id", "label", "class", "rank"]], outcomes.drop(columns="right")], axis=1)
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
        screen.print("τ*: the best on this very split (oracle); MBA (MaxBoxAcc) is an oracle by definition.")
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
    short = results.summary[[name for name in SHOWN if results.summary[name].notna().any()]]
    write_text(folder / "summary.md", _markdown(short))
    write_text(folder / "summary.tex", _latex(short))


def _markdown(table: pd.DataFrame) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"

    rules = ("---" if name in ("method", "protocol") else "---:" for name in table.columns)
    body = (line(_plain(name, row[name]) for name in table.columns) for _, row in table.iterrows())
    return line(SHOWN[name] for name in table.columns) + line(rules) + "".join(body)


def _latex(table: pd.DataFrame) -> str:
    plain = pd.DataFrame(
        {SHOWN[name].replace("τ", "tau"): [_plain(name, value) for value in table[name]] for name in map(str, table)}
    )
    columns = "".join("l" if name in ("method", "protocol") else "r" for name in table.columns)
    return plain.to_latex(index=False, escape=True, column_format=columns).replace(" tau ", r" $\tau$ ")


def _plain(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else f"{value:.3f}" if name == "threshold" else f"{value:.1f}"
