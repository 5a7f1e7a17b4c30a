"""What the user sees: tables that fit the terminal, a bar while something long runs, messages on stderr."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd


logger = logging.getLogger("wsol")
QUIET_SECONDS = 20  # between two lines where there is no terminal
WIDE = 10_000  # columns where there is no terminal: nothing is folded in a file
FOLDS_FROM = 30  # texts longer than this may be folded
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
COLORS = {"error": "red", "warning": "yellow"}


def ranks() -> tuple[int, int]:
    """Number of this process, and how many there are: of torchrun, or of `srun`; a script in a batch job is alone.

    The first one speaks for all.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_STEP_NAME") not in (None, "batch", "extern"):
        return int(os.environ.get("SLURM_PROCID", 0)), int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    return 0, 1


def console() -> Console:
    """Return the console for results; rich itself respects NO_COLOR and finds out whether it is a terminal.

    Letters that the output's encoding lacks are written as question marks.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(width=None if Console().is_terminal else WIDE, highlight=False, emoji=False)


def clean(text: object) -> str:
    """Text that a terminal shows and doesn't obey: escape sequences and turns of direction are written out."""
    return CONTROLS.sub(lambda match: ascii(match[0])[1:-1], str(text))


def print_line(text: str) -> None:
    """Print a line of text, however long, as it is."""
    console().print(clean(text), soft_wrap=True, markup=False)


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
    columns = {name: [*map(clean, [(headings or {}).get(name, name), *frame[name]])] for name in map(str, frame)}
    widths = {name: max(map(cell_len, cells)) for name, cells in columns.items()}
    for number, part in enumerate(_parts(widths, [name for name in keys if name in columns], screen.width)):
        if title:
            screen.print(
                Text(clean(title) if number == 0 else "(more columns)", "" if number else "bold"), soft_wrap=True
            )
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
    """Whether all texts that are not empty are numbers, perhaps with a ± or an interval behind, and there are some."""
    firsts = (re.split(r" [±\[<]", cell)[0] for cell in cells)
    try:
        return len([float(first.rstrip("*%†").replace("−", "-")) for first in firsts if first]) > 0
    except ValueError:
        return False


def _parts(widths: Mapping[str, int], keys: Sequence[str], most: int) -> list[list[str]]:
    """Cut a table between columns so that every part fits; a part holds one column at least."""
    parts = [list(keys)]
    for name in (name for name in widths if name not in keys):
        width = 1 + sum(min(widths[column], FOLDS_FROM) + 3 for column in (*parts[-1], name))
        if len(parts[-1]) > len(keys) and width > most:
            parts.append(list(keys))
        parts[-1].append(name)
    return [[name for name in widths if name in part] for part in parts]


@contextmanager
def progress(description: str, total: int, show: bool = True) -> Iterator[Callable[..., None]]:
    """Show how far a job is and how long it takes still; the block calls `advance(steps, note)`.

    Where there is no terminal, a line comes now and then. Of several processes only the first shows it.
    """
    screen, told, show = Console(stderr=True), time.monotonic(), show and ranks()[0] == 0
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
    )

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal told
        bar.update(task.id, advance=steps, note=note)
        if show and bar.disable and time.monotonic() - told > QUIET_SECONDS:
            told, remaining = time.monotonic(), task.time_remaining
            left = [] if remaining is None else [f"{timedelta(seconds=remaining)} left"]
            logger.info(", ".join([f"{description}: {task.completed:.0f} of {total}", *left, *filter(None, [note])]))

    with Progress(*columns, console=screen, transient=True, disable=not (show and screen.is_terminal)) as bar:
        bar.add_task(description, total=total, note="")
        (task,) = bar.tasks
        yield advance


def print_message(message: str, kind: str = "error") -> None:
    """Print an error or a warning to stderr, in color where that is a terminal and NO_COLOR isn't set."""
    screen = Console(stderr=True, width=WIDE, highlight=False, emoji=False)
    screen.print(Text(f"wsol: {kind}:", COLORS[kind]), clean(message), soft_wrap=True, markup=False)


class _Messages(logging.Handler):
    """Prints what is merely said and counts warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.warnings[" ".join(record.getMessage().split())] += 1
        else:
            print(clean(record.getMessage()), file=sys.stderr)


@contextmanager
def showing_messages() -> Iterator[None]:
    """Show what wsol says while the block runs, whatever Hydra sets up; leave logging as it was.

    Warnings, also those of Python and of other packages, come once each when the outermost block ends. Of several
    processes only the first says anything.
    """
    if any(isinstance(handler, _Messages) for handler in logger.handlers):
        yield
        return
    messages, sources = _Messages(), (logger, logging.getLogger("py.warnings"))
    messages.setLevel(logging.NOTSET if ranks()[0] == 0 else logging.CRITICAL)
    before = [(source.level, source.propagate, source.handlers) for source in sources]
    for source in sources:
        source.propagate, source.handlers = False, [messages]
    logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for source, (level, propagate, handlers) in zip(sources, before, strict=True):
            source.setLevel(level)
            source.propagate, source.handlers = propagate, handlers
        sys.stdout.flush()  # in a log the results come first
        for message, times in messages.warnings.items():
            print_message(message if times == 1 else f"{message} ({times} times)", "warning")
