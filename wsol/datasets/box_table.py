"""Boxes in a table of one's own, CSV or Parquet: `image, x0, y0, x1, y1`, with units and corners that are stated."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsol.datasets.box_faults import wrong_boxes_stop
from wsol.errors import UserError

__all__ = ["BoxRules", "read_box_table"]

COLUMNS = ("image", "x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class BoxRules:
    """What the numbers of a table mean.

    Parameters
    ----------
    corners : "inclusive" or "exclusive"
        Whether x1 and y1 are the last pixels inside (x1 - x0 + 1 wide), or one beyond (x1 - x0 wide).
    units : "pixels" or "relative"
        Pixels of the image, from 0; or shares of its width and height.

    Raises
    ------
    UserError
        If one is missing or unknown.

    Examples
    --------
    >>> BoxRules("exclusive", "relative").to_pixels(np.array([[0, 0, 0.5, 1]]), (200, 100)).tolist()
    [[0.0, 0.0, 99.0, 99.0]]
    """

    corners: str | None
    units: str | None

    def __post_init__(self) -> None:
        choices = {
            "corners": {"inclusive": "x1, y1 are the last pixels inside", "exclusive": "one beyond: x1 = x0 + width"},
            "units": {"pixels": "pixels of the image, from 0", "relative": "shares of its width and height"},
        }
        for key, meanings in choices.items():
            if getattr(self, key) not in meanings:
                first, second = (f"{name} ({meaning})" for name, meaning in meanings.items())
                raise UserError(
                    f"dataset.box_{key}={getattr(self, key) or ''}: with dataset.boxes_file say which, it can't be "
                    f"told from the numbers: {first} or {second}"
                )

    def fault(self, box: np.ndarray) -> str:
        """Say what is wrong with a box (4,) whatever its image; nothing if it may be right."""
        if not np.isfinite(box).all():
            return "is not finite"
        ordered = box[:2] <= box[2:] if self.corners == "inclusive" else box[:2] < box[2:]
        if not ordered.all():
            return f"is inverted or empty with {self.corners} corners"
        if box.min() < 0:
            return "is negative"
        return "exceeds 1, but the units are relative" if self.units == "relative" and box.max() > 1 else ""

    def to_pixels(self, boxes: np.ndarray, image_size: tuple[int, int] | None) -> np.ndarray:
        """Convert to pixels with inclusive corners: (G, 4); relative units need (width, height).

        A box narrower than a pixel becomes one pixel wide.
        """
        found = boxes.copy() if image_size is None else boxes * np.array([*image_size, *image_size])
        if self.corners == "exclusive":
            ends = found[:, 2:] - 1
            found[:, 2:] = np.where(found[:, 2:] > found[:, :2], np.maximum(ends, found[:, :2]), ends)
        return found


def read_box_table(path: Path, rules: BoxRules) -> dict[str, tuple[str, np.ndarray]]:
    """Read a table.

    Parameters
    ----------
    path : Path
        `.csv` (UTF-8, commas, a header) or `.parquet`; several rows of one image are several objects; further columns
        are passed over.
    rules : BoxRules

    Returns
    -------
    dict of str to (str, array of float64 (G, 4))
        By image: where its first row stands, and its boxes as written.

    Raises
    ------
    UserError
        If the file can't be read, lacks a column, or has a row whose box can't be one.
    """
    if not path.is_file():
        raise UserError(f"dataset.boxes_file={path}: no such file")
    readers = {".csv": _csv_rows, ".parquet": _parquet_rows}
    if path.suffix.lower() not in readers:
        raise UserError(f"dataset.boxes_file={path}: wanted a .csv or .parquet file")
    found: dict[str, tuple[str, list[np.ndarray]]] = {}
    for where, image, numbers in readers[path.suffix.lower()](path):
        shown = " ".join(map(str, numbers))
        try:
            box = np.array([float(number) for number in numbers])
        except (TypeError, ValueError):
            raise UserError(f"{where}: box {shown!r} is not four numbers; mend it") from None
        fault = rules.fault(box) if wrong_boxes_stop() else ""
        if fault or not isinstance(image, str) or not image:
            raise UserError(f"{where}: box {shown!r} of image {image!r} {fault or 'names no image'}; mend it")
        found.setdefault(image, (where, []))[1].append(box)
    if not found:
        raise UserError(f"{path} has no rows; wanted {', '.join(COLUMNS)}")
    return {image: (where, np.stack(boxes)) for image, (where, boxes) in found.items()}


def _csv_rows(path: Path) -> Iterator[tuple[str, object, list[Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            _check_columns(path, list(reader.fieldnames or ()))
            for row in reader:
                yield f"{path}, line {reader.line_num}", row["image"], [row[name] for name in COLUMNS[1:]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} can't be read as CSV in UTF-8: {error}; save it so") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, object, list[Any]]]:
    import pandas as pd  # not above: `wsol --help` needs no tables

    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as Parquet: {error}; write it anew") from error
    _check_columns(path, [str(name) for name in table.columns])
    for number, (image, *box) in enumerate(table[list(COLUMNS)].itertuples(index=False), start=1):
        yield f"{path}, row {number}", image, box


def _check_columns(path: Path, found: list[str]) -> None:
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise UserError(f"{path} has no column {', '.join(missing)}; it has {', '.join(found) or 'none'}: rename them")
