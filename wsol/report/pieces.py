"""Read some rows of a large table piece by piece: 50,000 images have 40 million, and whole columns are gigabytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow.dataset as arrow

from wsol.io import reading

__all__ = ["read_rows"]

TEXTS = ("sample_id", "method", "protocol", "class", "error_kind")
PIECE = 1 << 17  # rows


def read_rows(path: Path, only: arrow.Expression, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read the rows of a Parquet file that an expression lets through.

    Parameters
    ----------
    path : Path
    only : expression
        Such as `pyarrow.dataset.field("method") == "cam"`.
    columns : sequence of str, optional
        By default all.

    Returns
    -------
    DataFrame
        Texts that come again and again are categoricals.

    Raises
    ------
    UserError
        If the file is damaged.
    """
    with reading(path):
        there = arrow.dataset(path).schema.names if columns is None else columns
        # Not those that are only filtered by: as plain texts they let the scanner skip what can't match.
        names = [name for name in there if name in TEXTS]
        options = arrow.ParquetFragmentScanOptions(pre_buffer=False)
        layout = arrow.ParquetFileFormat(dictionary_columns=names, default_fragment_scan_options=options)
        # Reading ahead, as is usual, holds more of the file than the answer needs.
        scanner = arrow.dataset(path, format=layout).scanner(
            columns=None if columns is None else list(columns),
            filter=only,
            batch_size=PIECE,
            batch_readahead=1,
            fragment_readahead=1,
        )
        return scanner.to_table().to_pandas()
