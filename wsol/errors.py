"""The exceptions for input that is wrong, and how their texts name what was meant."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from unicodedata import normalize


class UserError(ValueError):
    """Input that only the user can fix: its text says what, where, and what to do.

    The command line prints the text and exits with 2. It takes one string, so that it survives pickling on its way
    back from worker processes.

    Examples
    --------
    >>> raise UserError("tau = 1.5 is outside [0, 1): pass a fraction of the map's maximum")
    Traceback (most recent call last):
    ...
    wsol.errors.UserError: tau = 1.5 is outside [0, 1): pass a fraction of the map's maximum
    """

    exit_code = 2


class FaultyDataError(UserError):
    """Data was read whole and has faults that change numbers: what `wsol check` is for, so it exits with 1."""

    exit_code = 1


class LostRankError(UserError):
    """One of several processes fell silent; what was done is kept."""

    exit_code = 1


def closest(word: object, names: Iterable[object], most: int = 3) -> list[str]:
    """Names that somebody who wrote `word` may have meant, best first."""
    import difflib

    return difflib.get_close_matches(str(word), list(map(str, names)), n=most, cutoff=0.6)


def suggest(word: object, names: Iterable[object], most: int = 3) -> str:
    """End of a sentence about an unknown name: what was probably meant, else what there is."""
    names = list(names)
    alike = closest(word, names, most)
    if twin := composed_otherwise(str(word), names):
        return twin
    if alike:
        return f"; did you mean {' or '.join(alike)}?"
    return f"; there are {first_names(names, 40)}" if names else "; there are none"


def composed_otherwise(word: str, names: Iterable[object]) -> str:
    """End of a sentence about a name that looks like one that is there, but is made of other code points."""
    form = normalize("NFC", word)
    twins = [name for name in map(str, names) if name != word and normalize("NFC", name) == form]
    return f"; {twins[0]} looks the same, but one is Unicode's NFC and the other NFD: rename one" if twins else ""


def first_names(names: Iterable[object], most: int = 5) -> str:
    """Write the first few names, and how many more there are: `a, b, c and 4 more`."""
    rest = iter(names)
    text = ", ".join(map(str, islice(rest, most)))
    more = sum(1 for _ in rest)
    return f"{text} and {more} more" if more else text


def quantity(count: int, noun: str) -> str:
    """Write how many there are.

    >>> quantity(1, "sample"), quantity(2000, "class")
    ('1 sample', '2,000 classes')
    """
    ending = "" if count == 1 else "es" if noun.endswith(("s", "ch")) else "s"
    return f"{count:,} {noun}{ending}"
