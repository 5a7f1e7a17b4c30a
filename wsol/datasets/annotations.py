"""Annotations as rows, from text, CSV, Parquet, XML or JSON; each knows the file and line that it stands in.

Whatever is wrong is said with file and line. Wrong boxes alone are not refused here: `Rows.first_wrong` says which is
the first, and the dataset keeps that until it is judged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from wsol.errors import UserError
from wsol.io import read_text

__all__ = ["Rows", "are_boxes", "read_json", "read_lines", "read_table", "read_xml", "safe_join"]

CORNERS = ("xmin", "ymin", "xmax", "ymax")
OBJECT = {"name": "name", **{corner: f"bndbox/{corner}" for corner in CORNERS}, "difficult": "difficult"}  # VOC's XML


class Rows:
    """Cells by column, each a list as long as the others, and where each row stands."""

    def __init__(self, path: Path, columns: Mapping[str, list[Any]], places: Sequence[str | int]) -> None:
        self.path, self.columns = path, columns
        self.places = places  # of each row: its line in the file, or more of a text

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, column: str) -> list[Any]:
        return self.columns[column]

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        place = self.places[row]
        return f"{self.path}, line {place}" if isinstance(place, int) else place

    def refuse(self, row: int, why: str) -> NoReturn:
        """Raise the error that a row is to blame for."""
        raise UserError(self._complaint(row, why))

    def first_wrong(self, right: np.ndarray, why: str) -> str:
        """Complaint about the first row that is not right (N,); nothing where all are."""
        return "" if right.all() else self._complaint(int(right.argmin()), why)

    def _complaint(self, row: int, why: str) -> str:
        cells = " ".join(str(cells[row]) for cells in self.columns.values())
        return f"{self.where(row)}: {cells!r} {why}"

    def integers(self, column: str, least: int = 0, most: int | None = None) -> np.ndarray:
        """Whole numbers of a column: int64 (N,), from `least` to `most`."""
        cells = self[column]
        try:
            values = np.array(cells, np.int64)
        except (ValueError, OverflowError):
            row = next(row for row, cell in enumerate(cells) if not _fits(np.int64, cell))
            self.refuse(row, f"has a {column} that is not a whole number; fix the line")
        outside = np.flatnonzero((values < least) | (values > (np.inf if most is None else most)))
        if outside.size:
            limits = f"at least {least}" if most is None else f"{least} to {most}"
            self.refuse(outside[0], f"has a {column} outside of what it can be, {limits}; fix the line")
        return values

    def floats(self, columns: Sequence[str]) -> np.ndarray:
        """Numbers of several columns: float64 (N, columns)."""
        cells = [self[column] for column in columns]
        try:
            return np.array(cells, np.float64).T.reshape(-1, len(columns))
        except (TypeError, ValueError):
            row = next(row for row, numbers in enumerate(zip(*cells, strict=True)) if not _fits(float, *numbers))
            self.refuse(row, f"does not end in the numbers {' '.join(columns)}; fix the line")

    def unique(self, column: str) -> dict[Any, int]:
        """Row of each cell of a column in which nothing may come twice."""
        rows = {cell: row for row, cell in enumerate(self[column])}
        if len(rows) < len(self):
            row = next(row for row, cell in enumerate(self[column]) if rows[cell] != row)
            last = rows[self[column][row]]
            self.refuse(last, f"has the {column} of {self.where(row)}; remove one")
        return rows

    def check_paths(self, column: str, folder: Path) -> None:
        """Refuse a path that leads out of its folder."""
        for row, cell in enumerate(self[column]):
            # Looking closely at a million names takes seconds, so only at those with a suspicious character.
            if cell[:1] in ("/", "") or ".." in cell or "\\" in cell or ":" in cell or "\0" in cell or cell == ".":
                safe_join(folder, cell, self.where(row))

    def match(self, column: str, keys: Mapping[str, int], source: Path, extra: bool = False) -> np.ndarray:
        """Row of each row's key in another file (N,); -1 where it has none and `extra` allows it.

        Every key must come here, and none that is not there.
        """
        rows = np.fromiter((keys.get(cell, -1) for cell in self[column]), np.int64, len(self))
        strangers = np.flatnonzero(rows < 0)
        if strangers.size and not extra:
            more = f" ({strangers.size} such)" if strangers.size > 1 else ""
            self.refuse(strangers[0], f"has a {column} that is not in {source}{more}; add it there, or remove the line")
        absent = np.flatnonzero(np.bincount(rows[rows >= 0], minlength=len(keys)) == 0)
        if absent.size:
            key = next(key for key, row in keys.items() if row == absent[0])
            more = f" ({absent.size} such)" if absent.size > 1 else ""
            raise UserError(
                f"{self.path} has no line for {column} {key!r}, which is in {source}{more}; add one, or remove it there"
            )
        return rows


def are_boxes(corners: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Whether each x0 y0 x1 y1 (N, 4) is finite, in order and nowhere below `least`: bool (N,)."""
    x0, y0, x1, y1 = corners.T
    return np.isfinite(corners).all(axis=1) & (x0 <= x1) & (y0 <= y1) & (corners >= least).all(axis=1)


def safe_join(folder: Path, name: str, where: str) -> Path:
    """Join a folder and a path that a file gives, with forward slashes, and refuse one that leads elsewhere.

    Nothing is looked up on the disk: symbolic links that somebody put into the folder on purpose are followed.
    """
    # A path made on Windows is none of ours, but what it would mean there must not be taken for a plain name here.
    ways = PurePosixPath(name), PureWindowsPath(name)
    leads_out = any(way.is_absolute() or way.anchor or ".." in way.parts for way in ways)
    if leads_out or "\0" in name or not ways[0].parts:
        raise UserError(f"{where}: path {name!r} leads out of {folder}: give one inside it, as folder/image.jpg")
    return folder / name


def read_lines(path: Path, columns: Sequence[str], separator: str | None = ",", hint: str = "") -> Rows:
    """Read a text file without a header; empty lines are passed over.

    Only the first column may hold the separator itself; without a separator, cells are split at white space, and only
    the last may hold some.
    """
    splits = len(columns) - 1
    cells: list[str] = []  # flat: a list per row would keep the garbage collector busy
    numbers: list[int] = []
    for number, line in enumerate(read_text(path, hint).split("\n"), start=1):
        if not line or line.isspace():
            continue
        fields = line.strip().split(maxsplit=splits) if separator is None else line.rsplit(separator, splits)
        if len(fields) != splits + 1:
            form = (separator or " ").join(columns)
            raise UserError(f"{path}, line {number}: {line!r} is not `{form}`; fix the line")
        cells += fields
        numbers.append(number)
    return Rows(path, {name: cells[column :: splits + 1] for column, name in enumerate(columns)}, numbers)


def read_table(path: Path, columns: Sequence[str]) -> Rows:
    """Read columns of a `.csv` (UTF-8, commas, a header) or `.parquet`; others are passed over."""
    readers = {
        ".csv": partial(pd.read_csv, dtype=str, index_col=False, skipinitialspace=True, keep_default_na=False,
                        skip_blank_lines=False, encoding="utf-8-sig"),
        ".parquet": pd.read_parquet,
    }  # fmt: skip
    if path.suffix.lower() not in readers:
        raise UserError(f"{path}: wanted a .csv or .parquet file")
    try:
        table = readers[path.suffix.lower()](path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as a table: {error}; write it anew, a CSV in UTF-8") from error
    missing = [name for name in columns if name not in table]
    if missing:
        there = ", ".join(map(str, table.columns))
        raise UserError(f"{path} has no column {', '.join(missing)}; it has {there}: rename them")
    table = table[(table.notna() & (table != "")).any(axis=1)]  # without empty lines, which count
    place, first = ("row", 1) if path.suffix.lower() == ".parquet" else ("line", 2)
    places = [f"{path}, {place} {number + first}" for number in table.index]
    return Rows(path, {name: table[name].tolist() for name in columns}, places)


def read_json(path: Path, hint: str) -> Any:
    """Read a JSON file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; {hint}")
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} can't be read as JSON: {error}; replace the file") from error


def read_xml(paths: Sequence[Path]) -> tuple[list[tuple[int, int] | None], list[int], Rows]:
    """Read PASCAL VOC's annotations, a file per image.

    Returns the (width, height) of each image, None where its file doesn't say or says 0; the number of the image that
    each object is in; and the objects as written: `name`, `xmin`, `ymin`, `xmax`, `ymax`, `difficult`. Body parts,
    which VOC lists inside of an object, are not objects.
    """
    sizes: list[tuple[int, int] | None] = []
    image_of: list[int] = []
    places: list[str] = []
    cells: list[list[str]] = []
    for image, path in enumerate(paths):
        root = _parse_xml(path)
        width, height = (_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
        sizes.append((width, height) if width and height else None)
        for number, node in enumerate(root.findall("object"), start=1):
            image_of.append(image)
            places.append(f"{path}, object {number}")
            cells.append([(node.findtext(tag) or "").strip() for tag in OBJECT.values()])
            if not cells[-1][0]:
                raise UserError(f"{places[-1]}: no <name>; add the object's class")
    columns = map(list, zip(*cells, strict=True)) if cells else ([] for _ in OBJECT)
    return sizes, image_of, Rows(Path(), dict(zip(OBJECT, columns, strict=True)), places)


def _parse_xml(path: Path) -> ElementTree.Element:
    if not path.is_file():
        raise UserError(f"{path}: no such file; unpack the annotations whole")
    try:
        text = path.read_bytes()
        # Entities can blow up a small file to gigabytes, and no annotation needs them.
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise UserError(f"{path}: a document type declaration in an annotation is refused; remove it")
        root = ElementTree.fromstring(text)
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"{path} can't be read as XML: {error}; replace the file") from error
    if root.tag != "annotation":
        raise UserError(f"{path}: the outermost element is <{root.tag}>, wanted <annotation>; is it PASCAL VOC's?")
    return root


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.strip().isdecimal() else 0


def _fits(kind: Callable[[Any], object], *cells: Any) -> bool:
    try:
        for cell in cells:
            kind(cell)
    except (TypeError, ValueError, OverflowError):
        return False
    return True
