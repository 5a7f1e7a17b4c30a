"""Where the package keeps what is not code: the folder of configuration files, and the published numbers."""

from __future__ import annotations

from pathlib import Path

from wsol.errors import UserError

__all__ = ["conf_dir", "published_file"]


def conf_dir() -> Path:
    """Folder of the configuration files: inside the installed package, or beside it in a checkout.

    Returns
    -------
    Path
        Absolute; it exists.

    Raises
    ------
    UserError
        If neither place exists, so that the installation is incomplete.

    Examples
    --------
    >>> (conf_dir() / "protocol" / "choe2020.yaml").exists()
    True
    """
    return _find("conf", "configuration folder")


def published_file() -> Path:
    """Table of published numbers: inside the installed package, or beside it in a checkout.

    Examples
    --------
    >>> published_file().name
    'published.csv'
    """
    return _find("results/published.csv", "table of published numbers")


def _find(name: str, what: str) -> Path:
    package = Path(__file__).resolve().parent
    places = (package / name, package.parent / name)
    for place in places:
        if place.exists():
            return place
    raise UserError(f"no {what} at {places[0]} or {places[1]}: install the package again")
