"""What the user sees: tables that fit the terminal, a bar while something long runs; plain text elsewhere."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

__all__ = ["Advance", "console", "duration", "print_table", "progress", "rate"]

logger = logging.getLogger("wsol")
QUIET_SECONDS = 20  # between two lines where there is no terminal
WIDE = 10_000  # columns where there is no terminal: nothing is folded in a file
FOLDS_FROM = 30  # texts longer than this may be folded


def console() -> Console:
    """Return the console for results; rich itself respects NO_COLOR and finds out whether it is a terminal.

    Letters that the output's encoding lacks are written as question marks.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(width=None if Console().is_terminal else WIDE, highlight=False)


def print_table(
    frame: pd.DataFrame,
    title: str = "",
    *,
    headings: Mapping[str, str] | None = None,
    keys: Sequence[str] = (),
    bold: Collection[tuple[int, str]] = (),
) -> None:
    """Print a table; numbers stand to the right. Elsewhere than on a terminal it is Markdown's.

    Parameters
    ----------
    frame : DataFrame of str
    title : str
    headings : mapping, optional
        Column → what stands above it; by default the column's name.
    keys : sequence of columns
        Where the terminal is too narrow, the table is cut between columns and each part begins with these.
    bold : collection of (row, column)

    Examples
    --------
    >>> print_table(pd.DataFrame({"method": ["cam"], "GT-known": ["75.4"]}), "percent")
    percent
    | method | GT-known |
    |--------|----------|
    | cam    |     75.4 |
    """
    screen = console()
    names = [str(name) for name in frame.columns]
    titles = {name: str((headings or {}).get(name, name)) for name in names}
    cells = {name: [str(value) for value in frame[name]] for name in names}
    widths = {name: max(cell_len(text) for text in (titles[name], *cells[name])) for name in names}
    for number, part in enumerate(_parts(names, [name for name in keys if name in names], widths, screen.width)):
        said = title if number == 0 else "(more columns)"
        if said:
            screen.print(Text(said, "bold" if number == 0 else ""), soft_wrap=True)
        table = Table(
            header_style="bold",
            box=box.HEAVY_HEAD if screen.is_terminal else box.MARKDOWN,
        )
        for name in part:
            numeric = _all_numbers(cells[name])
            table.add_column(
                Text(titles[name]),
                justify="right" if numeric else "left",
                overflow="fold",
                no_wrap=numeric or widths[name] <= FOLDS_FROM,
            )
        for row in range(len(frame)):
            table.add_row(*(Text(cells[name][row], "bold" if (row, name) in bold else "") for name in part))
        if screen.is_terminal:
            screen.print(table)
            continue
        with screen.capture() as caught:
            screen.print(table)
        for line in filter(None, map(str.rstrip, caught.get().splitlines())):
            print(line)


def _all_numbers(cells: Sequence[str]) -> bool:
    numbers = pd.to_numeric(pd.Series([cell.rstrip("*%") for cell in cells if cell], dtype=object), errors="coerce")
    return len(numbers) > 0 and bool(numbers.notna().all())


def _parts(names: Sequence[str], keys: Sequence[str], widths: Mapping[str, int], most: int) -> list[list[str]]:
    """Cut a table between columns so that every part fits; a part holds one column at least."""

    def needed(some: Sequence[str]) -> int:
        return 1 + sum(min(widths[name], FOLDS_FROM) + 3 for name in some)

    parts = [list(keys)]
    for name in names:
        if name in keys:
            continue
        if len(parts[-1]) > len(keys) and needed([*parts[-1], name]) > most:
            parts.append(list(keys))
        parts[-1].append(name)
    return [[name for name in names if name in part] for part in parts]


def duration(seconds: float) -> str:
    """Say how long something takes.

    Examples
    --------
    >>> [duration(seconds) for seconds in (7, 200, 9000)]
    ['7 s', '3 min 20 s', '2 h 30 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def rate(done: int, seconds: float) -> str:
    """Say how fast it goes.

    Examples
    --------
    >>> [rate(done, 10) for done in (5000, 23, 4)]
    ['500/s', '2.3/s', '2.5 s each']
    """
    if not done or seconds <= 0:
        return ""
    fast = done / seconds
    return f"{fast:.0f}/s" if fast >= 10 else f"{fast:.1f}/s" if fast >= 1 else f"{1 / fast:.1f} s each"


class Advance:
    """Says how far a job is; made by `progress`."""

    def __init__(self, description: str, total: int, bar: Progress | None) -> None:
        self.description, self.total, self.done = description, total, 0
        self.bar = bar
        self.task = None if bar is None else bar.add_task(description, total=total, note="")
        self.start = self.said = time.monotonic()

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """Add steps that are done, with a word on what came out."""
        self.done += steps
        now = time.monotonic()
        passed = now - self.start
        left = f"{duration(passed / max(self.done, 1) * max(self.total - self.done, 0))} left"
        said = ", ".join(filter(None, (left, rate(self.done, passed), note)))
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, advance=steps, note=said)
        elif now - self.said > QUIET_SECONDS:
            logger.info("%s: %d of %d, %s", self.description, self.done, self.total, said)
            self.said = now


@contextmanager
def progress(description: str, total: int, show: bool = True) -> Iterator[Advance]:
    """Show progress with rate and time left while the block runs.

    Parameters
    ----------
    description : str
    total : int
        Steps until the end.
    show : bool
        False: say nothing at all.

    Examples
    --------
    >>> with progress("counting", 3, show=False) as advance:
    ...     for _ in range(3):
    ...         advance()
    >>> advance.done
    3
    """
    screen = Console(stderr=True)
    if not show or not screen.is_terminal:
        quiet = Advance(description, total, None)
        quiet.said = float("inf") if not show else quiet.said
        yield quiet
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=screen, transient=True) as bar:
        yield Advance(description, total, bar)
