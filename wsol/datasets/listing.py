"""Annotations as rows of text, each with the line that it stands in, and keys that must agree between files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from wsol.datasets.inside import inside
from wsol.errors import UserError

__all__ = ["Listing"]


class Listing:
    r"""A text file of rows with a fixed number of columns.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        What they are called, for `[]` and for messages.
    separator : str, optional
        None: any white space, and only the last column may hold some itself. Else only the first column may hold
        the separator.
    hint : str
        What to do where the file is missing.

    Raises
    ------
    UserError
        If the file is missing or no text, or a row has another number of columns. Empty lines are passed over.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "class_labels.txt"
    >>> _ = path.write_text("a.jpg,3\n\nb.jpg,x")
    >>> listing = Listing(path, ["image id", "label"])
    >>> listing["image id"]
    ['a.jpg', 'b.jpg']
    >>> listing.integers("label")
    Traceback (most recent call last):
    ...
    wsol.errors.UserError: ...class_labels.txt, line 3: label 'x' is not a whole number; mend the line
    """

    def __init__(self, path: Path, columns: Sequence[str], separator: str | None = ",", hint: str = "") -> None:
        self.path, self.columns, self.separator = path, tuple(columns), separator
        splits = len(columns) - 1
        cells: list[str] = []  # flat: a list per row would keep the garbage collector busy
        self._numbers: list[int] = []
        for number, line in enumerate(_read(path, hint).split("\n"), start=1):
            if not line or line.isspace():
                continue
            fields = line.strip().split(maxsplit=splits) if separator is None else line.rsplit(separator, splits)
            if len(fields) != splits + 1:
                form = (separator or " ").join(columns)
                raise UserError(f"{path}, line {number}: {line!r} is not `{form}`; mend the line")
            cells += fields
            self._numbers.append(number)
        self._columns = [cells[column :: splits + 1] for column in range(splits + 1)]

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, column: str) -> list[str]:
        """Cells of a column."""
        return self._columns[self.columns.index(column)]

    def where(self, row: int) -> str:
        """Return file and line of a row, for messages."""
        return f"{self.path}, line {self._numbers[row]}"

    def refuse(self, row: int, why: str) -> NoReturn:
        """Raise `UserError` with file, line, text and reason."""
        text = (self.separator or " ").join(cells[row] for cells in self._columns)
        raise UserError(f"{self.where(row)}: {text!r} {why}")

    def integers(self, column: str, least: int = 0, most: int | None = None) -> np.ndarray:
        """Whole numbers of a column: int64 (N,), from `least` to `most`."""
        cells = self[column]
        try:
            values = np.array(cells, np.int64)
        except (ValueError, OverflowError):
            row = next(row for row, cell in enumerate(cells) if not _fits(np.int64, cell))
            raise UserError(
                f"{self.where(row)}: {column} {cells[row]!r} is not a whole number; mend the line"
            ) from None
        outside = np.flatnonzero((values < least) | (values > (np.inf if most is None else most)))
        if outside.size:
            limits = f"at least {least}" if most is None else f"{least} to {most}"
            where, value = self.where(outside[0]), values[outside[0]]
            raise UserError(f"{where}: {column} {value} is outside: it must be {limits}; mend the line")
        return values

    def floats(self, columns: Sequence[str]) -> np.ndarray:
        """Numbers of several columns: float64 (N, columns)."""
        cells = [self[column] for column in columns]
        try:
            return np.array(cells, np.float64).T.reshape(-1, len(columns))
        except ValueError:
            row = next(row for row, some in enumerate(zip(*cells, strict=True)) if not _fits(float, *some))
            self.refuse(row, f"does not end in the numbers {' '.join(columns)}; mend the line")

    def keys(self, column: str) -> dict[str, int]:
        """Row of each cell of a column in which nothing may come twice."""
        rows = {cell: row for row, cell in enumerate(self[column])}
        if len(rows) < len(self):
            row = next(row for row, cell in enumerate(self[column]) if rows[cell] != row)
            cell = self[column][row]
            raise UserError(
                f"{self.where(rows[cell])}: {column} {cell!r} stands in line {self._numbers[row]} already; remove one"
            )
        return rows

    def safe(self, column: str, folder: Path) -> None:
        """Refuse a path that leads out of its folder, as `wsol.datasets.inside` does."""
        for row, cell in enumerate(self[column]):
            # Looking closely at a million names takes seconds, so only at those with a suspicious character.
            if cell[:1] in ("/", "") or ".." in cell or "\\" in cell or ":" in cell or "\0" in cell or cell == ".":
                inside(folder, cell, self.where(row))

    def positions(
        self, column: str, known: Mapping[str, int], source: Path, once: bool = True, extra: bool = False
    ) -> np.ndarray:
        """Where each row's key stands in another file.

        Parameters
        ----------
        column : str
        known : mapping
            That file's keys, numbered from 0.
        source : Path
            That file.
        once : bool
            Whether a key may come once only.
        extra : bool
            Whether rows with keys that the other file lacks are fine; they get -1.

        Returns
        -------
        array of int64 (N,)

        Raises
        ------
        UserError
            If a key is here and not there, there and not here, or twice.
        """
        if once:
            self.keys(column)
        cells = self[column]
        found = np.fromiter((known.get(cell, -1) for cell in cells), np.int64, len(self))
        strangers = np.flatnonzero(found < 0)
        if strangers.size and not extra:
            raise UserError(
                f"{self.where(strangers[0])}: {column} {cells[strangers[0]]!r} is not in {source}"
                f"{_more(strangers.size)}; add it there, or remove the line"
            )
        absent = np.flatnonzero(np.bincount(found[found >= 0], minlength=len(known)) == 0)
        if absent.size:
            name = next(cell for cell, position in known.items() if position == absent[0])
            raise UserError(
                f"{self.path} has no line for {column} {name!r}, which is in {source}{_more(absent.size)}; "
                f"add one, or remove it there"
            )
        return found


def _more(count: int) -> str:
    return f" ({count} such)" if count > 1 else ""


def _fits(kind: Callable[[str], object], *cells: str) -> bool:
    try:
        for cell in cells:
            kind(cell)
    except (ValueError, OverflowError):
        return False
    return True


def _read(path: Path, hint: str) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file{f'; {hint}' if hint else ''}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as UTF-8 text: {error}; replace the file") from error
