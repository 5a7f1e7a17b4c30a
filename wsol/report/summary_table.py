"""The summary as a page shows it: best in bold, intervals below the numbers, published numbers beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from wsol.metrics.statistics import RESAMPLES
from wsol.report.best import best_rows
from wsol.report.names import METRIC_NAMES
from wsol.report.palette import BASELINES
from wsol.tables import SHOWN

__all__ = ["Cell", "Column", "Row", "ShownTable", "shown_summary"]

TEXTS = ("method", "protocol")
ABOUT = METRIC_NAMES | {
    "method": "heatmap method, and the layer that it was taken from",
    "protocol": "rules of scoring",
    "threshold": "threshold, relative to the score map's maximum",
}


@dataclass(frozen=True)
class Cell:
    """What stands in a cell.

    Parameters
    ----------
    text : str
    value : float or str, optional
        What its column is sorted by; None: by the text.
    note : str
        Small, below the text.
    best : bool
        Whether it is the best of its column under its protocol.
    number : bool
    """

    text: str
    value: float | str | None = None
    note: str = ""
    best: bool = False
    number: bool = True


@dataclass(frozen=True)
class Column:
    """Head of a column: its key in the summary, title and explanation."""

    key: str
    title: str
    about: str
    number: bool


@dataclass(frozen=True)
class Row:
    """Cells, and a kind for the style sheet: "", "baseline" or "published"."""

    cells: list[Cell]
    kind: str = ""


@dataclass(frozen=True)
class ShownTable:
    """A table with notes to stand below it."""

    columns: list[Column]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def shown_summary(
    summary: pd.DataFrame,
    intervals: pd.DataFrame,
    functions: Mapping[str, str] | None = None,
    published: pd.DataFrame | None = None,
) -> ShownTable:
    """Lay out a summary for a page.

    Parameters
    ----------
    summary : DataFrame
        As `wsol.tables` describes it.
    intervals : DataFrame
        method, protocol, metric, low, high, oracle; from `wsol.metrics.statistics.intervals`.
    functions : mapping of method to heatmap function, optional
        Which methods are baselines; by default methods are named after their functions.
    published : DataFrame, optional
        Numbers from papers; from `wsol.report.published.matching`.

    Returns
    -------
    ShownTable
    """
    others = [] if published is None else _published_rows(published)
    keys = [key for key in SHOWN if key in TEXTS or summary[key].notna().any() or any(key in row for _, row in others)]
    columns = [Column(key, SHOWN[key], ABOUT[key], key not in TEXTS) for key in keys]
    scores = [key for key in keys if key not in (*TEXTS, "threshold")]
    best = {key: _best(summary, key) for key in scores}
    found = {(str(row["method"]), str(row["protocol"]), str(row["metric"])): row for _, row in intervals.iterrows()}
    rows = []
    for number in range(len(summary)):
        row = summary.iloc[number]
        cells = [_text_cell(row, key) if key in TEXTS else _threshold_cell(row) for key in keys if key not in scores]
        cells += [_score_cell(row, key, found, number in best[key]) for key in scores]
        function = (functions or {}).get(row["method"], row["method"])
        rows.append(Row(cells, "baseline" if function in BASELINES else ""))
    rows += [Row([_published_cell(cell, row, key) for key in keys], "published") for cell, row in others]
    return ShownTable(columns, rows, _notes(summary, intervals, bool(others)))


def _best(summary: pd.DataFrame, key: str) -> set[int]:
    """Rows that stand out: none where all of a protocol's look the same, as the classification's do."""
    protocols, best = summary["protocol"].reset_index(drop=True), best_rows(summary, key, within="protocol")
    alike = [name for name, rows in protocols.groupby(protocols).groups.items() if len(rows) > 1 and best >= set(rows)]
    return {row for row in best if protocols[row] not in alike}


def _text_cell(row: pd.Series, key: str) -> Cell:
    note = f"at {row['layer']}" if key == "method" and row["layer"] else ""
    return Cell(str(row[key]), str(row[key]), note, number=False)


def _threshold_cell(row: pd.Series) -> Cell:
    if pd.isna(row["threshold"]):
        return Cell("")
    source = str(row["threshold_source"])
    said = {"oracle": "oracle*", "fixed": "fixed"}.get(source, "from another run")
    return Cell(f"{row['threshold']:.3f}", float(row["threshold"]), said)


def _score_cell(row: pd.Series, key: str, intervals: Mapping[tuple[str, str, str], pd.Series], best: bool) -> Cell:
    if pd.isna(row[key]):
        return Cell("")
    known = intervals.get((row["method"], row["protocol"], key))
    note = "" if known is None else f"{known['low']:.1f}–{known['high']:.1f}" + ("*" if known["oracle"] else "")
    return Cell(f"{row[key]:.1f}", float(row[key]), note, best)


def _published_rows(published: pd.DataFrame) -> list[tuple[Cell, dict[str, float]]]:
    """One row per method, split and source: a cell that names them, and the values by column of the summary."""
    found = []
    for (method, split, source), rows in published.groupby(["method", "split", "source"], sort=False):
        notes = "; ".join(dict.fromkeys(note for note in rows["note"] if note))
        said = f"published, {split}: {source}" + (f" ({notes})" if notes else "")
        values = dict(zip(rows["metric"], rows["value"].astype(float), strict=True))
        if set(values) & set(SHOWN):
            found.append((Cell(str(method), str(method), said, number=False), values))
    return found


def _published_cell(name: Cell, values: Mapping[str, float], key: str) -> Cell:
    if key == "method":
        return name
    if key not in values:
        return Cell("", number=key not in TEXTS)
    return Cell(f"{values[key]:.1f}", values[key])


def _notes(summary: pd.DataFrame, intervals: pd.DataFrame, published: bool) -> list[str]:
    notes = ["Percent; the best of each column and protocol stands in bold."]
    if len(intervals):
        notes.append(f"Small: 95 % intervals of a bootstrap over images ({RESAMPLES:,} resamples), τ held fixed.")
    if "oracle" in set(summary["threshold_source"]) or bool(intervals["oracle"].any()):
        notes.append(
            "*: τ is the best on these very images (an oracle), as it always is in MaxBoxAcc (MBA): the number and its "
            "interval are optimistic."
        )
    others = sorted(set(summary["threshold_source"]) - {"oracle", "fixed", ""})
    notes += [f"τ from another run was chosen by {source}." for source in others]
    if "center" in set(summary["method"]):
        notes.append("center is a Gaussian that never looks at the image: what doesn't beat it has found nothing.")
    if published:
        notes.append("Published numbers are as their sources print them; they were not measured here.")
    return notes
