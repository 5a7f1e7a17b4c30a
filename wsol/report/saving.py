"""Figures as files: PNG and SVG with letters as outlines; the same figure gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from wsol.io import atomic_write

__all__ = ["STYLE", "save_figure"]

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "path",  # outlines: the font travels with the figure
    "svg.hashsalt": "wsol",  # the same figure gives the same bytes
}
DOTS_PER_INCH = 200


def save_figure(figure: Figure, stem: Path, kinds: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write a figure, each file whole or not at all.

    Parameters
    ----------
    figure : Figure
    stem : Path
        Folder and name without an ending.
    kinds : sequence of str
        "png", "svg", "pdf".

    Returns
    -------
    list of Path
    """
    paths = []
    for kind in kinds:
        path = stem.with_name(f"{stem.name}.{kind}")
        metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}}
        with matplotlib.rc_context(STYLE), atomic_write(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=DOTS_PER_INCH, metadata=metadata[kind])
        paths.append(path)
    return paths
