"""Some of a dataset's classes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from wsol.errors import UserError

__all__ = ["choose_classes"]


def choose_classes(known: Sequence[str], wanted: Sequence[str] | str | None, where: str) -> tuple[str, ...]:
    """Return the classes asked for, in the order asked for; all of them when nothing is asked.

    Raises
    ------
    UserError
        If a class is unknown (naming the nearest) or asked for twice.

    Examples
    --------
    >>> choose_classes(["cat", "dog"], ["dog"], "labels.txt")
    ('dog',)
    """
    if wanted is None:
        return tuple(known)
    wanted = [wanted] if isinstance(wanted, str) else wanted
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 3, 0.4)
            raise UserError(
                f"dataset.classes: {name!r} is not among the {len(known)} classes of {where}"
                + (f"; the nearest: {', '.join(near)}" if near else "")
            )
    if len(set(wanted)) != len(wanted) or not wanted:
        raise UserError(f"dataset.classes={list(wanted)}: name at least one class, and each only once")
    return tuple(wanted)
