"""Pictures of images with heatmaps and boxes: a run's examples, and what a classifier sees in one image."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from PIL import Image

from wsol.errors import UserError, first_names
from wsol.heatmaps.method import method_cards
from wsol.io import own_folder
from wsol.localization.kernels.pixels import resize
from wsol.metrics.pixels import at_image_size
from wsol.report.charts import method_name, method_names
from wsol.report.figures import FORMATS, figure_style, save_figure, short_text
from wsol.report.gallery import evenly_spaced

if TYPE_CHECKING:
    from wsol.datasets import Dataset, Sample
    from wsol.explanation import Answer, Explanation
    from wsol.heatmaps.store import HeatmapStore
    from wsol.tables import Results

logger = logging.getLogger("wsol")

GROUND_TRUTH, PREDICTED = "#ffffff", "#ff5a36"
COLOR_MAP = "viridis"
PANEL = 2.2  # inches, the geometric mean of a panel's sides
ACROSS = 7  # panels in a row
MOST_ROWS = 4  # of examples that nobody chose
TITLE, HEADER, BAR, LINE = 0.22, 0.32, 0.23, 0.14  # inches
MARGIN, GAP = 0.15, 0.08  # inches
LETTERS = 16  # of a caption, to an inch
DIM = 0.65  # of images below heatmaps
SHOWN = 0.995  # share of a map's values that are not too bright to be told apart, of methods that end at the pixels
LEAST_SIDE = 2.2  # inches, so that there is room for the text
CAPTION: dict[str, Any] = {"fontsize": 7.5, "linespacing": 1.35, "color": "#444444"}
MOST_ASPECT = 5.0  # a panel of an image that is even longer has margins
LONGEST_SIDE = 512  # pixels of an image that is drawn


class Panel(NamedTuple):
    """An image, and what is drawn over all of it: a heatmap (h, w) in [0, 1] and a box (4,), inclusive."""

    title: str
    heatmap: np.ndarray | None = None
    box: np.ndarray | None = None


def draw_examples(
    results: Results, dataset: Dataset, store: HeatmapStore | None, count: int, folder: Path,
    chosen: str | Sequence[object] = (),
) -> list[Path]:  # fmt: skip
    """Draw evenly spaced samples as `example_00.png` and so on; those of the chosen ids, or some, in one `examples`."""
    own_folder(folder)
    ids = list(results.samples["sample_id"])
    pictures = {f"example_{number:02d}": [one] for number, one in enumerate(evenly_spaced(ids, count))}
    names = [chosen] if isinstance(chosen, str) else list(map(str, chosen))
    pictures["examples"] = names or evenly_spaced(ids, min(count, MOST_ROWS))
    paths: list[Path] = []
    for name, names in pictures.items():
        try:
            axes = plot_examples(results, dataset, store, names) if names else None
        except Exception as error:  # of somebody's own dataset whatever may be
            logger.warning("no example picture of %s: %s", first_names(names, 3), error)
            continue
        if axes is not None:
            kinds = FORMATS if name == "examples" else ("png",)
            paths += save_figure(axes[0, 0].figure, folder / name, kinds, dpi=110, bbox_inches="tight", pad_inches=0.05)
    return paths


def plot_examples(
    results: Results, dataset: Dataset, store: HeatmapStore | None, sample_ids: Sequence[str] | None = None,
    methods: Sequence[str] | None = None, protocol: str | None = None, axes: Any = None,
    new_figure: Callable[..., Figure] = Figure,
) -> np.ndarray:  # fmt: skip
    """Draw what `Results.plot_examples` says."""
    every_id, summary = list(results.samples["sample_id"]), results.summary
    ids, methods = sample_ids or evenly_spaced(every_id, MOST_ROWS), methods or list(dict.fromkeys(summary["method"]))
    protocol = protocol or str(summary["protocol"].iloc[0])
    for names, there in ((ids, every_id), (methods, summary["method"]), ([protocol], summary["protocol"])):
        if unknown := sorted(set(names) - set(there)):
            raise UserError(f"the run has no {first_names(unknown)}; it has {first_names(dict.fromkeys(there))}")
    pictures, failures = list[tuple["Sample", np.ndarray]](), dict[str, Exception]()
    for name in ids:
        try:
            sample = dataset[every_id.index(name)]
            image = sample.read_image()
        except Exception as error:  # of somebody's own dataset whatever may be
            failures[name] = error
            continue
        if sample.sample_id != name:
            raise UserError(f"the dataset is not the run's: it has {sample.sample_id} elsewhere")
        pictures.append((sample, image))
    if not pictures:
        raise next(iter(failures.values()))
    for name, reason in failures.items():
        logger.warning("no example picture of %s: %s", name, reason)
    scored = {(row.method, row.sample_id): row for row in results.of_samples(ids, protocol).itertuples()}
    called = method_names(methods)
    with figure_style():
        images, kept = [image for _, image in pictures], [name not in failures for name in ids]
        grid = _grid(images, kept, 1 + len(methods), axes, new_figure)
        for number, ((sample, image), row) in enumerate(zip(pictures, grid, strict=True)):
            _draw_panel(row[0], image, sample.boxes, Panel(dataset.classes[sample.label].split(",")[0]))
            for axis, method in zip(row[1:], methods, strict=True):
                heatmap = _stored(store, method, sample.sample_id)
                name = called[method] if number == 0 else ""
                panel = _example(name, scored.get((method, sample.sample_id)), heatmap)
                _draw_panel(axis, image, sample.boxes, panel)
    return grid


def _grid(
    images: Sequence[np.ndarray], kept: Sequence[bool], columns: int, axes: Any, new_figure: Callable[..., Figure]
) -> np.ndarray:
    """Axes (R, C): a row for each image, as high as it is, of a new figure; or the kept rows of those passed in."""
    if axes is not None and np.size(axes) != len(kept) * columns:
        raise UserError(f"axes: {np.size(axes)} of them; wanted {len(kept)} rows of {columns}")
    if axes is not None:
        return np.reshape(axes, (len(kept), columns))[list(kept)]
    sizes = np.array([_panel_size(image) for image in images])
    width = float(np.median(sizes[:, 0]))
    heights = width * sizes[:, 1] / sizes[:, 0]
    figure = new_figure(figsize=(columns * width, heights.sum() + TITLE * (len(images) + 1)), layout="compressed")
    return figure.subplots(len(images), columns, squeeze=False, height_ratios=heights)


def _example(name: str, row: Any, heatmap: np.ndarray | None) -> Panel:
    """A method's panel of a sample: its row of `per_image`, None where there are no boxes."""
    if row is None:
        return Panel(name, heatmap)
    return Panel(f"{name}\nIoU {row.iou:.2f}".strip(), heatmap, np.array([row.x0, row.y0, row.x1, row.y1]))


def _stored(store: HeatmapStore | None, method: str, sample_id: str) -> np.ndarray | None:
    """A heatmap at its image's size, brought to [0, 1]; None of boxes that were given."""
    if store is None or method not in store.methods:
        return None
    heatmap = store.heatmap(method, int(store.positions([sample_id])[0]))
    values = at_image_size(heatmap, 0.0 if heatmap.values is None else float(heatmap.values.min()))
    low, high = float(values.min()), float(values.max())
    return (values - low) / ((high - low) or 1.0)


def draw_explanation(
    explanation: Explanation, remarks: str = "", gt_boxes: np.ndarray | None = None, color_map: str = COLOR_MAP
) -> Figure:
    """Draw an image once, and beside it a row of heatmaps and boxes for each of its classes.

    `remarks` are said in the caption, behind how the boxes were made; `gt_boxes` (G, 4) are inclusive, in pixels of the
    image; `color_map` is one of matplotlib's.
    """
    check_color_map(color_map)
    image, answers, methods = explanation.image, explanation.answers, list(explanation.layers)
    panel_width, panel_height = _panel_size(image)
    columns = min(len(methods), ACROSS - 1)
    side, across = max(panel_width, LEAST_SIDE), max(columns * (panel_width + GAP) - GAP, LEAST_SIDE)
    lines = textwrap.wrap(short_text(_caption(explanation, remarks, gt_boxes), 9999), int(side * LETTERS))
    # All in inches from the top left corner. Methods' names stand once, unless a class has several rows.
    lower = -(-len(methods) // columns) > 1
    starts, y = [], MARGIN
    for number in range(len(answers)):
        starts.append(y)
        y += GAP + HEADER + sum((TITLE if lower or number == 0 else 0) + panel_height + GAP for _ in methods[::columns])
    width = MARGIN + side + 3 * GAP + across + MARGIN
    height = max(y, MARGIN + HEADER + TITLE + panel_height + LINE * (len(lines) + 2)) + MARGIN / 2
    with figure_style():
        figure = Figure(figsize=(width, height))
        page = _Page(figure, image, gt_boxes, color_map)
        page.panel(MARGIN, MARGIN + HEADER + TITLE, Panel("image"))
        page.text(MARGIN, MARGIN + HEADER + TITLE + panel_height + LINE, "\n".join(lines), **CAPTION)
        left = MARGIN + side + 3 * GAP
        for number, (answer, top) in enumerate(zip(answers, starts, strict=True)):
            page.header(left, top, across, answer)
            top += HEADER
            for place, method in enumerate(methods):
                if place % columns == 0:
                    top += (TITLE if lower or number == 0 else 0) + (panel_height + GAP if place else 0)
                region = answer.regions[method]
                title = f"{method_name(method)}{' (empty)' if region.box is None else ''}"
                title = short_text(title, int(panel_width * 13)) if lower or number == 0 else ""
                at = left + place % columns * (panel_width + GAP)
                page.panel(at, top, Panel(title, _visible(method, region.heat), region.box))
    return figure


def _caption(explanation: Explanation, remarks: str, gt_boxes: np.ndarray | None) -> str:
    protocol = explanation.protocol
    sign = "at least" if protocol.pixel_comparison == ">=" else "above"
    return (
        f"Orange: the box around the largest region {sign} τ = {protocol.threshold:g} of the map's maximum, "
        f"by the rules of {protocol.name}.{'' if gt_boxes is None else ' White: the ground truth.'} {remarks}"
    )


def _visible(method: str, heat: np.ndarray) -> np.ndarray:
    """A heatmap as it is shown: of the methods that end at the pixels few stick out, and hide all others."""
    card = method_cards().get(method.partition("@")[0])
    if card is None or card.family != "pixel":
        return heat
    return heat.clip(max=np.quantile(heat, SHOWN) or 1.0)


class _Page:
    """A figure on which panels and words are placed in inches, from its top left corner."""

    def __init__(self, figure: Figure, image: np.ndarray, gt_boxes: np.ndarray | None, color_map: str) -> None:
        self.figure, self.image, self.gt_boxes, self.color_map = figure, image, gt_boxes, color_map
        self.panel_size, (self.width, self.height) = _panel_size(image), figure.get_size_inches()

    def text(self, x: float, y: float, words: str, **options: Any) -> None:
        """Words whose upper left corner lies here."""
        self.figure.text(x / self.width, 1 - y / self.height, words, **{"va": "top"} | options)

    def panel(self, x: float, y: float, panel: Panel) -> None:
        """A picture whose upper left corner lies here, its title above it."""
        width, height = self.panel_size
        place = x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height
        _draw_panel(self.figure.add_axes(place), self.image, self.gt_boxes, panel, self.color_map)

    def header(self, x: float, y: float, width: float, answer: Answer) -> None:
        """A class's name, and how likely it is as words and as a bar."""
        share = answer.probability
        words = f"{answer.value:.3g}" if share is None else "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
        name = short_text(answer.name, int(width * 10) - len(words) - 6)
        self.text(x, y, f"{answer.rank}.  {name}", fontsize=10, fontweight="bold")
        self.text(x + width, y, words, ha="right", fontsize=10, color="#444444")
        for length, color in ((1.0, "#e4e4e4"), (share or 0.0, PREDICTED)):
            sides = (x / self.width, 1 - (y + BAR) / self.height), length * width / self.width, 0.025 / self.height
            self.figure.add_artist(Rectangle(*sides, color=color, linewidth=0, transform=self.figure.transFigure))


def overlay(
    image: np.ndarray, heatmap: ArrayLike, *, color_map: str = COLOR_MAP, alpha: float = 0.55, dim: float = 0.0
) -> np.ndarray:
    """Lay a heatmap over its image: the picture that people know.

    Parameters
    ----------
    image : uint8 array (H, W, 3)
    heatmap : array or tensor (h, w)
        Of the whole image, of any size: brought to [0, 1] by its minimum and maximum, and enlarged (bilinear).
    color_map : str
        One of matplotlib's.
    alpha : float in [0, 1]
        How much of the color is seen; the rest is the image.
    dim : float in [0, 1]
        How much darker the image, and fainter the color, is where the heatmap is 0.

    Returns
    -------
    uint8 array (H, W, 3)

    Raises
    ------
    UserError
        If one of them is of another shape or kind, or the heatmap's values are not finite.

    Examples
    --------
    >>> overlay(np.zeros((20, 30, 3), np.uint8), np.eye(2)).shape
    (20, 30, 3)
    """
    check_color_map(color_map)
    values = np.asarray(heatmap.detach().cpu() if hasattr(heatmap, "detach") else heatmap, np.float64)
    if getattr(image, "dtype", None) != np.uint8 or image.shape[2:] != (3,) or values.ndim != 2 or not values.size:
        shapes = f"{getattr(image, 'dtype', type(image))} {np.shape(image)} and {values.shape}"
        raise UserError(f"overlay: image and heatmap are {shapes}: pass uint8 (H, W, 3) and (h, w)")
    if not np.isfinite(values).all() or not (0 <= alpha <= 1 and 0 <= dim <= 1):
        raise UserError(f"overlay: the heatmap must be finite, and alpha={alpha} and dim={dim} lie in [0, 1]")
    values = resize(values[None], (image.shape[1], image.shape[0]), "bilinear")[0]
    low, high = values.min(), values.max()
    heat = (values - low) / ((high - low) or 1.0)
    colors = 255 * matplotlib.colormaps[color_map](heat)[..., :3]
    light = (1 - dim * (1 - heat))[..., None]
    return np.rint((1 - alpha * light) * light * image + alpha * light * colors).astype(np.uint8)


def check_color_map(name: str) -> None:
    """Refuse what is no color map of matplotlib, and say which there are."""
    if name not in matplotlib.colormaps:
        raise UserError(f"color_map={name!r}: no color map of matplotlib; try viridis, magma, cividis, turbo or jet")


def _draw_panel(
    axis: Axes, image: np.ndarray, gt_boxes: np.ndarray | None, panel: Panel, color_map: str = COLOR_MAP
) -> None:
    """Draw an image (H, W, 3) with a heatmap, ground-truth boxes (G, 4) and a box."""
    height, width = image.shape[:2]
    small = Image.fromarray(image)
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    pixels = np.asarray(small)
    if panel.heatmap is not None:
        pixels = overlay(pixels, panel.heatmap, color_map=color_map, dim=DIM)
    # Boxes count pixels of the image, however small it is drawn.
    axis.imshow(pixels, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="bilinear")
    for corners in () if gt_boxes is None else gt_boxes:
        _draw_box(axis, corners, GROUND_TRUTH)
    if panel.box is not None and np.isfinite(panel.box).all():
        _draw_box(axis, panel.box, PREDICTED)
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axis.set_title("\n".join(short_text(line, 40) for line in panel.title.splitlines()), fontsize=8.5, pad=3)
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
