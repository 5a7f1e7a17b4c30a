"""A run's figures for a paper, as PNG and SVG: nothing but the data, the axes and the names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wsol.report.chart_data import KIND_NAMES, Charts, SizeShares
from wsol.report.lettering import families, fitted, printable
from wsol.report.palette import KIND_COLORS, Style
from wsol.report.saving import STYLE, save_figure

__all__ = ["draw_figures", "file_part"]

PANEL = (2.3, 1.9)  # inches
LEGEND_ROW = 0.17
NAME = 1.2  # inches for a name

Curve = tuple[np.ndarray, np.ndarray]


def draw_figures(charts: Mapping[str, Charts], styles: Mapping[str, Style], folder: Path) -> list[Path]:
    """Draw the charts of a run's page.

    Parameters
    ----------
    charts : mapping of protocol to Charts
    styles : mapping of method to Style
    folder : Path
        Usually `figures/` of the run.

    Returns
    -------
    list of Path
        `accuracy_<protocol>.svg`, `.png`, and the same with `iou`, `size` and `errors`, as far as there is data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for protocol, shown in charts.items():
        with matplotlib.rc_context({**STYLE, "font.family": families()}):
            figures = {
                "accuracy": _accuracy(shown, styles),
                "iou": _shares(shown.shares, styles),
                "size": _sizes(shown.sizes, styles),
                "errors": _errors(shown.errors),
            }
        for name, figure in figures.items():
            if figure is not None:
                written += save_figure(figure, folder / f"{name}_{file_part(protocol)}")
    return written


def file_part(name: str) -> str:
    """Turn a protocol's or method's name into what every file system takes.

    Examples
    --------
    >>> file_part("cam@layer4/../x")
    'cam@layer4_.._x'
    """
    return re.sub(r"[^\w.@+-]+", "_", name)[:80]


def _panels(count: int, series: int) -> tuple[Figure, list[Axes]]:
    """Panels side by side above room for a legend."""
    columns = max(2, 2 * count)
    room = LEGEND_ROW * -(-series // columns) + 0.08
    left, right, top, bottom, gap = 0.5, 0.12, 0.22, 0.42, 0.45
    width = left + count * PANEL[0] + (count - 1) * gap + right
    height = top + PANEL[1] + bottom + room
    figure = Figure(figsize=(width, height))
    share = PANEL[0] / width, PANEL[1] / height
    places = [((left + i * (PANEL[0] + gap)) / width, (bottom + room) / height) for i in range(count)]
    return figure, [figure.add_axes((*place, *share)) for place in places]


def _legend(figure: Figure, axis: Axes, panels: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=max(2, 2 * panels), fontsize=7, handlelength=2.6)


def _line(axis: Axes, curve: Curve, name: str, style: Style) -> None:
    dashes = [float(part) / 1.3 for part in style.dash.split()]
    axis.plot(*curve, color=style.color, linestyle=(0, dashes) if dashes else "-", label=_shown(name), clip_on=False)


def _accuracy(charts: Charts, styles: Mapping[str, Style]) -> Figure | None:
    if not charts.curves:
        return None
    figure, axes = _panels(len(charts.curves), len(charts.thresholds))
    for axis, (delta, methods) in zip(axes, charts.curves.items(), strict=True):
        for name, curve in methods.items():
            _line(axis, curve, name, styles[name])
            at = int(np.abs(curve[0] - charts.thresholds[name]).argmin())
            axis.plot(*(part[at] for part in curve), "o", color=styles[name].color, markersize=4, mec="white", mew=0.6,
                      clip_on=False)  # fmt: skip
        _finish(axis, f"IoU {100 * delta:.0f}", "threshold τ", "GT-known localization (%)" if axis is axes[0] else "")
    _legend(figure, axes[0], len(axes))
    return figure


def _shares(shares: Mapping[str, Curve], styles: Mapping[str, Style]) -> Figure | None:
    if not shares:
        return None
    figure, axes = _panels(1, len(shares))
    for name, curve in shares.items():
        _line(axes[0], curve, name, styles[name])
    _finish(axes[0], "", "IoU of at least", "samples (%)")
    _legend(figure, axes[0], 1)
    return figure


def _sizes(sizes: SizeShares | None, styles: Mapping[str, Style]) -> Figure | None:
    if sizes is None:
        return None
    figure, axes = _panels(1, len(sizes.values))
    places = np.arange(len(sizes.bins))
    for name, values in sizes.values.items():
        _line(axes[0], (places, np.array(values)), name, styles[name])
        axes[0].plot(places, values, "o", color=styles[name].color, markersize=3, clip_on=False)
    _finish(axes[0], "", "object's share of the image (%)", "GT-known localization (%)")
    axes[0].set_xlim(-0.3, len(places) - 0.7)
    axes[0].set_xticks(places, [name.removesuffix(" %") for name in sizes.bins])
    _legend(figure, axes[0], 1)
    return figure


def _errors(shares: Mapping[str, Mapping[str, float]]) -> Figure | None:
    if not shares:
        return None
    height = 0.24 * len(shares) + 0.85
    figure = Figure(figsize=(4.6, height))
    axis = figure.add_axes((0.26, 0.62 / height, 0.7, 0.24 * len(shares) / height))
    names, start = list(shares), np.zeros(len(shares))
    for kind, label in KIND_NAMES.items():
        values = np.array([shares[name].get(kind, 0.0) for name in names])
        axis.barh(range(len(names)), values, left=start, height=0.75, color=KIND_COLORS[kind][0], label=label)
        start += values
    axis.set_yticks(range(len(names)), [_shown(name) for name in names])
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("samples (%)", labelpad=2)
    axis.tick_params(axis="y", length=0)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(KIND_NAMES), fontsize=6.5, handlelength=0.9,
                  columnspacing=0.9, handletextpad=0.4)  # fmt: skip
    return figure


def _finish(axis: Axes, title: str, across: str, up: str) -> None:
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 100)
    axis.set_xlabel(across, labelpad=2)
    axis.set_ylabel(up, labelpad=2)
    axis.set_title(title, fontsize=8, pad=4)


def _shown(name: str) -> str:
    """Shorten a name, on one line; a leading underscore would hide it from the legend."""
    text = fitted(printable(name), 7, NAME)
    return f"\u200b{text}" if text.startswith("_") else text
