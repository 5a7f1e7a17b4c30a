"""The summary as people read it: on the terminal, in Markdown and in LaTeX."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from wsol.console import console, print_table
from wsol.io import write_text
from wsol.report.best import best_rows
from wsol.report.latex import latex_table
from wsol.tables import SHOWN, Results

__all__ = ["best_cells", "print_summary", "short_summary", "write_summary"]

TEXTS = ("method", "protocol")
ORACLE = "τ*: the best on this very split (oracle)"
BY_DEFINITION = "MBA (MaxBoxAcc) is an oracle by definition"


def print_summary(results: Results) -> None:
    """Print the summary, best in bold, and the protocol sensitivity where there are several protocols."""
    summary = results.summary
    first = summary.iloc[0]
    counted = f"{first['n_samples']} samples"
    if first["n_images"] != first["n_samples"]:
        counted += f" (classes on {first['n_images']} images)"
    role = results.environment.get("role", "")
    split = first["split"] if role in ("", first["split"]) else f"{first['split']}, role {role}"
    view = f"view {first['view']}" if first["view"] else ""
    title = ", ".join(filter(None, (f"{first['dataset']} ({split}, {counted})", first["model"], view))) + "; percent"
    print_table(short_summary(summary), title, headings=SHOWN, keys=TEXTS, bold=best_cells(summary))
    screen = console()
    for line in filter(None, (_provenance(results), _note(summary))):
        screen.print(line, soft_wrap=True, markup=False)
    if summary["protocol"].nunique() > 1 and summary["gt_known_loc"].notna().any():
        print_table(_spread(results.sensitivity), "Protocol sensitivity: GT-known localization", keys=("method",))


def write_summary(summary: pd.DataFrame, folder: Path) -> None:
    """Write `summary.md` and `summary.tex`: the columns that are shown, rounded, the best of each protocol in bold.

    Parameters
    ----------
    summary : DataFrame
        As `summary.csv` has it.
    folder : Path
        The run's.
    """
    short, best, note = short_summary(summary), best_cells(summary), _note(summary)
    below = f"\n{note.replace('*', chr(92) + '*')}\n" if note else ""
    write_text(folder / "summary.md", _markdown(short, best) + below)
    columns = [name for name in short.columns if name not in (*TEXTS, "threshold")]
    exact = short.assign(**{name: summary[name].to_numpy() for name in columns})
    write_text(folder / "summary.tex", latex_table(exact, headings=SHOWN, best=columns, within="protocol", note=note))


def short_summary(summary: pd.DataFrame) -> pd.DataFrame:
    """Make the part of the summary that is shown, as text."""
    shown = [name for name in SHOWN if name in TEXTS or summary[name].notna().any()]
    rows = [summary.iloc[number] for number in range(len(summary))]
    return pd.DataFrame([{name: _cell(name, row) for name in shown} for row in rows], columns=shown)


def best_cells(summary: pd.DataFrame) -> set[tuple[int, str]]:
    """Find the (row, column) of the best numbers of each protocol."""
    scores = [name for name in SHOWN if name not in (*TEXTS, "threshold")]
    return {(row, name) for name in scores for row in best_rows(summary, name, within="protocol")}


def _note(summary: pd.DataFrame) -> str:
    """Say where thresholds come from, and which numbers are oracles wherever they come from."""
    sources = sorted(set(summary["threshold_source"]) - {"oracle", "fixed", ""})
    said = [ORACLE] if "oracle" in set(summary["threshold_source"]) else []
    said += [f"τ from {source}" for source in sources]
    said += [BY_DEFINITION] if summary.filter(like="max_box_acc").notna().any(axis=None) else []
    return "; ".join(said) + "." if said else ""


def _cell(name: str, row: pd.Series) -> str:
    value = row[name]
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    if name == "threshold":
        return f"{value:.3f}" + ("*" if row["threshold_source"] == "oracle" else "")
    return f"{value:.1f}"


def _provenance(results: Results) -> str:
    """Say what was loaded, where heatmaps were taken, and how classes met logits."""
    source, summary = results.environment.get("source", {}), results.summary
    if "weights" not in source:
        known = "predictions" in source
        predictions = f"{source['predictions']} ({source['class_map']})" if known else "none, so no Top-k"
        return f"Heatmaps: {source.get('heatmaps')}; predictions: {predictions}."
    layers = summary[summary["layer"] != ""].groupby("layer", sort=False)["method"].unique()
    taken = "; ".join(f"{', '.join(methods)} at {layer}" for layer, methods in layers.items())
    classes = f"classes matched by {source.get('class_map')}, predicted over {source.get('predict_over')}"
    return f"Weights: {source.get('weights')}; layers: {taken or 'none'}; {classes} ({source.get('competing')} logits)."


def _spread(sensitivity: pd.DataFrame) -> pd.DataFrame:
    """Add by how much the protocols differ, and make it text."""
    values = sensitivity.drop(columns="method").astype(float)
    table = values.assign(spread=values.max(axis=1) - values.min(axis=1)).map("{:.1f}".format)
    table.insert(0, "method", sensitivity["method"])
    return table


def _markdown(table: pd.DataFrame, best: set[tuple[int, str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"

    rules = ("---" if name in TEXTS else "---:" for name in table.columns)
    body = (
        line(f"**{row[name]}**" if (number, name) in best else row[name] for name in table.columns)
        for number, row in enumerate(table.to_dict("records"))
    )
    return line(SHOWN[name] for name in table.columns) + line(rules) + "".join(body)
