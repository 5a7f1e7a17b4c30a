"""Annotations as rows, from text, CSV, Parquet or XML; each knows the file and line that it stands in.

Whatever is wrong is said with file and line. Only wrong boxes are not refused here: `Rows.boxes` says which is the
first, and the dataset keeps that until it is judged.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from wsol.errors import UserError, composed_otherwise
from wsol.io import read_text

CORNERS = ("x0", "y0", "x1", "y1")
XML_CORNERS = ("xmin", "ymin", "xmax", "ymax")
XML_OBJECT = {"name": "name", **{corner: f"bndbox/{corner}" for corner in XML_CORNERS}, "difficult": "difficult"}
EMPTY = {"", "nan", "none", "<na>"}  # what a cell without a number may be


class Rows:
    """Cells by column, each a list as long as the others, and where each row stands."""

    def __init__(self, path: Path, columns: dict[str, list[Any]], places: Sequence[str | int]) -> None:
        self.path, self.columns = path, columns
        self.places = places  # of each row: its line in the file, or the place in words

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, column: str) -> list[Any]:
        return self.columns[column]

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        place = self.places[row]
        return f"{self.path}, line {place}" if isinstance(place, int) else place

    def complaint(self, row: int, why: str) -> str:
        """What a row is to blame for; the number of an image that its file doesn't say is left out."""
        cells = {name: column[row] for name, column in self.columns.items()}
        texts = [str(cell) for name, cell in cells.items() if name != "image" or isinstance(cell, str)]
        return f"{self.where(row)}: {' '.join(texts).strip()!r} {why}"

    def refuse(self, row: int, why: str) -> NoReturn:
        """Raise the error that a row is to blame for."""
        raise UserError(self.complaint(row, why))

    def first_wrong(self, right: np.ndarray, why: str) -> str:
        """Complaint about the first row that is not right (N,); nothing where all are."""
        return "" if right.all() else self.complaint(int(right.argmin()), why)

    def filled(self, columns: Sequence[str]) -> Rows:
        """Rows that say something in one of these columns."""
        rows = enumerate(zip(*(self[column] for column in columns), strict=True))
        kept = [row for row, cells in rows if not {str(cell).strip().lower() for cell in cells} <= EMPTY]
        taken = {name: [cells[row] for row in kept] for name, cells in self.columns.items()}
        return Rows(self.path, taken, [self.places[row] for row in kept])

    def numbers(self, columns: Sequence[str], kind: type = np.float64) -> np.ndarray:
        """Numbers of several columns (N, columns)."""
        cells = [self[column] for column in columns]
        try:
            return np.array(cells, kind).T.reshape(-1, len(columns))
        except (TypeError, ValueError, OverflowError):
            what = f"does not give {' '.join(columns)} as {'' if kind is np.float64 else 'whole '}numbers; fix the line"
            for row, texts in enumerate(zip(*cells, strict=True)):
                try:
                    np.array(texts, kind)
                except (TypeError, ValueError, OverflowError):
                    self.refuse(row, what)
            raise

    def integers(self, column: str, least: int = 0, most: float = np.inf) -> np.ndarray:
        """Whole numbers of a column, int64 (N,), from `least` to `most`."""
        values = self.numbers([column], np.int64)[:, 0]
        outside = np.flatnonzero((values < least) | (values > most))
        if outside.size:
            limits = f"at least {least}" if most == np.inf else f"{least} to {most}"
            self.refuse(outside[0], f"has a {column} that is not {limits}; fix the line")
        return values

    def boxes(self, columns: Sequence[str], least: float = 0.0, why: str = "") -> tuple[np.ndarray, str]:
        """Corners float64 (N, 4), and a complaint about the first that can't be a box's; "" where all can."""
        corners = self.numbers(columns)
        text = f"has a box that is none: inverted, below {least:g} or NaN{f' ({why})' if why else ''}; fix it"
        return corners, self.first_wrong(are_boxes(corners, least), text)

    def unique(self, column: str) -> dict[Any, int]:
        """Row of each cell of a column in which nothing may come twice."""
        rows = {cell: row for row, cell in enumerate(self[column])}
        if len(rows) < len(self):
            row = next(row for row, cell in enumerate(self[column]) if rows[cell] != row)
            self.refuse(rows[self[column][row]], f"has the {column} of {self.where(row)}; remove one")
        return rows

    def check_paths(self, column: str, folder: Path) -> None:
        """Refuse a path that leads out of its folder."""
        for row, cell in enumerate(self[column]):
            # Looking closely at a million names takes seconds, so only at those with a suspicious character.
            if cell[:1] in ("/", "") or ".." in cell or "\\" in cell or ":" in cell or "\0" in cell or cell == ".":
                safe_join(folder, cell, self.where(row))

    def match(self, listing: Rows, column: str, extra: bool = False, whole: bool = True) -> np.ndarray:
        """Row of each row's key in a listing (N,); -1 where `extra` allows others. `whole`: each key must come."""
        keys = listing.unique(column)
        rows = pd.Index(list(keys), dtype=object).get_indexer(self[column])
        strangers = np.flatnonzero(rows < 0)
        if strangers.size and not extra:
            twin = composed_otherwise(str(self[column][strangers[0]]), keys) or "; fix one"
            self.refuse(strangers[0], f"has a {column} not in {listing.path} ({strangers.size} such){twin}")
        absent = np.setdiff1d(np.arange(len(keys)), rows)
        if absent.size and whole:
            key = f"{column} {listing[column][absent[0]]!r}, which is in {listing.path} ({absent.size} such)"
            raise UserError(f"{self.path} has no line for {key}; add one")
        return rows

    def one_each(self, listing: Rows, column: str, extra: bool = False) -> np.ndarray:
        """Row here of each row of a listing; as `match`, but nothing may come twice."""
        keys = self.unique(column)
        self.match(listing, column, extra)
        return pd.Index(list(keys), dtype=object).get_indexer(listing[column])

    def groups(self, listing: Rows, column: str, extra: bool = False) -> list[np.ndarray]:
        """Rows here of each row of a listing, in their order; as `match`."""
        rows = self.match(listing, column, extra)
        order = np.argsort(rows, kind="stable")
        return np.split(order, np.searchsorted(rows[order], np.arange(len(listing) + 1)))[1:-1]


def are_boxes(corners: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Whether each x0 y0 x1 y1 (N, 4) is finite, in order and nowhere below `least`: bool (N,)."""
    x0, y0, x1, y1 = corners.T
    return np.isfinite(corners).all(axis=1) & (x0 <= x1) & (y0 <= y1) & (corners >= least).all(axis=1)


def safe_join(folder: Path, name: str, where: str) -> Path:
    """Join a folder and a path that a file gives, and refuse one that leads elsewhere; links on the disk may."""
    # A path made on Windows is none of ours, but what it would mean there must not be taken for a plain name here.
    ways = PurePosixPath(name), PureWindowsPath(name)
    if any(way.anchor or ".." in way.parts for way in ways) or "\0" in name or not ways[0].parts:
        raise UserError(f"{where}: path {name!r} leads out of {folder}: give one inside it, as folder/image.jpg")
    return folder / name


def read_lines(path: Path, columns: Sequence[str], separator: str | None = ",", hint: str = "") -> Rows:
    """Read a text file without a header: only the first column may hold the separator; the last, if that is None."""
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


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Rows:
    """Read columns of a `.csv` (UTF-8, commas, a header) or `.parquet`, and optional ones; no empty rows."""
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise UserError(f"{path}: wanted a .csv or .parquet file")
    try:
        names, rows, places = _read_csv(path) if suffix == ".csv" else _read_parquet(path)
    except UserError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} can't be read as a table: {error}; write it anew, a CSV in UTF-8") from error
    wanted = [*columns, *(name for name in optional if name in names)]
    for name in wanted:
        if names.count(name) != 1:
            why = f"the column {name} twice" if name in names else f"no column {name}"
            raise UserError(f"{path} has {why}; it has {', '.join(names)}")
    cells = {name: [row[names.index(name)] for row in rows] for name in wanted}
    return Rows(path, cells, [f"{path}, {place}" for place in places])


def _read_csv(path: Path) -> tuple[list[str], list[list[Any]], list[str]]:
    """Names of columns, rows as long as these, and the line that each row ends in."""
    reader = csv.reader(io.StringIO(read_text(path)), skipinitialspace=True, strict=True)
    names, rows, places = [name.strip() for name in next(reader, [])], [], []
    for row in reader:
        if any(row[len(names) :]):
            what = f"{len(row)} cells, but the header has {len(names)}; write decimal points, not commas"
            raise UserError(f"{path}, line {reader.line_num}: {what}")
        if any(cell.strip() for cell in row):
            rows.append(row[: len(names)] + [""] * (len(names) - len(row)))
            places.append(f"line {reader.line_num}")
    return names, rows, places


def _read_parquet(path: Path) -> tuple[list[str], list[list[Any]], list[str]]:
    table = pd.read_parquet(path)
    kept = np.flatnonzero((table.notna() & (table != "")).any(axis=1))
    rows = table.iloc[kept].to_numpy(object).tolist()
    return list(map(str, table.columns)), rows, [f"row {row + 1}" for row in kept]


class _WithoutDoctype(ElementTree.TreeBuilder):
    """A document type can define entities that grow, or name files, in whatever encoding; annotations have none."""

    def doctype(self, *_: Any) -> None:
        raise ElementTree.ParseError("it has a DOCTYPE, which annotations have not")


def read_xml(paths: Sequence[Path]) -> tuple[list[tuple[int, int] | None], Rows]:
    """Read PASCAL VOC's annotations, a file per image: (width, height), or None where it doesn't say, and objects.

    Columns are `image` (its number), `name`, `xmin`, `ymin`, `xmax`, `ymax`, `difficult`; body parts are no objects.
    """
    sizes: list[tuple[int, int] | None] = []
    places: list[str] = []
    columns: dict[str, list[Any]] = {column: [] for column in ("image", *XML_OBJECT)}
    for image, path in enumerate(paths):
        try:
            root = ElementTree.parse(path, ElementTree.XMLParser(target=_WithoutDoctype())).getroot()
        except (OSError, ElementTree.ParseError) as error:
            raise UserError(f"{path} can't be read as XML: {error}; unpack the annotations whole") from error
        if root.tag != "annotation" or any(not node.findtext("name", "").strip() for node in root.findall("object")):
            raise UserError(f"{path} is no <annotation> whose every <object> has a <name>; fix it")
        texts = [root.findtext(f"size/{side}", "").strip() for side in ("width", "height")]
        width, height = (int(text) if text.isdecimal() else 0 for text in texts)
        sizes.append((width, height) if width and height else None)
        for number, node in enumerate(root.findall("object"), start=1):
            places.append(f"{path}, object {number}")
            columns["image"].append(image)
            for column, tag in XML_OBJECT.items():
                columns[column].append(node.findtext(tag, "").strip())
    return sizes, Rows(Path(), columns, places)
