"""What the user sees while something long runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Advance", "console", "progress"]

logger = logging.getLogger("wsol")
QUIET_SECONDS = 20  # between two lines where there is no terminal


def console() -> Console:
    """Return the console for results; rich itself respects NO_COLOR and finds out whether it is a terminal."""
    return Console(width=None if Console().is_terminal else 200, highlight=False)


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
        if self.bar is not None and self.task is not None:
            rate = f"{self.done / max(now - self.start, 1e-9):.0f}/s"
            self.bar.update(self.task, advance=steps, note=f"{rate} {note}".strip())
        elif now - self.said > QUIET_SECONDS:
            left = (now - self.start) / max(self.done, 1) * (self.total - self.done)
            logger.info("%s: %d of %d, %.0f s left %s", self.description, self.done, self.total, left, note)
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
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=screen, transient=True) as bar:
        yield Advance(description, total, bar)
