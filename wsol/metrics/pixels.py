"""Pixel metrics on masks and raw maps: PxAP, peak mask IoU, the pointing game, energy in the box."""

from __future__ import annotations

import numpy as np
import torch
from torchmetrics import Metric

from wsol.metrics.localization import FIXED_POINT

__all__ = ["Pointing", "PxAP", "point_and_energy", "resize_mask"]


class PxAP(Metric):
    """Pixel average precision: the area under precision over recall of all pixels of a dataset, from histograms.

    Parameters
    ----------
    bin_width : float
        Width of a histogram's bin in units of the score map.

    References
    ----------
    Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020, eq. 4 to 6.

    Examples
    --------
    >>> from wsol.metrics.histogram import pixel_histograms
    >>> metric = PxAP(0.5)
    >>> metric.update(*pixel_histograms(np.array([[0.9, 0.1]]), np.array([[True, False]]), None, metric.edges))
    >>> float(metric.compute())
    1.0
    """

    full_state_update = False
    true_histogram: torch.Tensor
    false_histogram: torch.Tensor

    def __init__(self, bin_width: float = 0.001) -> None:
        super().__init__()
        self.edges = np.append(np.arange(0, 1, bin_width), [1.0, 2.0, 3.0])
        for name in ("true_histogram", "false_histogram"):
            self.add_state(name, torch.zeros(len(self.edges) - 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, of_object: np.ndarray, of_background: np.ndarray) -> None:
        """Add one score map's pixels per bin, as `pixel_histograms(score_map, mask, ignore, metric.edges)` counts them.

        Parameters
        ----------
        of_object, of_background : int64 arrays, one count per bin
        """
        self.true_histogram += torch.from_numpy(of_object).to(self.true_histogram.device)
        self.false_histogram += torch.from_numpy(of_background).to(self.false_histogram.device)

    @property
    def empty(self) -> bool:
        """Whether no pixel of an object was counted yet."""
        return int(self.true_histogram.sum()) == 0

    def compute(self) -> torch.Tensor:
        """Return the pixel average precision, a fraction; NaN without a pixel of an object."""
        if self.empty:
            return torch.tensor(float("nan"), dtype=torch.float64)
        hits, alarms = self._cumulated()
        found = hits + alarms
        precision = hits / np.maximum(found, 1)
        recall = hits / hits[-1]
        kept = found[1:] != 0
        return torch.tensor((precision[1:] * np.diff(recall))[kept].sum(), dtype=torch.float64)

    def peak_iou(self) -> tuple[float, float]:
        """Return the highest IoU of mask and thresholded map over the bins' edges, all pixels pooled, and its τ."""
        if self.empty:
            return float("nan"), float("nan")
        hits, alarms = self._cumulated()
        iou = hits / (hits[-1] + alarms)
        best = int(np.flatnonzero(iou == iou.max())[-1])  # bins run from bright to dark: the last is the smallest τ
        return float(iou[best]), float(self.edges[:-1][::-1][best])

    def _cumulated(self) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels above each edge, from the brightest bin down: of the object, and of the background."""
        return (
            self.true_histogram.cpu().numpy()[::-1].cumsum().astype(np.float64),
            self.false_histogram.cpu().numpy()[::-1].cumsum().astype(np.float64),
        )


class Pointing(Metric):
    """The pointing game and the energy in the box, both on the raw heatmap clipped at 0.

    References
    ----------
    Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016 (pointing game, 15 pixels of
    tolerance); Wang et al., "Score-CAM", CVPR Workshops 2020, section 4.3 (energy-based pointing game).

    Examples
    --------
    >>> metric = Pointing()
    >>> metric.update(hit=True, energy=0.75)
    >>> {name: float(value) for name, value in metric.compute().items()}
    {'pointing_game': 1.0, 'energy_in_box': 0.75}
    """

    full_state_update = False
    hits: torch.Tensor
    energy: torch.Tensor
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("hits", "energy", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, hit: bool, energy: float) -> None:
        """Count one sample; see `point_and_energy`."""
        self.hits += int(hit)
        self.energy += round(energy * FIXED_POINT)
        self.count += 1

    def compute(self) -> dict[str, torch.Tensor]:
        """Return both as fractions."""
        total = max(int(self.count), 1)
        return {
            "pointing_game": self.hits.double() / total,
            "energy_in_box": self.energy.double() / FIXED_POINT / total,
        }


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
    clipped = np.maximum(heatmap, 0)
    total = float(clipped.sum())
    if total <= 0:
        return False, 0.0
    y, x = np.unravel_index(int(clipped.argmax()), clipped.shape)
    outside_x = np.maximum(np.maximum(boxes[:, 0] - x, x - boxes[:, 2]), 0)
    outside_y = np.maximum(np.maximum(boxes[:, 1] - y, y - boxes[:, 3]), 0)
    inside = np.zeros(clipped.shape, bool)
    for x0, y0, x1, y1 in np.rint(boxes).astype(int):
        inside[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = True
    hit = bool((np.hypot(outside_x, outside_y) <= tolerance).any())
    return hit, float(clipped[inside].sum()) / total


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
