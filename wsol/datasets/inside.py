"""Names of files that an annotation gives: followed only where they stay inside the dataset's folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from wsol.errors import UserError

__all__ = ["inside"]


def inside(folder: Path, name: str, where: str) -> Path:
    """Join a folder and the relative path that a file gives, and refuse one that leads elsewhere.

    Nothing is looked up on the disk: symbolic links that somebody put into the folder on purpose are followed.

    Parameters
    ----------
    folder : Path
    name : str
        As written in the annotation, with forward slashes.
    where : str
        File and line (or row) where it is written, for the message.

    Returns
    -------
    Path

    Raises
    ------
    UserError
        If the name is empty, absolute, goes up with `..`, or holds a character that no path can.

    Examples
    --------
    >>> inside(Path("data"), "cat/a.jpg", "boxes.csv, row 2").as_posix()
    'data/cat/a.jpg'
    >>> inside(Path("data"), "../a.jpg", "boxes.csv, row 3")
    Traceback (most recent call last):
    ...
    wsol.errors.UserError: boxes.csv, row 3: path '../a.jpg' leads out of data: give one inside it, as folder/image.jpg
    """
    # A path made on Windows is none of ours, but what it would mean there must not be taken for a plain name here.
    ways = PurePosixPath(name), PureWindowsPath(name)
    leads_out = any(way.is_absolute() or way.anchor or ".." in way.parts for way in ways)
    if leads_out or "\0" in name or not ways[0].parts:
        raise UserError(f"{where}: path {name!r} leads out of {folder}: give one inside it, as folder/image.jpg")
    return folder / name
