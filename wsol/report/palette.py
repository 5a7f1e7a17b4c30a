"""The colors of a report, which color-blind readers can tell apart as well, and dashes where they run out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["BASELINES", "KIND_COLORS", "Style", "series_styles"]

BASELINES = ("center", "random", "full")
# Of Okabe and Ito and, the last, of Tol; the same as --s0 … --s5 of the style sheet on light paper.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#332288")
GRAY = "#767c85"
DASHES = ("", "7 3", "2 2.5")
BASELINE_DASHES = ("5 3", "1.5 3", "9 3")

# Error kinds: a fill and the ink that can be read on it; gray for what is no error of the heatmap.
KIND_COLORS = {
    "right": ("#009e73", "#04231a"),
    "part": ("#56b4e9", "#10202b"),
    "too_much": ("#e69f00", "#2b1f05"),
    "several": ("#f0e442", "#2b2905"),
    "elsewhere": ("#d55e00", "#2b1200"),
    "wrong_class": ("#9aa0a8", "#17191c"),
}


@dataclass(frozen=True)
class Style:
    """How a series is drawn.

    Parameters
    ----------
    color : str
        On white paper.
    variable : str
        The style sheet's name for it, which is another color on dark paper.
    dash : str
        Lengths of line and gap, as SVG has them; "" for a whole line.
    """

    color: str
    variable: str
    dash: str


def series_styles(names: Sequence[str], functions: Mapping[str, str] | None = None) -> dict[str, Style]:
    """Give every series a color and, from the seventh on, a dash; baselines are gray.

    Parameters
    ----------
    names : sequence of str
        In the order of the tables.
    functions : mapping of name to heatmap function, optional
        By default the names are the functions'; `center` under another name is a baseline as well.

    Examples
    --------
    >>> styles = series_styles(["cam", "gradcam", "center"])
    >>> styles["cam"].color, styles["center"].variable
    ('#0072b2', 'var(--baseline)')
    """
    found: dict[str, Style] = {}
    colored = baselines = 0
    for name in names:
        if (functions or {}).get(name, name) in BASELINES:
            found[name] = Style(GRAY, "var(--baseline)", BASELINE_DASHES[baselines % len(BASELINE_DASHES)])
            baselines += 1
        else:
            number = colored % len(SERIES)
            found[name] = Style(SERIES[number], f"var(--s{number})", DASHES[colored // len(SERIES) % len(DASHES)])
            colored += 1
    return found
