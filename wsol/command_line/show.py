"""A table of text on the terminal."""

from __future__ import annotations

import pandas as pd
from rich.table import Table

from wsol.terminal import console

__all__ = ["print_table"]


def print_table(frame: pd.DataFrame, title: str) -> None:
    """Print a table; numbers stand to the right.

    Parameters
    ----------
    frame : DataFrame of str
    title : str
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in frame.columns:
        numeric = pd.to_numeric(frame[name].replace("", None), errors="coerce").notna().any()
        table.add_column(str(name), justify="right" if numeric else "left", overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(str(value) for value in row))
    console().print(table, markup=False)
