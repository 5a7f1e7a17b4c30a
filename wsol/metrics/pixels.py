"""Pixel metrics: PxAP and peak mask IoU from exact histograms, the pointing game, the energy in the box."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from wsol.errors import UserError
from wsol.heatmaps.store import StoredHeatmap, center, full, profiles
from wsol.jit import jit
from wsol.localization import Protocol
from wsol.localization.kernels.pixels import Taps, interpolation_weights, resize

TOLERANCE = 15.0  # pixels by which a peak may miss a box in the pointing game


class PxAP:
    """Pixel average precision, the area under precision over recall of all pixels of a dataset; and peak mask IoU.

    `Σ_l precision(τ_l) (recall(τ_l) - recall(τ_l-1))` of the pixels above τ, which falls from bin to bin, pooled over
    images (Choe et al., CVPR 2020). Pixels are counted per bin and class, so that parts of a dataset add up exactly.

    >>> metric = PxAP(0.5)
    >>> metric.update(*pixel_histograms(np.array([[0.9, 0.1]]), np.array([[True, False]]), None, metric.edges))
    >>> metric.compute()["pxap"]
    1.0
    """

    def __init__(self, bin_width: float = 0.001, num_classes: int = 1) -> None:
        self.edges = np.append(np.arange(0, 1, bin_width), [1.0, 2.0, 3.0])
        self.counts = np.zeros((2, num_classes, len(self.edges) - 1), np.int64)  # of the object, of the background

    def update(self, of_object: np.ndarray, of_background: np.ndarray, label: int = 0) -> None:
        """Add the pixels per bin of one score map of a class, as `pixel_histograms` counts them with these edges."""
        self.counts[:, label] += of_object, of_background

    @property
    def empty(self) -> bool:
        """Whether no pixel of an object was counted here yet."""
        return not self.counts[0].any()

    def compute(self) -> dict[str, Any]:
        """Return fractions, NaN without a pixel of an object: a dict of str to float or, of classes, array (C,).

        `pxap`; `peak_mask_iou`, the highest IoU of mask and thresholded map over the bins' edges, pixels pooled, and
        `peak_threshold`, its smallest τ; `class_pxap` and `class_peak_mask_iou`.
        """
        counts = np.concatenate([self.counts.sum(1, keepdims=True), self.counts], axis=1)  # all together come first
        precision = average_precision(*counts)  # (1 + C,)
        hits, alarms = counts[:, :, ::-1].cumsum(-1)[:, :, ::-1].astype(np.float64)  # pixels above each edge
        with np.errstate(invalid="ignore"):
            iou = hits / (hits[:, :1] + alarms)
        peak = np.where(np.isnan(precision), np.nan, iou.max(axis=-1))
        overall = {"pxap": float(precision[0]), "peak_mask_iou": float(peak[0])}
        overall["peak_threshold"] = np.nan if self.empty else float(self.edges[iou[0].argmax()])
        return overall | {"class_pxap": precision[1:], "class_peak_mask_iou": peak[1:]}


def average_precision(of_object: np.ndarray, of_background: np.ndarray) -> np.ndarray:
    """Average precision (…) from pixels per bin (…, bins), the darkest first; NaN without a pixel of an object."""
    # Pixels above each edge, from the brightest bin down.
    hits = of_object[..., ::-1].cumsum(-1).astype(np.float64)
    above = hits + of_background[..., ::-1].cumsum(-1)
    every = hits[..., -1:]
    with np.errstate(invalid="ignore"):
        precision, recall = hits / np.maximum(above, 1), hits / every
    steps = precision[..., 1:] * np.diff(recall, axis=-1)
    return np.where(every[..., 0] > 0, np.where(above[..., 1:] != 0, steps, 0).sum(-1), np.nan)


class ResampledPxAP(PxAP):
    """The same of one method under one set of rules, and of each resample of the images, which `draws_of` gives.

    Resamples are added up while images are scored, so that no image's pixels need be kept.
    """

    def __init__(self, bin_width: float, num_classes: int, draws: np.ndarray, image: np.ndarray) -> None:
        super().__init__(bin_width, num_classes)
        self.draws, self.image = draws, image
        self.drawn = np.zeros((2, len(draws), len(self.edges) - 1))  # of the object, of the background

    def add(self, samples: np.ndarray, histograms: np.ndarray, labels: np.ndarray) -> None:
        """Add pixels per bin (n, 2, bins) of samples, which are numbered as in `image`, and their classes (n,)."""
        for histogram, label in zip(histograms, labels, strict=True):
            self.counts[:, label] += histogram
        # Counts of pixels are whole numbers far below 2^53: these sums are exact, in whatever order.
        self.drawn += self.draws[:, self.image[samples]].astype(np.float64) @ histograms.swapaxes(0, 1)  # (2, R, bins)

    def resamples(self) -> np.ndarray:
        """PxAP of each resample, a fraction: float64 (R,); NaN where no pixel of an object was drawn."""
        return average_precision(*self.drawn)


def pixel_histograms(
    score_map: np.ndarray, mask: np.ndarray, ignore: np.ndarray | None, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count a score map's pixels (H, W) of object and background in bins [e_i, e_{i+1}), as `numpy.histogram` does.

    The masks, bools (H, W), are the object and the pixels that don't count where they are not the object's, or None.
    All edges but the last few are evenly spaced. Returns int64 (bins,) twice.

    >>> counts = pixel_histograms(np.array([[0.1, 0.6]]), np.array([[True, False]]), None, np.array([0, 0.5, 1, 2]))
    >>> counts[0].tolist(), counts[1].tolist()
    ([1, 0, 0], [0, 1, 0])
    """
    for name, other in (("mask", mask), ("ignore mask", ignore)):
        if other is not None and other.shape != score_map.shape:
            raise UserError(f"the {name} has shape {other.shape}, the score map {score_map.shape}: resize one of them")
    kinds = mask.astype(np.uint8)
    if ignore is not None:
        kinds[ignore & ~mask] = 2
    counts = np.zeros((3, len(edges) - 1), np.int64)
    _count(np.ascontiguousarray(score_map), kinds, np.asarray(edges, np.float64), counts)
    return counts[1], counts[0]


@jit
def _count(score_map: np.ndarray, kinds: np.ndarray, edges: np.ndarray, counts: np.ndarray) -> None:
    last = len(edges) - 2
    per_unit = 1.0 / (edges[1] - edges[0])
    for y in range(score_map.shape[0]):
        for x in range(score_map.shape[1]):
            value = score_map[y, x]
            # The quotient may be off by one; the edges themselves decide.
            index = min(int((value - edges[0]) * per_unit), last)
            while index > 0 and value < edges[index]:
                index -= 1
            while index < last and value >= edges[index + 1]:
                index += 1
            counts[kinds[y, x], index] += 1


def mask_histograms(
    scores: np.ndarray, mask: np.ndarray, ignore: np.ndarray | None, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """The same of masks that are still to be brought to the protocol's size, which the score map has."""
    ignore = None if ignore is None else resize_mask(ignore, protocol.mask_size)
    return pixel_histograms(scores, resize_mask(mask, protocol.mask_size), ignore, PxAP(protocol.pxap_bin).edges)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring a mask (H, W) to a size (width, height): each pixel is the one at the floor of its scaled coordinate.

    The scale is the reciprocal of new over old size, in float64: to the last bit what the field's evaluator does.
    The plain quotient picks another pixel at 6 % of the sizes up to 3,000, float32 at 10 %.
    """
    picked = [
        np.minimum((np.arange(new) * (1.0 / (new / old))).astype(np.int64), old - 1)
        for new, old in zip(size[::-1], mask.shape, strict=True)
    ]
    return mask[np.ix_(*picked)]


def point_and_energy(heatmap: np.ndarray, boxes: np.ndarray, tolerance: float = TOLERANCE) -> tuple[bool, float]:
    """Whether the peak of a raw heatmap (H, W) hits a ground-truth box, and the share of its energy inside the boxes.

    It has its image's size and is clipped at 0 here; boxes (G, 4) are inclusive. The peak is the first pixel with the
    highest value, and may miss a box by so many pixels; the energy in the union of the boxes counts. An empty map gives
    (False, 0). Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016: it averages over classes,
    the tables pool all samples and give each class a row. Wang et al., "Score-CAM", CVPR Workshops 2020, section 4.3:
    energy.

    >>> point_and_energy(np.eye(4), np.array([[0, 0, 1, 1]]), tolerance=0)
    (True, 0.5)
    """
    clipped = heatmap if heatmap.min() >= 0 else np.maximum(heatmap, 0)
    total = float(clipped.sum())
    if total <= 0:
        return False, 0.0
    y, x = np.unravel_index(int(clipped.argmax()), clipped.shape)
    hit, windows = _hits(int(x), int(y), boxes, tolerance), _windows(boxes)
    if len(windows) == 1:
        return hit, float(clipped[windows[0]].sum()) / total
    inside = np.zeros(clipped.shape, bool)  # what lies in two boxes counts once
    for window in windows:
        inside[window] = True
    return hit, float(clipped[inside].sum()) / total


def stored_point_and_energy(heatmap: StoredHeatmap, boxes: np.ndarray) -> tuple[bool, float]:
    """The same of a stored heatmap; where there is one box and nothing to clip, without most of its pixels."""
    windows, values = _windows(boxes), heatmap.values
    if len(windows) != 1 or (values is not None and values.min() < 0):
        return point_and_energy(at_image_size(heatmap), boxes)
    ((rows, columns),) = windows
    if values is None:  # an outer product
        down, across = profiles(heatmap.kind, heatmap.image_size)
        energy = float(down[rows].sum() / down.sum()) * float(across[columns].sum() / across.sum())
        return _hits(int(across.argmax()), int(down.argmax()), boxes, TOLERANCE), energy
    x0, y0, x1, y1 = _covered(heatmap)
    taps = (interpolation_weights(*sides, "bilinear") for sides in zip(values.shape, (y1 - y0, x1 - x0), strict=True))
    window = [max(edge, 0) for edge in (rows.start - y0, rows.stop - y0, columns.start - x0, columns.stop - x0)]
    x, y, total, inside = _peak_and_sums(np.ascontiguousarray(values), *taps, np.array(window))
    return (_hits(x0 + x, y0 + y, boxes, TOLERANCE), inside / total) if total > 0 else (False, 0.0)


@jit
def _peak_and_sums(heatmap: np.ndarray, rows: Taps, columns: Taps, window: np.ndarray) -> tuple[int, int, float, float]:
    """Where a map that is enlarged as `resize` does has its first peak, x and y; its sum, and that of a window.

    The sums come from its lines before they are enlarged. A line whose greatest value is less than the peak so far has
    no peak.
    """
    (first_row, row_weights), (first_column, column_weights) = rows, columns
    shares = np.zeros((2, heatmap.shape[1]))  # how often each value of a line counts: in all, and in the window
    for x in range(len(first_column)):
        for tap in range(column_weights.shape[1]):
            shares[0, first_column[x] + tap] += column_weights[x, tap]
            if window[2] <= x < window[3]:
                shares[1, first_column[x] + tap] += column_weights[x, tap]
    line, best, peak_x, peak_y, total, inside = np.empty(heatmap.shape[1]), -1.0, 0, 0, 0.0, 0.0
    for y in range(len(first_row)):
        top = 0.0
        for x in range(len(line)):
            mixed = 0.0
            for tap in range(row_weights.shape[1]):
                mixed += row_weights[y, tap] * heatmap[first_row[y] + tap, x]
            line[x] = mixed
            top = max(top, mixed)
            total += mixed * shares[0, x]
            if window[0] <= y < window[1]:
                inside += mixed * shares[1, x]
        if top * (1 + 1e-12) <= best:
            continue
        for x in range(len(first_column)):
            mixed = 0.0
            for tap in range(column_weights.shape[1]):
                mixed += column_weights[x, tap] * line[first_column[x] + tap]
            if mixed > best:
                best, peak_x, peak_y = mixed, x, y
    return peak_x, peak_y, total, inside


def _hits(x: int, y: int, boxes: np.ndarray, tolerance: float) -> bool:
    outside_x = np.maximum(np.maximum(boxes[:, 0] - x, x - boxes[:, 2]), 0)
    outside_y = np.maximum(np.maximum(boxes[:, 1] - y, y - boxes[:, 3]), 0)
    return bool((np.hypot(outside_x, outside_y) <= tolerance).any())


def _windows(boxes: np.ndarray) -> list[tuple[slice, slice]]:
    """Rows and columns of the pixels in each box."""
    corners = np.rint(boxes).astype(int).tolist()
    return [(slice(max(y0, 0), y1 + 1), slice(max(x0, 0), x1 + 1)) for x0, y0, x1, y1 in corners]


def _covered(heatmap: StoredHeatmap) -> tuple[int, int, int, int]:
    """Pixels `x0 y0 x1 y1` of the image, half-open, that a heatmap covers: one at least."""
    x0, y0, x1, y1 = (round(side) for side in heatmap.rectangle)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def at_image_size(heatmap: StoredHeatmap, outside: float = 0.0) -> np.ndarray:
    """Enlarge a raw heatmap, bilinear, to the part of its image that it covers, `outside` elsewhere: float64 (H, W).

    Not to be written to: baselines share one for images of one size.
    """
    width, height = heatmap.image_size
    if heatmap.values is None:
        return _baseline_at(heatmap.kind, (width, height))
    x0, y0, x1, y1 = _covered(heatmap)
    image = np.full((height, width), outside)
    image[y0:y1, x0:x1] = resize(heatmap.values[None], (x1 - x0, y1 - y0), "bilinear")[0]
    return image


@lru_cache(maxsize=4)
def _baseline_at(kind: str, size: tuple[int, int]) -> np.ndarray:
    return (full if kind == "full" else center)(size)
