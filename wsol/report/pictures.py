"""Pictures of images with heatmaps and boxes: a run's examples, and what a classifier sees in one image."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Rectangle
from PIL import Image

from wsol.errors import UserError
from wsol.io import own_folder
from wsol.metrics.pixels import at_image_size
from wsol.report.charts import method_name
from wsol.report.figures import figure_style, panel_axes, save_figure, short_text
from wsol.report.gallery import evenly_spaced

if TYPE_CHECKING:
    from wsol.datasets import Dataset
    from wsol.explain import Explanation
    from wsol.heatmaps.store import HeatmapStore, StoredHeatmap
    from wsol.tables import Results

logger = logging.getLogger("wsol")

GROUND_TRUTH, PREDICTED = "#ffffff", "#ff5a36"
COLOR_MAP = "viridis"
PANEL = 2.2  # inches, the geometric mean of a panel's sides
ACROSS = 7  # panels in a row
TITLE, HEADER, LINE = 0.22, 0.24, 0.14  # inches
LETTERS = 16  # of a caption, to an inch
LEAST_WIDTH = 3.4  # inches, so that there is room for the text
MOST_ASPECT = 5.0  # a panel of an image that is even longer has margins
LONGEST_SIDE = 512  # pixels of an image that is drawn


class Panel(NamedTuple):
    """An image, and what is drawn over all of it: a heatmap (h, w) in [0, 1] and a box (4,), inclusive."""

    title: str
    heatmap: np.ndarray | None = None
    box: np.ndarray | None = None


def draw_examples(results: Results, dataset: Dataset, store: HeatmapStore, count: int, folder: Path) -> list[Path]:
    """Draw evenly spaced samples of a run, with the boxes of its first protocol, as `example_00.png` and so on."""
    own_folder(folder)
    positions = {sample_id: index for index, sample_id in enumerate(store.sample_ids)}
    per_image = results.per_image[results.per_image["protocol"] == results.summary["protocol"].iloc[0]]
    paths = []
    for number, index in enumerate(evenly_spaced(range(len(dataset)), count)):
        sample = dataset[index]
        try:
            image = sample.read_image()
        except UserError as error:
            logger.warning("no example picture: %s", error)
            continue
        panels = [Panel(dataset.classes[sample.label].split(",")[0])]
        for row in per_image[per_image["sample_id"] == sample.sample_id].itertuples():
            heatmap = _full_size(store.heatmap(row.method, positions[sample.sample_id]))
            panels.append(
                Panel(f"{row.method}: IoU {row.iou:.2f}", heatmap, np.array([row.x0, row.y0, row.x1, row.y1]))
            )
        width, height = _panel_size(image)
        with figure_style():
            figure = Figure(figsize=(len(panels) * width, height + TITLE), layout="compressed")
            _draw_panels(figure, len(panels), image, sample.boxes, panels)
        stem = folder / f"example_{number:02d}"
        paths += save_figure(figure, stem, ["png"], dpi=110, bbox_inches="tight", pad_inches=0.05)
    return paths


def draw_explanation(
    explanation: Explanation, remarks: str = "", gt_boxes: np.ndarray | None = None, color_map: str = COLOR_MAP
) -> Figure:
    """Draw an image, and beside it the heatmaps and boxes of each of its classes, a block for each.

    `remarks` are said in the caption, behind how the boxes were made; `gt_boxes` (G, 4) are inclusive, in pixels of the
    image; `color_map` is one of matplotlib's.
    """
    check_color_map(color_map)
    image, answers, protocol = explanation.image, explanation.answers, explanation.protocol
    panel_width, panel_height = _panel_size(image)
    columns = min(1 + len(explanation.layers), ACROSS)
    rows, width = -(-(1 + len(explanation.layers)) // columns), max(columns * panel_width, LEAST_WIDTH)
    left, sign = 0.04 / width, "at least" if protocol.pixel_comparison == ">=" else "above"
    caption = (
        f"Orange: the box around the largest region {sign} τ = {protocol.threshold:g} of the map's maximum, "
        f"by the rules of {protocol.name}.{'' if gt_boxes is None else ' White: the ground truth.'} {remarks}"
    )
    lines = textwrap.wrap(short_text(caption, 9999), int(width * LETTERS))
    height = len(answers) * (HEADER + rows * (panel_height + TITLE)) + LINE * (len(lines) + 1)
    with figure_style():
        figure = Figure(figsize=(width, height), layout="constrained")
        blocks = figure.subfigures(len(answers), 1, squeeze=False)[:, 0]
        for block, answer in zip(blocks, answers, strict=True):
            share = f"  {100 * answer.probability:.1f} %" if answer.probability >= 0.001 else "  < 0.1 %"
            name = short_text(answer.name, int(width * 11) - len(share))
            block.suptitle(f"{answer.rank}.  {name}{share}", x=left, ha="left", fontsize=10)
            panels = [Panel("image")]
            for method, region in answer.regions.items():
                title = method_name(method) + (" (empty)" if region.box is None else "")
                panels.append(Panel(short_text(title, int(panel_width * 13)), region.heat, region.box))
            _draw_panels(block, columns, image, gt_boxes, panels, color_map)
        text = {"fontsize": 7.5, "linespacing": 1.35, "color": "#444444"}
        figure.supxlabel("\n".join(lines), x=left, ha="left", **text)
    return figure


def check_color_map(name: str) -> None:
    """Refuse what is no color map of matplotlib, and say which there are."""
    if name not in matplotlib.colormaps:
        raise UserError(f"color_map={name!r}: no color map of matplotlib; try viridis, magma, cividis, turbo or jet")


def _draw_panels(
    figure: FigureBase, columns: int, image: np.ndarray, gt_boxes: np.ndarray | None, panels: Sequence[Panel],
    color_map: str = COLOR_MAP,
) -> None:  # fmt: skip
    """Draw an image (H, W, 3) once for each panel, with ground-truth boxes (G, 4), so many side by side."""
    height, width = image.shape[:2]
    small = Image.fromarray(image)
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    # Boxes count pixels of the image, however small it is drawn.
    place: dict[str, Any] = {"extent": (-0.5, width - 0.5, height - 0.5, -0.5), "interpolation": "bilinear"}
    for axis, panel in zip(panel_axes(figure, len(panels), columns), panels, strict=True):
        axis.imshow(small, **place)
        if panel.heatmap is not None:
            axis.imshow(matplotlib.colormaps[color_map](panel.heatmap)[..., :3], alpha=0.55, **place)
        for corners in () if gt_boxes is None else gt_boxes:
            _draw_box(axis, corners, GROUND_TRUTH)
        if panel.box is not None and np.isfinite(panel.box).all():
            _draw_box(axis, panel.box, PREDICTED)
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axis.set_title(short_text(panel.title, 40), fontsize=8.5, pad=3)
        axis.set_axis_off()


def _draw_box(axis: Axes, box: np.ndarray, color: str) -> None:
    """Outline an inclusive box: pixel centers are whole numbers here, so its edges lie half a pixel outside."""
    x0, y0, x1, y1 = box
    for width, line in ((3.0, "black"), (1.6, color)):
        edges = (x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1
        axis.add_patch(Rectangle(*edges, fill=False, edgecolor=line, linewidth=width))


def _panel_size(image: np.ndarray) -> tuple[float, float]:
    """Width and height of a panel in inches."""
    height, width = image.shape[:2]
    aspect = float(np.clip(width / height, 1 / MOST_ASPECT, MOST_ASPECT))
    return PANEL * aspect**0.5, PANEL / aspect**0.5


def _full_size(heatmap: StoredHeatmap) -> np.ndarray:
    """Heatmap at its image's size, brought to [0, 1]."""
    values = at_image_size(heatmap, 0.0 if heatmap.values is None else float(heatmap.values.min()))
    low, high = float(values.min()), float(values.max())
    return (values - low) / ((high - low) or 1.0)
