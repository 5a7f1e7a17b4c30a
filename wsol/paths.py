"""Where the package keeps what is not code: the folder of configuration files."""

from __future__ import annotations

from pathlib import Path

from wsol.errors import UserError

__all__ = ["conf_dir"]


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
    package = Path(__file__).resolve().parent
    places = (package / "conf", package.parent / "conf")
    for place in places:
        if place.is_dir():
            return place
    raise UserError(f"no configuration folder at {places[0]} or {places[1]}: install the package again")
