"""What is said on stderr: progress at once, every warning once and in one place at the end, errors."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

__all__ = ["complain", "logging_to_stderr"]

COLORS = {"error": "\033[31m", "warning": "\033[33m"}


def complain(message: str, kind: str = "error") -> None:
    """Print one message to stderr, in color where that is a terminal and NO_COLOR isn't set.

    Parameters
    ----------
    message : str
    kind : "error" or "warning"
    """
    colored = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    head = f"{COLORS[kind]}wsol: {kind}:\033[0m" if colored else f"wsol: {kind}:"
    print(head, message, file=sys.stderr)


class _Says(logging.Handler):
    """Prints what is merely said and keeps warnings, each with how often it came."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.keep(record.getMessage())
        else:
            print(record.getMessage(), file=sys.stderr)

    def keep(self, message: str) -> None:
        self.warnings[message] = self.warnings.get(message, 0) + 1

    def show_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Stand in for `warnings.showwarning`: other people's packages warn in this way."""
        place = Path(filename)
        self.keep(f"{' '.join(str(message).split())} ({category.__name__}, {place.parent.name}/{place.name})")

    def tell(self) -> None:
        sys.stdout.flush()  # in a log the results come first
        for message, times in self.warnings.items():
            complain(message if times == 1 else f"{message} ({times} times)", "warning")
        self.warnings.clear()


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Show what wsol says while the block runs, whatever Hydra sets up; leave logging as it was.

    Warnings, also those of Python and of other packages, come when the outermost block ends.
    """
    logger, root = logging.getLogger("wsol"), logging.getLogger()
    before = logger.level, logger.propagate, list(logger.handlers)
    root_before = root.level, list(root.handlers)
    theirs = {name: logging.getLogger(name).level for name in ("hydra", "hydra_plugins")}
    outer = next((handler for handler in logger.handlers if isinstance(handler, _Says)), None)
    says = outer or _Says()
    logger.handlers, logger.propagate = [says], False
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = says.show_warning
            yield
    finally:
        logger.level, logger.propagate, logger.handlers = before
        root.level, root.handlers = root_before
        for name, level in theirs.items():
            logging.getLogger(name).setLevel(level)
        if outer is None:
            says.tell()
