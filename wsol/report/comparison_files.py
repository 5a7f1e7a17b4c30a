"""A comparison in files: `compare.csv` with everything, `compare.tex` for a paper, `compare.html` to read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from wsol.io import atomic_write, write_text
from wsol.report.comparison import ALPHA, Comparison
from wsol.report.comparison_page import comparison_page
from wsol.report.latex import latex_table
from wsol.report.names import METRIC_NAMES
from wsol.report.sentences import counted, headlines, meaning, shown_interval, shown_p

__all__ = ["write_comparison"]

HEADINGS = {
    "first": "A", "second": "B", "first_value": "A (%)", "second_value": "B (%)", "difference": "A − B",
    "interval": "95 % interval",
}  # fmt: skip


def write_comparison(comparison: Comparison, folder: Path, command: str = "") -> None:
    """Write a comparison into a folder, each file whole or not at all.

    Parameters
    ----------
    comparison : Comparison
    folder : Path
    command : str
        What was typed, to repeat it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "compare.csv") as path:
        comparison.pairs.to_csv(path, index=False, lineterminator="\n")
    write_text(folder / "compare.tex", _latex(comparison))
    write_text(folder / "compare.html", comparison_page(comparison, command))


def _latex(comparison: Comparison) -> str:
    """Make a table of the pairs in the metric that matters most; all others are in `compare.csv`."""
    rows = headlines(comparison.pairs)
    table = rows[["protocol", "metric", "first", "second", "first_value", "second_value", "difference"]].copy()
    table["metric"] = table["metric"].map(METRIC_NAMES)
    table["interval"] = [shown_interval(row) for _, row in rows.iterrows()]
    table["p"] = ["" if pd.isna(p) else shown_p(p, name=False) for p in rows["p_holm"]]
    note = f"{counted(rows.iloc[0])}. {' '.join(meaning(comparison.pairs, comparison.tests, ALPHA))}"
    return latex_table(table, headings=HEADINGS, note=note)
