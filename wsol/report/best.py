"""Which numbers of a table are the best: those that look like it once they are rounded."""

from __future__ import annotations

import pandas as pd

from wsol.errors import UserError

__all__ = ["best_rows"]


def best_rows(
    frame: pd.DataFrame, name: str, way: str = "max", decimals: int = 1, within: str | None = None
) -> set[int]:
    """Find the rows in which a column is at its best.

    Parameters
    ----------
    frame : DataFrame
    name : str
        A column of numbers; missing ones are never the best.
    way : "max" or "min"
        Which is best.
    decimals : int
        Numbers that are equal with so many decimals are equally good.
    within : str, optional
        A column: the best is looked for among rows of equal value there.

    Returns
    -------
    set of int
        Positions of rows, from 0. Where all are equally good none is best.

    Raises
    ------
    UserError
        If there is no such column, or `way` is neither.

    Examples
    --------
    >>> table = pd.DataFrame({"protocol": ["a", "a", "b"], "acc": [70.02, 69.98, 50]})
    >>> sorted(best_rows(table, "acc")), best_rows(table, "acc", within="protocol")
    ([0, 1], set())
    """
    for column in (name, within):
        if column is not None and column not in frame:
            raise UserError(f"best: there is no column {column!r} among {', '.join(map(str, frame.columns))}")
    if way not in ("max", "min"):
        raise UserError(f"best: {name}={way!r}: pass max or min")
    shown = pd.to_numeric(frame[name]).astype(float).round(decimals).reset_index(drop=True)
    groups = pd.Series(0, shown.index) if within is None else frame[within].reset_index(drop=True)
    among = shown.groupby(groups, sort=False, dropna=False)
    best, worst = among.transform("max"), among.transform("min")
    if way == "min":
        best, worst = worst, best
    return {int(row) for row in shown.index[(shown == best) & (shown != worst)]}
