"""A classifier's predictions as somebody wrote them down: CSV, Parquet or .npz, brought into one form of table."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from wsol.errors import UserError

__all__ = ["FORMATS", "read_table"]

FORMATS = (
    "pass a .csv or .parquet table with a column sample_id and either top1, top2, … (best first) or one column of "
    "logits for each class, or an .npz with sample_id (N,) and either top5 (N, k) or logits (N, C) and classes (C,)"
)
DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def read_table(path: Path) -> pd.DataFrame:
    """Read predictions; what they mean is not looked at.

    Parameters
    ----------
    path : Path
        See `wsol.predictions.read_predictions`.

    Returns
    -------
    DataFrame
        `sample_id`, as text, and further columns, whose names are text; arrays and lists are spread out to `top1`,
        `top2`, … or to one column of logits for each class.

    Raises
    ------
    UserError
        If the file is missing, damaged, or of another form.
    """
    readers: dict[str, Callable[[Path], pd.DataFrame]]
    readers = {".csv": _read_csv, ".parquet": pd.read_parquet, ".npz": _read_npz}
    if not path.is_file():
        raise UserError(f"predictions={path}: no such file; {FORMATS}")
    if path.suffix.lower() not in readers:
        raise UserError(f"predictions={path}: a file of this kind is not read; {FORMATS}")
    try:
        table = readers[path.suffix.lower()](path)
    except UserError:
        raise
    except DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"predictions={path} can't be read: {reason}; {FORMATS}") from error
    table.columns = [str(column) for column in table.columns]
    if "sample_id" not in table.columns:
        raise UserError(
            f"predictions={path} has no column sample_id (its columns: {', '.join(table.columns[:5])}); {FORMATS}"
        )
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise UserError(f"predictions={path}: column {twice[0]!r} comes more than once; keep one")
    return table.assign(sample_id=table["sample_id"].astype(str))


def _read_csv(path: Path) -> pd.DataFrame:
    """Read everything as text, so that an id such as 001 stays what it is."""
    rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", header=None)
    return rows.iloc[1:].set_axis(list(rows.iloc[0]), axis=1)  # pandas would rename columns that come twice


def _read_npz(path: Path) -> pd.DataFrame:
    with np.load(path, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files if name in ("sample_id", "top5", "logits", "classes")}
    if "sample_id" not in found or not {"top5", "logits"} & found.keys():
        raise UserError(f"predictions={path} holds {', '.join(found) or 'none of these arrays'}; {FORMATS}")
    values = np.asarray(found.get("top5", found.get("logits")))
    width = values.shape[-1] if values.ndim else 0
    if "top5" in found:
        columns = [f"top{place}" for place in range(1, 1 + width)]
    else:
        columns = [str(name) for name in found.get("classes", np.arange(width))]
    ids = found["sample_id"]
    if values.shape != (len(ids), len(columns)):
        raise UserError(
            f"predictions={path}: values of shape {values.shape} for {len(ids)} samples and {len(columns)} columns; "
            f"{FORMATS}"
        )
    table = pd.DataFrame(values, columns=columns)
    table.insert(0, "sample_id", ids.astype(str))
    return table
