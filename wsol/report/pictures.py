"""Pictures of images with heatmaps and boxes: a run's examples, and what a classifier sees in one image."""

from __future__ import annotations

import logging
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from wsol.errors import UserError
from wsol.metrics.pixels import at_image_size
from wsol.report.figures import figure_style, save_figure, short_text
from wsol.report.style import method_name

if TYPE_CHECKING:
    from wsol.datasets import Dataset
    from wsol.explain import Answer, Explanation
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


def draw_examples(results: Results, dataset: Dataset, store: HeatmapStore, count: int, folder: Path) -> list[Path]:
    """Draw evenly spaced samples of a run, with the boxes of its first protocol, as `example_00.png` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    positions = {sample_id: index for index, sample_id in enumerate(store.sample_ids)}
    per_image = results.per_image[results.per_image["protocol"] == results.summary["protocol"].iloc[0]]
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int))
    paths = []
    for number, index in enumerate(chosen):
        sample = dataset[int(index)]
        try:
            image = sample.read_image()
        except UserError as error:
            logger.warning("no example picture: %s", error)
            continue
        rows = per_image[per_image["sample_id"] == sample.sample_id].set_index("method")
        width, height = _panel_size(image)
        with figure_style():
            figure = Figure(figsize=((len(rows) + 1) * width, height + TITLE), layout="compressed")
            axes = figure.subplots(1, len(rows) + 1)
            _draw_panel(axes[0], image, dataset.classes[sample.label].split(",")[0], sample.boxes)
            for axis, (method, row) in zip(axes[1:], rows.iterrows(), strict=True):
                heatmap = _full_size(store.heatmap(str(method), positions[sample.sample_id]))
                box = row[["x0", "y0", "x1", "y1"]].to_numpy(np.float64)
                _draw_panel(axis, image, f"{method}: IoU {row['iou']:.2f}", sample.boxes, heatmap, box)
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
    image, answers, count = explanation.image, explanation.answers, 1 + len(explanation.layers)
    panel_width, panel_height = _panel_size(image)
    columns = min(count, ACROSS)
    rows, width = -(-count // columns), max(columns * panel_width, LEAST_WIDTH)
    left, letters = 0.04 / width, int(panel_width * 13)
    caption = textwrap.wrap(short_text(f"{_caption(explanation, gt_boxes)} {remarks}", 9999), int(width * LETTERS))
    height = len(answers) * (HEADER + rows * (panel_height + TITLE)) + LINE * (len(caption) + 1)
    with figure_style():
        figure = Figure(figsize=(width, height), layout="constrained")
        blocks = figure.subfigures(len(answers), 1, squeeze=False)[:, 0]
        for block, answer in zip(blocks, answers, strict=True):
            block.suptitle(_header(answer, int(width * 11)), x=left, ha="left", fontsize=10)
            axes = list(block.subplots(rows, columns, squeeze=False).flat)
            _draw_panel(axes[0], image, "image", gt_boxes)
            for axis, (name, region) in zip(axes[1:count], answer.regions.items(), strict=True):
                title = short_text(method_name(name) + (" (empty)" if region.box is None else ""), letters)
                _draw_panel(axis, image, title, gt_boxes, region.heat, region.box, color_map)
            for axis in axes[count:]:
                axis.remove()
        text = {"fontsize": 7.5, "linespacing": 1.35, "color": "#444444"}
        figure.supxlabel("\n".join(caption), x=left, ha="left", **text)
    return figure


def check_color_map(name: str) -> None:
    """Refuse what is no color map of matplotlib, and say which there are."""
    if name not in matplotlib.colormaps:
        raise UserError(f"color_map={name!r}: no color map of matplotlib; try viridis, magma, cividis, turbo or jet")


def _draw_panel(
    axis: Axes,
    image: np.ndarray,
    title: str,
    gt_boxes: np.ndarray | None,
    heatmap: np.ndarray | None = None,
    box: np.ndarray | None = None,
    color_map: str = COLOR_MAP,
) -> None:
    """Draw an image (H, W, 3), over all of it a heatmap (h, w) in [0, 1], ground-truth boxes and a predicted one."""
    height, width = image.shape[:2]
    small = Image.fromarray(image)
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    # Boxes count pixels of the image, however small it is drawn.
    place: dict[str, Any] = {"extent": (-0.5, width - 0.5, height - 0.5, -0.5), "interpolation": "bilinear"}
    axis.imshow(small, **place)
    if heatmap is not None:
        axis.imshow(matplotlib.colormaps[color_map](heatmap)[..., :3], alpha=0.55, **place)
    for corners in gt_boxes if gt_boxes is not None else ():
        _draw_box(axis, corners, GROUND_TRUTH)
    if box is not None and np.isfinite(box).all():
        _draw_box(axis, box, PREDICTED)
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axis.set_title(short_text(title, 40), fontsize=8.5, pad=3)
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


def _header(answer: Answer, letters: int) -> str:
    percent = 100 * answer.probability
    share = f"  {percent:.1f} %" if percent >= 0.1 else "  < 0.1 %"
    return f"{answer.rank}.  {short_text(answer.name, letters - len(share))}{share}"


def _caption(explanation: Explanation, gt_boxes: np.ndarray | None) -> str:
    protocol = explanation.protocol
    sign = "at least" if protocol.pixel_comparison == ">=" else "above"
    box = (
        f"Orange: the box around the largest region {sign} τ = {protocol.threshold:g} of the map's maximum, "
        f"by the rules of {protocol.name}."
    )
    return box + (" White: the ground truth." if gt_boxes is not None else "")
