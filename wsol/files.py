"""Write files whole or not at all; name a file that can't be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsol.errors import UserError

__all__ = ["naming_damage", "whole_file", "write_text"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside the wanted one; it takes the wanted one's place when the block ends well.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with whole_file(folder / "a.txt") as path:
    ...     _ = path.write_text("whole")
    >>> [file.name for file in folder.iterdir()]
    ['a.txt']
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Reading in the block, of a file that this program wrote, raises a `UserError` with its name if it is damaged.

    Examples
    --------
    >>> import json
    >>> with naming_damage(Path("environment.json")):
    ...     json.loads("{")
    Traceback (most recent call last):
    ...
    wsol.errors.UserError: environment.json can't be read: Expecting property name enclosed in double quotes: ...
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of a damaged file each library makes whatever happens to break
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} can't be read: {reason}; it is damaged, or not as this program wrote it") from error
