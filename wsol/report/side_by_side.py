"""The picture that people know: an image, and beside it heatmaps and boxes for its classes, a block for each."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from wsol.errors import UserError
from wsol.explain import Answer, Explanation
from wsol.report.lettering import families, fitted, printable, text_width, wrapped
from wsol.report.names import method_name
from wsol.report.pictures import COLOR_MAP, FOUND, TRUTH, draw_box
from wsol.report.saving import STYLE

__all__ = ["check_color_map", "draw_side_by_side"]

PANEL = 2.2  # inches, the geometric mean of a panel's sides
ACROSS = 7  # panels in a row
GAP, HEADER, TITLE, LINE = 0.08, 0.32, 0.2, 0.16  # inches
LARGE, SMALL, TINY = 10, 8.5, 7.5  # points
LEAST_WIDTH = 3.4  # inches, so that there is room for the text
MOST_ASPECT = 5.0  # a panel of an image that is even longer has margins
LONGEST_SHOWN = 512  # pixels


def check_color_map(name: str) -> str:
    """Return the name of a color map of matplotlib, or say which there are.

    Examples
    --------
    >>> check_color_map("jet")
    'jet'
    """
    if name not in matplotlib.colormaps:
        known = "viridis, magma, inferno, cividis, turbo, jet"
        raise UserError(f"color_map={name!r}: there is no such color map in matplotlib; some are {known}")
    return name


def draw_side_by_side(
    found: Explanation, about: str = "", truth: np.ndarray | None = None, color_map: str = COLOR_MAP
) -> Figure:
    """Draw an explanation.

    Parameters
    ----------
    found : Explanation
    about : str
        Sentences that follow in the caption on how the boxes were made.
    truth : array (G, 4), optional
        True boxes, inclusive, in pixels of the image.
    color_map : str
        A name of matplotlib's.

    Returns
    -------
    Figure
        `wsol.report.saving.save_figure` writes it.
    """
    check_color_map(color_map)
    height, width = found.image.shape[:2]
    aspect = float(np.clip(width / height, 1 / MOST_ASPECT, MOST_ASPECT))
    size = PANEL * aspect**0.5, PANEL / aspect**0.5
    count = 1 + len(found.layers)
    columns = min(count, ACROSS)
    rows = -(-count // columns)
    across = max(columns * (size[0] + GAP) + GAP, LEAST_WIDTH)
    caption = wrapped(printable(_caption(found, truth) + " " + about), TINY, across - 2 * GAP)
    block = HEADER + rows * (TITLE + size[1])
    down = len(found.answers) * block + GAP + LINE * len(caption) + GAP
    with matplotlib.rc_context({**STYLE, "font.family": families()}):
        figure = Figure(figsize=(across, down))
        for number, answer in enumerate(found.answers):
            top = number * block
            words = _header(answer, across - 2 * GAP)
            figure.text(GAP / across, 1 - (top + HEADER - 0.08) / down, words, fontsize=LARGE)
            places = [
                ((GAP + column * (size[0] + GAP)) / across,
                 1 - (top + HEADER + row * (TITLE + size[1]) + TITLE + size[1]) / down)
                for row in range(rows) for column in range(columns)
            ]  # fmt: skip
            axes = [figure.add_axes((*place, size[0] / across, size[1] / down)) for place in places[:count]]
            _draw_row(axes, found.image, answer, truth, color_map, size[0])
        figure.text(GAP / across, GAP / down, "\n".join(caption), fontsize=TINY, linespacing=1.35, color="#444444")
    return figure


def _draw_row(
    axes: Sequence[Axes], image: np.ndarray, answer: Answer, truth: np.ndarray | None, color_map: str, inches: float
) -> None:
    height, width = image.shape[:2]
    small = Image.fromarray(image)
    small.thumbnail((LONGEST_SHOWN, LONGEST_SHOWN))
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)  # boxes count pixels of the image, however small it is shown
    for axis in axes:
        axis.imshow(small, extent=extent, interpolation="bilinear")
        axis.set_axis_off()
        axis.set_anchor("N")
        for box in truth if truth is not None else ():
            draw_box(axis, box, TRUTH)
        axis.set_xlim(extent[0], extent[1])
        axis.set_ylim(extent[2], extent[3])
    axes[0].set_title("image", fontsize=SMALL, pad=3)
    for axis, (name, region) in zip(axes[1:], answer.regions.items(), strict=True):
        title = method_name(name) + ("" if region.box is not None else " (empty)")
        axis.set_title(fitted(printable(title), SMALL, inches), fontsize=SMALL, pad=3)
        colors = matplotlib.colormaps[color_map](region.heat)[..., :3]
        axis.imshow(colors, extent=extent, alpha=0.55, interpolation="bilinear")
        if region.box is not None:
            draw_box(axis, region.box, FOUND)


def _header(answer: Answer, inches: float) -> str:
    share = 100 * answer.probability
    shown = f"  {share:.1f} %" if share >= 0.1 else "  < 0.1 %"
    return fitted(f"{answer.rank}.  {printable(answer.name)}", LARGE, inches - text_width(shown, LARGE) - 0.1) + shown


def _caption(found: Explanation, truth: np.ndarray | None) -> str:
    rules = found.protocol
    sign = "at least" if rules.pixel_comparison == ">=" else "above"
    box = (
        f"Orange: the box around the largest region {sign} τ = {rules.threshold:g} of the map's maximum, "
        f"by the rules of {rules.name}."
    )
    return box + (" White: the true box." if truth is not None else "")
