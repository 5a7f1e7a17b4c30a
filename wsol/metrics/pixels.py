"""Pixel metrics on masks and raw maps: PxAP, peak mask IoU, the pointing game, energy in the box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torchmetrics import Metric

from wsol.metrics.accumulators import FIXED_POINT
from wsol.metrics.drawn_pixels import average_precision

__all__ = ["Pointing", "PxAP", "point_and_energy", "point_and_energy_of_product", "resize_mask"]


class PxAP(Metric):
    """Pixel average precision, the area under precision over recall of all pixels of a dataset; and peak mask IoU.

    Parameters
    ----------
    bin_width : float
        Width of a histogram's bin in units of the score map.
    num_classes : int
        Classes to count separately.

    References
    ----------
    Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020, the definition of
    PxAP.

    Examples
    --------
    >>> from wsol.metrics.histogram import pixel_histograms
    >>> metric = PxAP(0.5)
    >>> metric.update(*pixel_histograms(np.array([[0.9, 0.1]]), np.array([[True, False]]), None, metric.edges))
    >>> float(metric.compute()["pxap"])
    1.0
    """

    full_state_update = False
    true_histogram: torch.Tensor
    false_histogram: torch.Tensor

    def __init__(self, bin_width: float = 0.001, num_classes: int = 1) -> None:
        super().__init__()
        self.edges = np.append(np.arange(0, 1, bin_width), [1.0, 2.0, 3.0])
        shape = (num_classes, len(self.edges) - 1)
        for name in ("true_histogram", "false_histogram"):
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, of_object: np.ndarray, of_background: np.ndarray, label: int = 0) -> None:
        """Add one score map's pixels per bin, as `pixel_histograms(score_map, mask, ignore, metric.edges)` counts them.

        Parameters
        ----------
        of_object, of_background : int64 arrays, one count per bin
        label : int
            The sample's class.
        """
        self.true_histogram[label] += torch.from_numpy(of_object).to(self.true_histogram.device)
        self.false_histogram[label] += torch.from_numpy(of_background).to(self.false_histogram.device)

    @property
    def empty(self) -> bool:
        """Whether no pixel of an object was counted here yet."""
        return int(self.true_histogram.sum()) == 0

    def compute(self) -> dict[str, torch.Tensor]:
        """Return fractions, merged over processes; NaN without a pixel of an object.

        Returns
        -------
        dict of str to float64 tensor
            `pxap`; `peak_mask_iou`, the highest IoU of mask and thresholded map over the bins' edges, all pixels
            pooled, and `peak_threshold`, its smallest τ; `class_pxap` and `class_peak_mask_iou` (C,).
        """
        hits, alarms = self.true_histogram.cpu().numpy(), self.false_histogram.cpu().numpy()
        ap, peak, at = _summarize(hits.sum(0), alarms.sum(0), self.edges)
        per_class = np.array([_summarize(*pair, self.edges) for pair in zip(hits, alarms, strict=True)])
        values: dict[str, Any] = {"pxap": ap, "peak_mask_iou": peak, "peak_threshold": at}
        values |= {"class_pxap": per_class[:, 0], "class_peak_mask_iou": per_class[:, 1]}
        return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in values.items()}


def _summarize(of_object: np.ndarray, of_background: np.ndarray, edges: np.ndarray) -> tuple[float, float, float]:
    """Return average precision, peak IoU and its τ from one pair of histograms."""
    if not of_object.sum():
        return float("nan"), float("nan"), float("nan")
    # Pixels above each edge, from the brightest bin down.
    hits, alarms = of_object[::-1].cumsum().astype(np.float64), of_background[::-1].cumsum().astype(np.float64)
    iou = hits / (hits[-1] + alarms)
    best = int(np.flatnonzero(iou == iou.max())[-1])  # from bright to dark: the last is the smallest τ
    return float(average_precision(of_object, of_background)), float(iou[best]), float(edges[:-1][::-1][best])


class Pointing(Metric):
    """The pointing game and the energy in the box, both on the raw heatmap clipped at 0.

    References
    ----------
    Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016 (pointing game, 15 pixels of
    tolerance; it averages over classes, here all samples are pooled, and each class has a row of its own in the
    tables); Wang et al., "Score-CAM", CVPR Workshops 2020, section 4.3 (energy-based pointing game).

    Examples
    --------
    >>> metric = Pointing()
    >>> metric.update([True], [0.75])
    >>> {name: value.tolist() for name, value in metric.compute().items()}
    {'pointing_game': 1.0, 'energy_in_box': 0.75, 'class_pointing_game': 1.0, 'class_energy_in_box': 0.75}
    """

    full_state_update = False
    hits: torch.Tensor
    energy: torch.Tensor
    count: torch.Tensor

    def __init__(self, num_classes: int = 1) -> None:
        super().__init__()
        for name in ("hits", "energy", "count"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self, hits: Sequence[bool], energies: Sequence[float], labels: Sequence[int] | np.ndarray | None = None
    ) -> None:
        """Count samples; see `point_and_energy`.

        Parameters
        ----------
        hits : sequence of bool (B,)
        energies : sequence of float (B,)
            In [0, 1].
        labels : sequence of int (B,), optional
            True class; by default all are of class 0.
        """
        hit = torch.from_numpy(np.array(hits, np.int64)).to(self.hits.device)
        fixed = torch.from_numpy(np.rint(np.array(energies, np.float64) * FIXED_POINT).astype(np.int64)).to(hit)
        label = torch.zeros_like(hit) if labels is None else torch.from_numpy(np.array(labels, np.int64)).to(hit)
        for state, values in ((self.hits, hit), (self.energy, fixed), (self.count, torch.ones_like(hit))):
            state.index_add_(0, label, values)

    def compute(self) -> dict[str, torch.Tensor]:
        """Return both as fractions, overall and per class (C,); NaN without samples."""
        sums = {"pointing_game": self.hits.double(), "energy_in_box": self.energy.double() / FIXED_POINT}
        overall = {name: values.sum() / self.count.sum() for name, values in sums.items()}
        return overall | {f"class_{name}": values / self.count for name, values in sums.items()}


def point_and_energy(heatmap: np.ndarray, boxes: np.ndarray, tolerance: float = 15.0) -> tuple[bool, float]:
    """Ask whether a heatmap's peak hits a true box, and how much of its energy lies in true boxes.

    Parameters
    ----------
    heatmap : array (H, W)
        At the image's size; clipped at 0 here.
    boxes : array (G, 4)
        True boxes in pixels, inclusive.
    tolerance : float
        Pixels by which the peak may miss a box.

    Returns
    -------
    hit : bool
        The first pixel with the highest value lies within the tolerance of a box; False for an empty map.
    energy : float
        Share of the sum of the map that lies in the union of the boxes; 0 for an empty map.

    Examples
    --------
    >>> point_and_energy(np.eye(4), np.array([[0, 0, 1, 1]]), tolerance=0)
    (True, 0.5)
    """
    clipped = heatmap if heatmap.min() >= 0 else np.maximum(heatmap, 0)
    total = float(clipped.sum())
    if total <= 0:
        return False, 0.0
    y, x = np.unravel_index(int(clipped.argmax()), clipped.shape)
    hit, windows = _hit(int(x), int(y), boxes, tolerance), _windows(boxes)
    if len(windows) == 1:
        return hit, float(clipped[windows[0]].sum()) / total
    inside = np.zeros(clipped.shape, bool)  # what lies in two boxes counts once
    for window in windows:
        inside[window] = True
    return hit, float(clipped[inside].sum()) / total


def point_and_energy_of_product(
    down: np.ndarray, across: np.ndarray, boxes: np.ndarray, tolerance: float = 15.0
) -> tuple[bool, float]:
    """Ask the same of a map that is an outer product, without its pixels where there is one box.

    Parameters
    ----------
    down, across : arrays (H,) and (W,)
        Not negative.
    boxes, tolerance
        As in `point_and_energy`.

    Examples
    --------
    >>> point_and_energy_of_product(np.ones(4), np.ones(4), np.array([[0, 0, 1, 1]]))
    (True, 0.25)
    """
    windows = _windows(boxes)
    if len(windows) != 1:
        return point_and_energy(np.outer(down, across), boxes, tolerance)
    ((rows, columns),) = windows
    energy = float(down[rows].sum() / down.sum()) * float(across[columns].sum() / across.sum())
    return _hit(int(across.argmax()), int(down.argmax()), boxes, tolerance), energy


def _hit(x: int, y: int, boxes: np.ndarray, tolerance: float) -> bool:
    outside_x = np.maximum(np.maximum(boxes[:, 0] - x, x - boxes[:, 2]), 0)
    outside_y = np.maximum(np.maximum(boxes[:, 1] - y, y - boxes[:, 3]), 0)
    return bool((np.hypot(outside_x, outside_y) <= tolerance).any())


def _windows(boxes: np.ndarray) -> list[tuple[slice, slice]]:
    """Rows and columns of the pixels in each box."""
    corners = np.rint(boxes).astype(int).tolist()
    return [(slice(max(y0, 0), y1 + 1), slice(max(x0, 0), x1 + 1)) for x0, y0, x1, y1 in corners]


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring a mask to a size: each pixel is the one at the floor of its scaled coordinate.

    The scale is the reciprocal of new over old size, in float64: to the last bit what the field's evaluator does.
    The plain quotient picks another pixel at 6 % of the sizes up to 3,000, float32 at 10 %.

    Parameters
    ----------
    mask : bool array (H, W)
    size : (width, height)

    Returns
    -------
    bool array (height, width)

    Examples
    --------
    >>> resize_mask(np.array([[True, False]]), (4, 1))
    array([[ True,  True, False, False]])
    """
    picked = [
        np.minimum((np.arange(new) * (1.0 / (new / old))).astype(np.int64), old - 1)
        for new, old in zip(size[::-1], mask.shape, strict=True)
    ]
    return mask[np.ix_(*picked)]
