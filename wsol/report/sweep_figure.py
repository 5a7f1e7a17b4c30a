"""A sweep over one or two numbers as a picture: lines, or a heat map for every series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from wsol.report.lettering import families, fitted, printable, text_width
from wsol.report.palette import Style, series_styles
from wsol.report.saving import STYLE, save_figure
from wsol.report.sweep_best import MEASURES, groups_of, measure_of

__all__ = ["draw_sweep", "swept_numbers"]

PANEL = (2.9, 2.1)  # inches of a line chart
CELL = (0.44, 0.27)  # inches of a heat map's cell
POINTS = 8
SMALL = 7
GAP, LEFT, RIGHT, TOP, BOTTOM, ROW = 0.15, 0.6, 0.15, 0.3, 0.45, 0.19
BAR = 0.75  # inches right of a heat map, for its scale
ACROSS, PAGE = 3, 12  # panels in a row, and inches
COLOR_MAP = "viridis"
WIDE_RANGE = 50  # largest over smallest number from which on an axis is logarithmic


@dataclass(frozen=True)
class Panel:
    """A part of the sweep's table that is drawn by itself."""

    title: str
    measure: str
    rows: pd.DataFrame  # columns: the numbers, `series`, `method`, `value` in percent


def swept_numbers(frame: pd.DataFrame, overrides: Sequence[str]) -> list[str]:
    """Name the overrides that differ between jobs and are numbers in all of them.

    Examples
    --------
    >>> swept_numbers(pd.DataFrame({"x": ["1", "2e-1"], "y": ["1", "1"], "z": ["1", "null"]}), ["x", "y", "z"])
    ['x']
    """
    differ = [name for name in overrides if frame[name].nunique() > 1]
    return [name for name in differ if pd.to_numeric(frame[name], errors="coerce").notna().all()]


def draw_sweep(frame: pd.DataFrame, overrides: Sequence[str], stem: Path) -> list[Path]:
    """Draw a sweep over one or two numbers.

    Parameters
    ----------
    frame : DataFrame of str
        A sweep's table, as `sweep.csv` has it; failed jobs are left out.
    overrides : sequence of columns
        Those of its columns that say what a job was asked for. What differs and is no number makes series, as
        methods do.
    stem : Path
        Folder and name of the files, without an ending.

    Returns
    -------
    list of Path
        SVG and PNG; none where no number, or more than two, were swept.
    """
    frame = frame[frame["error"] == ""]
    numbers = swept_numbers(frame, overrides)
    names = [name for name in overrides if frame[name].nunique() > 1 and name not in numbers]
    if len(numbers) not in (1, 2):
        return []
    panels = _panels(frame, numbers, names)
    if not panels:
        return []
    with matplotlib.rc_context({**STYLE, "font.family": families()}):
        figure = _lines(panels, numbers[0]) if len(numbers) == 1 else _heat_maps(panels, numbers)
        return save_figure(figure, stem)


def _panels(frame: pd.DataFrame, numbers: Sequence[str], names: Sequence[str]) -> list[Panel]:
    panels = []
    for part in groups_of(frame):
        measure = measure_of(part)
        if measure is None:
            continue
        rows = part[list(numbers)].astype(float)
        rows["value"] = part[measure].astype(float) * MEASURES[measure][1]
        series = [part["method"]] if "method" in part else []
        series += [f"{name}=" + part[name] for name in names]
        rows["series"] = [printable(", ".join(row)) for row in zip(*series, strict=True)] if series else ""
        rows["method"] = part.get("method", "")
        about = [f"{part['dataset'].iloc[0]} ({part['split'].iloc[0]})"] if {"dataset", "split"} <= set(part) else []
        about += [str(part["protocol"].iloc[0])] if "protocol" in part else []
        panels.append(Panel(printable(", ".join(about)), measure, rows))
    return panels


def _lines(panels: Sequence[Panel], number: str) -> Figure:
    rows = pd.concat([panel.rows for panel in panels])
    methods = dict(zip(rows["series"], rows["method"], strict=True))
    series, styles = list(methods), series_styles(list(methods), methods)
    columns = min(len(panels), ACROSS)
    across = LEFT + columns * (PANEL[0] + LEFT) - LEFT + RIGHT
    legend = _legend_rows(series, across)
    figure, axes = _grid(len(panels), columns, PANEL, LEFT, RIGHT, BOTTOM, ROW * len(legend))
    for place, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        for name, own in panel.rows.groupby("series", sort=False):
            line = own.groupby(number)["value"].mean().sort_index()
            style = styles[str(name)]
            axis.plot(line.index, line, color=style.color, linestyle=_dashes(style), marker="o", markersize=3,
                      clip_on=False)  # fmt: skip
        values = panel.rows[number]
        if values.min() > 0 and values.max() / values.min() >= WIDE_RANGE:
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(axis="y", color="#e3e5e8", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.set_title(fitted(panel.title, POINTS, PANEL[0] + LEFT), fontsize=POINTS)
        axis.set_xlabel(fitted(printable(number), POINTS, PANEL[0] + LEFT), fontsize=POINTS)
        if place % columns == 0 or panel.measure != panels[place - 1].measure:
            axis.set_ylabel(f"{MEASURES[panel.measure][0]} (%)", fontsize=POINTS)
    _legend(figure, [[(name, styles[name]) for name in row] for row in legend], across)
    return figure


def _dashes(style: Style) -> Any:
    lengths = [float(length) / STYLE["lines.linewidth"] for length in style.dash.split()]
    return (0, lengths) if lengths else "-"


def _legend(figure: Figure, rows: Sequence[Sequence[tuple[str, Style]]], across: float) -> None:
    height = figure.get_size_inches()[1]
    for number, row in enumerate(rows):
        handles = [Line2D([], [], color=s.color, linestyle=_dashes(s), marker="o", markersize=3) for _, s in row]
        place = (LEFT / across, (ROW * (len(rows) - number) + 0.02) / height)
        figure.add_artist(
            figure.legend(handles, [name for name, _ in row], loc="upper left", bbox_to_anchor=place, ncols=len(row),
                          fontsize=SMALL, borderpad=0, borderaxespad=0, handlelength=2.2, columnspacing=1.2)
        )  # fmt: skip


def _legend_rows(names: Sequence[str], inches: float) -> list[list[str]]:
    """Break a legend into rows of a width; without several series there is none."""
    rows: list[list[str]] = []
    left = 0.0
    for name in names if len(names) > 1 else ():
        needed = text_width(fitted(name, SMALL, inches - 1), SMALL) + 0.5
        if not rows or needed > left:
            rows.append([])
            left = inches - LEFT
        rows[-1].append(fitted(name, SMALL, inches - 1))
        left -= needed
    return rows


def _heat_maps(panels: Sequence[Panel], numbers: Sequence[str]) -> Figure:
    counts = [len({value for panel in panels for value in panel.rows[name]}) for name in numbers]
    across, down = numbers if counts[0] >= counts[1] else numbers[::-1]
    charts = [
        (panel, str(name), own.pivot_table("value", down, across))
        for panel in panels
        for name, own in panel.rows.groupby("series", sort=False)
    ]
    shape = max(len(grid.columns) for *_, grid in charts), max(len(grid) for *_, grid in charts)
    size = max(CELL[0] * shape[0], 1.6), max(CELL[1] * shape[1], 1.0)
    left = max(text_width(f"{value:g}", SMALL) for *_, grid in charts for value in grid.index) + 0.3
    room = size[0] + left + BAR
    columns = min(len(charts), ACROSS, max(1, int(PAGE // room)))
    figure, axes = _grid(len(charts), columns, size, left, BAR, BOTTOM, 0, top=2 * ROW)
    for axis, (panel, series, grid) in zip(axes, charts, strict=True):
        same = panel.rows["value"]
        shown = axis.imshow(grid, cmap=COLOR_MAP, aspect="auto", vmin=same.min(), vmax=same.max())
        _cells(axis, grid, np.asarray(shown.cmap(shown.norm(grid.to_numpy()))))
        title = "\n".join(fitted(line, POINTS, room - 0.1) for line in (panel.title, series) if line)
        axis.set_title(title, fontsize=POINTS)
        axis.set_xlabel(fitted(printable(across), POINTS, room - 0.1), fontsize=POINTS)
        axis.set_ylabel(fitted(printable(down), POINTS, size[1] + 0.4), fontsize=POINTS)
        _color_bar(figure, axis, shown, f"{MEASURES[panel.measure][0]} (%)")
    return figure


def _color_bar(figure: Figure, axis: Axes, shown: AxesImage, label: str) -> None:
    x, y, across, down = axis.get_position().bounds
    inch = 1 / figure.get_size_inches()[0]
    scale = figure.add_axes((x + across + 0.06 * inch, y, 0.09 * inch, down))
    bar = figure.colorbar(shown, cax=scale)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL, length=2, pad=1)
    bar.set_label(fitted(label, SMALL, down / inch + 0.4), fontsize=SMALL, labelpad=3)


def _cells(axis: Axes, grid: pd.DataFrame, colors: np.ndarray) -> None:
    """Write the numbers into the cells, the best in bold."""
    values = grid.to_numpy()
    low, high = np.nanmin(values), np.nanmax(values)
    for row, column in np.argwhere(np.isfinite(values)):
        light = colors[row, column, :3] @ (0.299, 0.587, 0.114) > 0.55
        best = values[row, column] == high and high > low
        axis.text(column, row, f"{values[row, column]:.1f}", ha="center", va="center", fontsize=SMALL,
                  color="black" if light else "white", weight="bold" if best else "normal")  # fmt: skip
    axis.set_xticks(range(len(grid.columns)), [f"{value:g}" for value in grid.columns], fontsize=SMALL)
    axis.set_yticks(range(len(grid)), [f"{value:g}" for value in grid.index], fontsize=SMALL)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def _grid(
    count: int, columns: int, size: tuple[float, float], left: float, right: float, bottom: float, below: float,
    top: float = TOP,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """Panels of so many inches in rows, with room around each and some below all."""
    rows = -(-count // columns)
    across, down = columns * (size[0] + left + right), rows * (size[1] + top + bottom) + below + GAP
    figure = Figure(figsize=(across, down))
    axes = []
    for place in range(count):
        row, column = divmod(place, columns)
        x = column * (size[0] + left + right) + left
        y = down - GAP - (row + 1) * (size[1] + top) - row * bottom
        axes.append(figure.add_axes((x / across, y / down, size[0] / across, size[1] / down)))
    return figure, axes
