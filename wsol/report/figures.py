"""Figures for a paper, as PDF, SVG and PNG: charts of a run and of a sweep; the same figure gives the same bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.lines import Line2D
from rich.cells import cell_len
from rich.text import Text

from wsol.errors import UserError
from wsol.io import atomic_write, own_folder
from wsol.report.charts import IOU_STEPS, KINDS, Style, method_names, series_styles
from wsol.report.summary import MEASURES, judged_parts

if TYPE_CHECKING:
    from wsol.tables import Results

STYLE_SHEET = Path(__file__).parent / "templates" / "figures.mplstyle"
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None}, "svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None},
}  # fmt: skip
FORMATS = ("svg", "png", "pdf")
PANEL = (2.9, 2.4)  # inches
LEGEND_ROW, LEGEND_LINE, LEGEND_LETTER = 0.17, 0.5, 0.062  # inches
LIMITS: dict[str, Any] = {"xlim": (0, 1), "ylim": (0, 100)}
DOTS: dict[str, Any] = {"marker": "o", "markersize": 3}
MARKERS = "os^DvP*Xp<>h"
OPEN: dict[str, Any] = {"linestyle": "none", "markersize": 5, "mfc": "none", "mew": 1.2, "clip_on": False}
CHOSEN: dict[str, Any] = DOTS | {"markersize": 4, "mec": "white", "mew": 0.6, "zorder": 3, "clip_on": False}
LOCATED = "GT-known localization (%)"
ACROSS = 3  # panels in a row
NUMBERED = 6  # percent from which on there is room for a number in a bar
MOST_BARS = 40
WIDE_RANGE = 50  # largest over smallest number from which on an axis is logarithmic
Panel = tuple[str, str, Mapping[str, Any]]  # title, what is along y, and (x, y) by name
Against = tuple[str, Mapping[str, Any], bool]  # title, a point (x, y) by name, and whether low is good


def draw_figures(charts: Mapping[str, Any], styles: Mapping[str, Style], folder: Path) -> list[Path]:
    """Draw the charts of a run's page, by protocol, as far as there is data, such as `accuracy_<protocol>.svg`."""
    own_folder(folder)
    paths: list[Path] = []
    for protocol, chart in charts.items():
        if not chart["curves"]:
            continue
        part = re.sub(r"[^\w.@+-]+", "_", protocol)[:80]  # what every file system takes
        with figure_style():
            figures = {
                "accuracy": _accuracy(chart, styles),
                "errors": _errors(chart["errors"]),
                "size": _sizes(chart, styles),
            }
            shares = {name: (IOU_STEPS, values) for name, values in chart["shares"].items()}
            figures["iou"] = _curves([("", "samples (%)", shares)], styles, "IoU of at least", LIMITS)
            for name, figure in figures.items():
                paths += save_figure(figure, folder / f"{name}_{part}")
    return paths


def plot_curves(results: Results, protocol: str | None, axes: Axes | None, iou: float) -> Axes:
    """Draw what `Results.plot` says."""
    from matplotlib import pyplot  # with it a notebook shows the figure

    curves, name = results.curves, protocol or str(results.summary["protocol"].iloc[0])
    there = curves[["protocol", "iou_threshold"]].drop_duplicates() if len(curves) else pd.DataFrame()
    curves = curves.query("protocol == @name and iou_threshold == @iou") if len(curves) else curves
    if curves.empty:
        raise UserError(f"no curve of protocol {name} at IoU {iou:g}; there are {there.values.tolist()}")
    groups = curves.set_index("method")[["threshold", "gt_known_loc"]].groupby("method", sort=False)
    lines = {str(method): curve.to_numpy().T for method, curve in groups}
    taus: Any = results.summary[results.summary["protocol"] == name].set_index("method")["threshold"].to_dict()
    with figure_style():
        axes = pyplot.figure(figsize=(3.6, 2.8), layout="constrained").subplots() if axes is None else axes
        _draw_lines(axes, lines, series_styles(list(lines)), taus)
        axes.set(xlabel="threshold τ", ylabel=LOCATED, title=f"{name}, IoU {100 * iou:.0f}", **LIMITS)
        axes.legend()
    return axes


def draw_faithfulness(
    curves: Mapping[str, Mapping[str, Any]], against: Sequence[Against], styles: Mapping[str, Style], folder: Path
) -> list[Path]:
    """Draw (x, y) by method: scores while pixels are hidden, by title; metrics against localization, up is better."""
    own_folder(folder)
    paths: list[Path] = []
    with figure_style():
        if curves:
            panels: list[Panel] = [
                (title, "" if number else "score", of) for number, (title, of) in enumerate(curves.items())
            ]
            figure = _curves(panels, styles, "share of pixels hidden or shown", {"xlim": (0, 1)})
            paths += save_figure(figure, folder / "faithfulness_curves")
        if against:
            figure, axes = _figure(len(against))
            looks = {name: {"color": style.color, "marker": MARKERS[at % len(MARKERS)]} | OPEN
                     for at, (name, style) in enumerate(styles.items())}  # fmt: skip
            for axis, (title, points, low_is_good) in zip(axes, against, strict=True):
                for name, point in points.items():
                    axis.plot(*point, **looks[name])
                axis.set(title=title, xlabel=LOCATED)
                axis.yaxis.set_inverted(low_is_good)
            _legend(figure, [Line2D([], [], **look) for look in looks.values()], list(looks), handlelength=1.0)
            paths += save_figure(figure, folder / "faithfulness_localization")
    return paths


def draw_sweep(frame: pd.DataFrame, overrides: Sequence[str], stem: Path) -> list[Path]:
    """Draw a sweep over one number as lines, over two numbers or names as heat maps, over else as bars.

    `frame` is a sweep's table as `sweep.csv` has it, `overrides` those of its columns that say what a job was asked
    for. What differs and is no number makes series, as methods do.
    """
    frame = frame[frame["error"] == ""]
    differ = [name for name in overrides if frame[name].nunique() > 1]
    numbers = [name for name in differ if pd.to_numeric(frame[name], errors="coerce").notna().all()]
    names = [name for name in differ if name not in numbers]
    if len(numbers) not in (1, 2):
        numbers, names = (names, []) if len(differ) == len(names) == 2 else ([], differ)
    panels = _sweep_panels(frame, numbers, names)
    if not panels:
        return []
    draw: dict[int, Any] = {
        0: _bars,
        1: partial(_lines, number=numbers[0] if numbers else ""),
        2: partial(_heat_maps, numbers=numbers),
    }
    with figure_style():
        return save_figure(draw[len(numbers)](panels), stem)


def save_figure(figure: Figure, stem: Path, kinds: Sequence[str] = FORMATS, **options: Any) -> list[Path]:
    """Write a figure as "png", "svg" or "pdf", each file whole or not at all; `stem` has no ending."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in kinds]
    for kind, path in zip(kinds, paths, strict=True):
        with figure_style(), atomic_write(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=METADATA[kind], **({"dpi": 200} | options))
    return paths


@contextmanager
def figure_style() -> Iterator[None]:
    """Context in which figures are made and saved."""
    installed = {font.name for font in fontManager.ttflist}
    with matplotlib.rc_context(fname=STYLE_SHEET):
        matplotlib.rcParams["font.family"] = [name for name in matplotlib.rcParams["font.family"] if name in installed]
        yield


def short_text(text: object, width: int = 24) -> str:
    """Bring a text to one line of so many letters; those that no font has are shown as code points."""
    line = "".join(letter for letter in " ".join(str(text).split()) if letter.isprintable())
    printable = _letters()
    shortened = Text("".join(letter if ord(letter) in printable else f"U+{ord(letter):04X}" for letter in line))
    shortened.truncate(width, overflow="ellipsis")
    return shortened.plain


@lru_cache(maxsize=1)
def _letters() -> set[int]:
    """Code points that some font has."""
    with figure_style():
        fonts = [get_font(findfont(FontProperties(family=[name]))) for name in matplotlib.rcParams["font.family"]]
    return {code for font in fonts for code in font.get_charmap()}


def _figure(count: int, panel: tuple[float, float] = PANEL, columns: int = ACROSS) -> tuple[Figure, list[Axes]]:
    columns = min(count, columns)
    size = columns * panel[0], -(-count // columns) * panel[1]
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(-(-count // columns), columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def _legend(figure: Figure, handles: Sequence[Any], names: Sequence[str], ncols: int = 0, **options: Any) -> None:
    """Put a legend below the panels, in as many columns as there is room for, and make the figure higher by it."""
    width = figure.get_figwidth()
    labels = [short_text(name, int((width - LEGEND_LINE) / LEGEND_LETTER)) for name in method_names(names).values()]
    ncols = ncols or min(len(labels), int(width / (LEGEND_LINE + LEGEND_LETTER * max(map(cell_len, labels)))))
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * -(-len(labels) // ncols))
    # A leading underscore would hide a name.
    labels = [f"\u200b{label}" if label.startswith("_") else label for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=ncols, **({"handlelength": 2.6} | options))


def _line(style: Style, **options: Any) -> dict[str, Any]:
    dashes = [float(length) / matplotlib.rcParams["lines.linewidth"] for length in style.dash.split()]
    return {"color": style.color, "linestyle": (0, dashes) if dashes else "-", "clip_on": False, **options}


def _draw_lines(
    axis: Axes, curves: Mapping[str, Any], styles: Mapping[str, Style], taus: Mapping[str, float], **options: Any
) -> None:
    """Draw (x, y) by name, and above all lines a dot at each one's τ, where it has one."""
    called = method_names(curves)
    for name, (x, y) in curves.items():
        axis.plot(x, y, label=called[name], **_line(styles[name], **options))
        if name in taus:
            at = int(np.abs(x - taus[name]).argmin())
            axis.plot(x[at], y[at], color=styles[name].color, **CHOSEN)


def _curves(
    panels: Sequence[Panel], styles: Mapping[str, Style], xlabel: str, limits: Mapping[str, Any],
    size: tuple[float, float] = PANEL, taus: Mapping[str, float] | None = None, **options: Any,
) -> Figure:  # fmt: skip
    figure, axes = _figure(len(panels), size)
    for axis, (title, ylabel, curves) in zip(axes, panels, strict=True):
        _draw_lines(axis, curves, styles, taus or {}, **options)
        axis.set(title=title, xlabel=short_text(xlabel, 44), ylabel=ylabel, **limits)
    if all(styles):
        _legend(figure, [Line2D([], [], **_line(style, **options)) for style in styles.values()], list(styles))
    return figure


def _accuracy(chart: Mapping[str, Any], styles: Mapping[str, Style]) -> Figure:
    panels: list[Panel] = []
    for delta, curves in chart["curves"].items():
        percent = {name: (chart["grid"], 100 * right / chart["count"]) for name, right in curves.items()}
        panels.append((f"IoU {100 * float(delta):.0f}", "" if panels else LOCATED, percent))
    return _curves(panels, styles, "threshold τ", LIMITS, taus=chart["thresholds"])


def _sizes(chart: Mapping[str, Any], styles: Mapping[str, Style]) -> Figure:
    names = [name.removesuffix(" %") for name in chart["sizes"]["bins"]]
    curves = {name: (range(len(names)), values) for name, values in chart["sizes"]["values"].items()}
    limits = LIMITS | {"xlim": (-0.3, len(names) - 0.7), "xticks": range(len(names)), "xticklabels": names}
    return _curves([("", LOCATED, curves)], styles, "object's share of the image (%)", limits, **DOTS)


def _errors(errors: Mapping[str, Sequence[float]]) -> Figure:
    figure, (axis,) = _figure(1, panel=(4.8, 0.24 * len(errors) + 0.6))
    starts = np.zeros(len(errors))
    for kind, values in zip(KINDS, np.array(list(errors.values())).T, strict=True):
        bars = axis.barh(range(len(errors)), values, left=starts, height=0.75, color=kind.color)
        words = [f"{value:.1f}" if value >= NUMBERED else "" for value in values]
        axis.bar_label(bars, words, label_type="center", fontsize=6, color=kind.ink)
        starts = starts + values
    axis.set_yticks(range(len(errors)), [short_text(name) for name in method_names(errors).values()])
    axis.invert_yaxis()
    axis.set(xlim=(0, 100), xlabel="samples (%)")
    axis.tick_params(axis="y", length=0)
    compact = {"handlelength": 0.9, "columnspacing": 0.9, "handletextpad": 0.4, "fontsize": 6.5}
    _legend(figure, axis.containers, [kind.label for kind in KINDS], ncols=len(KINDS), **compact)
    return figure


def _sweep_panels(frame: pd.DataFrame, numbers: Sequence[str], names: Sequence[str]) -> list[pd.DataFrame]:
    """Parts drawn by themselves: numbers, `percent`, `low`, `high`, `series`, `method`; `title`, `measure`, `spread`.

    A series is called by the last part of what was set, where no other ends alike: the value must be seen.
    """
    panels, ends_of = [], [name.rpartition(".")[2] for name in names]
    short = {name: end if ends_of.count(end) == 1 else name for name, end in zip(names, ends_of, strict=True)}
    for measure, part in judged_parts(frame):
        first, method = part.iloc[0], part.get("method", pd.Series("", part.index))
        where = f"{first['dataset']} ({first['split']})" if {"dataset", "split"} <= set(part) else ""
        heading = short_text(", ".join(filter(None, (where, first.get("protocol", "")))), 44)
        series = [method.map(method_names(frame["method"]))] if "method" in part else []
        series += [f"{short[name]}=" + part[name] for name in names]
        are = {name: pd.to_numeric(part[name], errors="coerce") for name in numbers}
        rows = pd.DataFrame(
            {name: part[name] if column.isna().any() else column for name, column in are.items()}, part.index
        )
        rows = rows.assign(percent=part["percent"], method=method)
        label, factor = MEASURES[measure]
        spread = factor * pd.to_numeric(part.get(f"{measure}_std", pd.Series(np.nan, part.index)))
        rows["low"], rows["high"], beside = rows["percent"] - spread, rows["percent"] + spread, " ± std over seeds"
        if f"{measure}_low" in part:  # no seeds: over images
            ends = (factor * pd.to_numeric(part[f"{measure}_{end}"]) for end in ("low", "high"))
            (rows["low"], rows["high"]), beside = ends, ", 95 % intervals"
        rows["series"] = [", ".join(row) for row in zip(*series, strict=True)] if series else ""
        beside = beside if rows["low"].notna().any() else ""
        panels.append(rows.assign(title=heading, measure=f"{label} (%)", spread=beside))
    return panels


def _lines(panels: Sequence[pd.DataFrame], number: str) -> Figure:
    rows, curves = pd.concat(panels), list[Panel]()
    methods = dict(zip(rows["series"], rows["method"], strict=True))
    for panel in panels:
        means = {name: part.groupby(number)["percent"].mean() for name, part in panel.groupby("series", sort=False)}
        lines = {str(name): (line.index, line) for name, line in means.items()}
        curves.append((panel["title"].iloc[0], (panel["measure"] + panel["spread"]).iloc[0], lines))
    styles = series_styles(list(methods), methods)
    figure = _curves(curves, styles, number, {}, size=(3.6, 2.6), **DOTS)
    for axis, panel in zip(figure.axes, panels, strict=True):
        for name, part in panel[panel["low"].notna()].groupby("series", sort=False):
            ends = part.groupby(number)[["low", "high"]].mean()
            axis.fill_between(ends.index, ends["low"], ends["high"], color=styles[str(name)].color, alpha=0.1, lw=0)
        if panel[number].min() > 0 and panel[number].max() / panel[number].min() >= WIDE_RANGE:
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter("{x:g}")
        else:
            axis.locator_params(axis="x", nbins=6)
        axis.grid(axis="y", color="#e3e5e8", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure


def _bars(panels: Sequence[pd.DataFrame]) -> Figure:
    """The best at the top, at most so many."""
    panels = [panel.nlargest(MOST_BARS, "percent") for panel in panels]
    figure, axes = _figure(len(panels), (4.8, 0.24 * max(map(len, panels)) + 0.8), columns=2)
    methods = dict.fromkeys(str(name) for panel in panels for name in panel["method"])
    styles = series_styles(list(methods))
    for axis, panel in zip(axes, panels, strict=True):
        colors = [styles[str(name)].color for name in panel["method"]]
        ends = (panel["percent"] - panel["low"]).clip(lower=0), (panel["high"] - panel["percent"]).clip(lower=0)
        axis.barh(range(len(panel)), panel["percent"], height=0.75, color=colors, xerr=ends, ecolor="black")
        axis.set_yticks(range(len(panel)), [short_text(name, 36) for name in panel["series"]])
        axis.invert_yaxis()
        axis.set(title=panel["title"].iloc[0], xlabel=(panel["measure"] + panel["spread"]).iloc[0])
        axis.tick_params(axis="y", length=0)
    return figure


def _heat_maps(panels: Sequence[pd.DataFrame], numbers: Sequence[str]) -> Figure:
    values = pd.concat(panels)
    across, down = sorted(numbers, key=lambda name: -values[name].nunique())
    maps = [
        (panel, str(series), group.pivot_table("percent", down, across))
        for panel in panels
        for series, group in panel.groupby("series", sort=False)
    ]
    most_rows, most_columns = (max(table.shape[axis] for *_, table in maps) for axis in (0, 1))
    size = max(0.44 * most_columns, 1.6) + 1.5, max(0.27 * most_rows, 1.0) + 0.9
    figure, axes = _figure(len(maps), size, columns=min(ACROSS, max(1, int(12 // size[0]))))
    letters = int(size[0] * 14)
    for axis, (panel, series, table) in zip(axes, maps, strict=True):
        low, high = panel["percent"].min(), panel["percent"].max()
        image = axis.imshow(table, cmap="viridis", aspect="auto", vmin=low, vmax=high)
        _write_cells(axis, table, bright_from=low + 0.68 * (high - low))
        about = panel.iloc[0]
        axis.set_title("\n".join(short_text(line, letters) for line in (about["title"], series) if line))
        axis.set(xlabel=short_text(across, letters), ylabel=short_text(down, int(size[1] * 14)))
        bar = figure.colorbar(image, ax=axis, fraction=0.06, pad=0.02)
        bar.set_label(about["measure"], fontsize=7)
        bar.ax.tick_params(labelsize=7)
        bar.outline.set_visible(False)
    return figure


def _write_cells(axis: Axes, table: pd.DataFrame, bright_from: float) -> None:
    """Write the numbers into a heat map's cells, the best in bold."""
    values = table.to_numpy()
    low, high = np.nanmin(values), np.nanmax(values)
    for row, column in np.argwhere(np.isfinite(values)):
        value = values[row, column]
        color, weight = "black" if value > bright_from else "white", "bold" if value == high > low else "normal"
        axis.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color=color, weight=weight)
    for ticks, values_of in ((axis.set_xticks, table.columns), (axis.set_yticks, table.index)):
        ticks(range(len(values_of)), [short_text(v, 16) if isinstance(v, str) else f"{v:g}" for v in values_of])
    axis.tick_params(length=0, labelsize=7)
    axis.spines[:].set_visible(False)
