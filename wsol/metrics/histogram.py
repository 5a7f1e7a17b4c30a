"""The kernel that counts a score map's pixels per bin, of the object and of the background."""

from __future__ import annotations

import numpy as np

from wsol.compiled import compiled
from wsol.errors import UserError

__all__ = ["pixel_histograms"]


def pixel_histograms(
    score_map: np.ndarray, mask: np.ndarray, ignore: np.ndarray | None, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count pixels in the bins [e_i, e_{i+1}), as `numpy.histogram` does.

    Parameters
    ----------
    score_map : float64 array (H, W), values in [edges[0], edges[-1])
    mask : bool array (H, W)
        The object.
    ignore : bool array (H, W), optional
        Pixels that don't count, where they are not the object's.
    edges : float64 array (N + 1,)
        Increasing; all but the last few are evenly spaced.

    Returns
    -------
    of_object, of_background : int64 arrays (N,)

    Raises
    ------
    UserError
        If the shapes differ.

    Examples
    --------
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


@compiled
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
