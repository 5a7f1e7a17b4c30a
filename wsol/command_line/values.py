"""Values of an application's own keys, refused before anything is loaded if they can't be meant."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from wsol.errors import UserError

__all__ = ["check_values"]

# Key → least and most. Seeds end where torch's and NumPy's generators all take them.
WHOLE = {
    "batch_size": (1, None), "workers": (0, None), "limit": (1, None), "pictures": (0, None), "seed": (0, 2**63 - 1),
    "most": (1, None), "resamples": (100, None), "chunk": (1, None), "top": (1, None),
}  # fmt: skip
SWITCHES = ("progress", "report", "resume", "shared", "flip", "threshold_from_test")
WORDS = ("view", "device", "on_error", "predict_over")


def check_values(settings: Mapping[str, Any], may_be_null: Collection[str] = ("limit",)) -> None:
    """Refuse a number that is none, a negative batch size, a switch that is neither true nor false.

    Parameters
    ----------
    settings : mapping
        Keys of an application; those that are not known here are left to whom they belong to.
    may_be_null : collection of str
        Whole numbers that may be left open.

    Raises
    ------
    UserError
        Naming the key and what it takes.

    Examples
    --------
    >>> check_values({"batch_size": "many"})
    Traceback (most recent call last):
    ...
    wsol.errors.UserError: batch_size='many': pass a whole number, at least 1
    """
    for key, (least, most) in WHOLE.items():
        value = settings.get(key, least)
        if value is None and key in may_be_null:
            continue
        if type(value) is not int or value < least or (most is not None and value > most):
            limits = f"at least {least}" if most is None else f"{least} to {most}"
            null = ", or null" if key in may_be_null else ""
            raise UserError(f"{key}={value!r}: pass a whole number, {limits}{null}")
    for key in SWITCHES:
        if not isinstance(settings.get(key, True), bool):
            raise UserError(f"{key}={settings[key]!r}: pass true or false")
    for key in WORDS:
        if not isinstance(settings.get(key, ""), str):
            raise UserError(f"{key}={settings[key]!r}: pass a word, as `wsol --help` lists them")
