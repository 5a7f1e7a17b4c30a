"""What the user sees: tables that fit the terminal, a bar while something long runs, messages on stderr."""

from __future__ import annotations

import io
import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd


logger = logging.getLogger("wsol")
QUIET_SECONDS = 20  # between two lines where there is no terminal
WIDE = 10_000  # columns where there is no terminal: nothing is folded in a file
FOLDS_FROM = 30  # texts longer than this may be folded
COLORS = {"error": "red", "warning": "yellow"}


def console() -> Console:
    """Return the console for results; rich itself respects NO_COLOR and finds out whether it is a terminal.

    Letters that the output's encoding lacks are written as question marks.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(width=None if Console().is_terminal else WIDE, highlight=False, emoji=False)


def print_line(text: str) -> None:
    """Print a line of text, however long, as it is."""
    console().print(text, soft_wrap=True, markup=False)


def print_table(
    frame: pd.DataFrame,
    title: str = "",
    *,
    headings: Mapping[str, str] | None = None,
    keys: Sequence[str] = (),
    bold: Collection[tuple[int, str]] = (),
) -> None:
    """Print a table of texts; numbers stand to the right. Elsewhere than on a terminal it is Markdown's.

    `headings` says what stands above a column, `bold` holds (row, column). Where the terminal is too narrow, the table
    is cut between columns, and each part begins with the columns `keys`.
    """
    screen = console()
    columns = {name: [str((headings or {}).get(name, name)), *map(str, frame[name])] for name in map(str, frame)}
    widths = {name: max(map(cell_len, cells)) for name, cells in columns.items()}
    for number, part in enumerate(_parts(widths, [name for name in keys if name in columns], screen.width)):
        if title:
            screen.print(Text(title if number == 0 else "(more columns)", "" if number else "bold"), soft_wrap=True)
        table = Table(header_style="bold", box=box.HEAVY_HEAD if screen.is_terminal else box.MARKDOWN)
        for name in part:
            heading, *cells = columns[name]
            numeric = are_numbers(cells)
            fixed = numeric or widths[name] <= FOLDS_FROM
            table.add_column(Text(heading), justify="right" if numeric else "left", overflow="fold", no_wrap=fixed)
        for row in range(len(frame)):
            table.add_row(*(Text(columns[name][row + 1], "bold" if (row, name) in bold else "") for name in part))
        with screen.capture() as caught:
            screen.print(table)
        lines = caught.get().splitlines()
        print("\n".join(lines if screen.is_terminal else filter(None, map(str.rstrip, lines))))


def are_numbers(cells: Iterable[str]) -> bool:
    """Whether all texts that are not empty are numbers, and some are."""
    try:
        return len([float(cell.rstrip("*%")) for cell in cells if cell]) > 0
    except ValueError:
        return False


def _parts(widths: Mapping[str, int], keys: Sequence[str], most: int) -> list[list[str]]:
    """Cut a table between columns so that every part fits; a part holds one column at least."""
    parts = [list(keys)]
    for name in widths:
        width = 1 + sum(min(widths[column], FOLDS_FROM) + 3 for column in (*parts[-1], name))
        if name not in keys and len(parts[-1]) > len(keys) and width > most:
            parts.append(list(keys))
        if name not in keys:
            parts[-1].append(name)
    return [[name for name in widths if name in part] for part in parts]


@contextmanager
def progress(description: str, total: int, show: bool = True) -> Iterator[Callable[..., None]]:
    """Show how far a job is and how long it takes still; the block calls `advance(steps, note)`.

    Where there is no terminal, a line comes now and then.
    """
    screen = Console(stderr=True)
    if not show:
        yield lambda steps=1, note="": None
        return
    if not screen.is_terminal:
        yield _lines(description, total)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        _Speed(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(description, total=total, note="")
        yield lambda steps=1, note="": bar.update(task, advance=steps, note=note)


class _Speed(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.3g}/s")


def _lines(description: str, total: int) -> Callable[..., None]:
    began = told = time.monotonic()
    done = 0

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal done, told
        done, now = done + steps, time.monotonic()
        if now - told > QUIET_SECONDS:
            per_second = done / max(now - began, 1e-9)
            left = timedelta(seconds=round(max(total - done, 0) / max(per_second, 1e-9)))
            ending = f", {note}" if note else ""
            logger.info("%s: %d of %d, %s left, %.3g/s%s", description, done, total, left, per_second, ending)
            told = now

    return advance


def print_message(message: str, kind: str = "error") -> None:
    """Print an error or a warning to stderr, in color where that is a terminal and NO_COLOR isn't set."""
    screen = Console(stderr=True, width=WIDE, highlight=False, emoji=False)
    screen.print(Text(f"wsol: {kind}:", COLORS[kind]), message, soft_wrap=True, markup=False)


class _Messages(logging.Handler):
    """Prints what is merely said and counts warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.warnings[record.getMessage()] += 1
        else:
            print(record.getMessage(), file=sys.stderr)

    def show_warning(self, message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
        """Stand in for `warnings.showwarning`: other people's packages warn in this way."""
        place = Path(filename)
        self.warnings[f"{' '.join(str(message).split())} ({category.__name__}, {place.parent.name}/{place.name})"] += 1

    def print_warnings(self) -> None:
        sys.stdout.flush()  # in a log the results come first
        for message, times in self.warnings.items():
            print_message(message if times == 1 else f"{message} ({times} times)", "warning")


@contextmanager
def showing_messages() -> Iterator[None]:
    """Show what wsol says while the block runs, whatever Hydra sets up; leave logging as it was.

    Warnings, also those of Python and of other packages, come once each when the outermost block ends.
    """
    outer = next((handler for handler in logger.handlers if isinstance(handler, _Messages)), None)
    messages, loggers = outer or _Messages(), list(map(logging.getLogger, ("wsol", "hydra", "hydra_plugins", "root")))
    before = [(one.level, one.propagate, list(one.handlers)) for one in loggers]
    logger.setLevel(logging.INFO)
    logger.propagate, logger.handlers = False, [messages]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = messages.show_warning
            yield
    finally:
        for one, (level, propagate, handlers) in zip(loggers, before, strict=True):
            one.setLevel(level)
            one.propagate, one.handlers = propagate, handlers
        if outer is None:
            messages.print_warnings()
