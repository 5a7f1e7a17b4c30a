"""Example pictures: the image with its true boxes, and each method's heatmap with the box that it gave."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError
from wsol.heatmaps.store import HeatmapStore
from wsol.io import atomic_write
from wsol.metrics.pixels import at_image_size
from wsol.tables import Results

__all__ = ["COLOR_MAP", "FOUND", "TRUTH", "draw_box", "draw_pictures"]

logger = logging.getLogger("wsol")

TRUTH, FOUND = "#ffffff", "#ff5a36"
COLOR_MAP = "viridis"
PANEL_INCHES = 2.2


def draw_pictures(results: Results, dataset: Dataset, store: HeatmapStore, count: int, folder: Path) -> list[Path]:
    """Draw evenly spaced samples of a run as PNG files.

    Parameters
    ----------
    results : Results
    dataset : Dataset
    store : HeatmapStore
        The run's.
    count : int
        How many pictures; fewer where there are fewer samples.
    folder : Path

    Returns
    -------
    list of Path
        `example_00.png` and so on; the boxes are those of the first protocol.
    """
    folder.mkdir(parents=True, exist_ok=True)
    positions = {sample_id: index for index, sample_id in enumerate(store.sample_ids)}
    protocol = results.summary["protocol"].iloc[0]
    rows = results.per_image[results.per_image["protocol"] == protocol]
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int))
    written = []
    for number, index in enumerate(chosen):
        sample = dataset[int(index)]
        position = positions[sample.sample_id]
        try:
            image = sample.read_image()
        except UserError as error:
            logger.warning("no example picture: %s", error)
            continue
        found = rows[rows["sample_id"] == sample.sample_id].set_index("method")
        figure, axes = _panels(image.shape[1] / image.shape[0], len(found) + 1)
        _panel(axes[0], image, None, sample, _short(dataset.classes[sample.label]))
        for axis, (method, row) in zip(axes[1:], found.iterrows(), strict=True):
            heatmap = store.heatmap(str(method), position)
            heat = at_image_size(heatmap, 0.0 if heatmap.values is None else float(heatmap.values.min()))
            _panel(axis, image, heat, sample, f"{method}: IoU {row['iou']:.2f}")
            draw_box(axis, row[["x0", "y0", "x1", "y1"]].to_numpy(np.float64), FOUND)
        path = folder / f"example_{number:02d}.png"
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=110, format="png", metadata={"Software": None})
        written.append(path)
    return written


def _panels(aspect: float, count: int) -> tuple[Figure, list[Axes]]:
    """Make panels side by side, with room for a title above each; a layout engine took 44 % of the drawing."""
    gap, title = 0.05, 0.22
    width, height = PANEL_INCHES * max(aspect, 1) ** 0.5, PANEL_INCHES * max(aspect, 1) ** 0.5 / aspect
    across, down = count * (width + gap) + gap, height + title + gap
    figure = Figure(figsize=(across, down))
    share = width / across, height / down
    return figure, [figure.add_axes(((gap + i * (width + gap)) / across, gap / down, *share)) for i in range(count)]


def _panel(axis: Axes, image: np.ndarray, heat: np.ndarray | None, sample: Sample, title: str) -> None:
    axis.imshow(image)
    if heat is not None:
        axis.imshow(_colored(heat), alpha=0.55)
    for box in sample.boxes if sample.boxes is not None else ():
        draw_box(axis, box, TRUTH)
    axis.set_title(title, fontsize=8, parse_math=False)
    axis.set_axis_off()


def draw_box(axis: Axes, box: np.ndarray, color: str) -> None:
    """Outline an inclusive box: pixel centers are whole numbers here, so its edges lie half a pixel outside."""
    if not np.isfinite(box).all():
        return
    x0, y0, x1, y1 = box
    for width, line in ((3.0, "black"), (1.6, color)):
        axis.add_patch(
            Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1, fill=False, edgecolor=line, linewidth=width)
        )


def _colored(heat: np.ndarray) -> np.ndarray:
    low, high = float(heat.min()), float(heat.max())
    scaled = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
    return matplotlib.colormaps[COLOR_MAP](scaled)[..., :3]


def _short(name: str) -> str:
    """Return the first of a class's names, on one line."""
    return re.sub(r"\s+", " ", name.split(",")[0])[:40]
