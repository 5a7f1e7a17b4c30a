"""How much two boxes share."""

from __future__ import annotations

import numpy as np

__all__ = ["coverage"]


def coverage(box: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare a box with true boxes, counting inclusive pixels.

    Parameters
    ----------
    box : array (4,)
        Inclusive; an empty box has x1 < x0.
    truth : array (G, 4)
        Inclusive, in the same pixels.

    Returns
    -------
    in_truth, of_truth, iou : arrays (G,) in [0, 1]
        Share of the box that lies in each true box, share of each true box that the box covers, IoU.

    Examples
    --------
    >>> [share.item() for share in coverage(np.array([0, 0, 1, 1]), np.array([[0, 0, 1, 3]]))]
    [1.0, 0.5, 0.5]
    """
    low, high = np.maximum(box[:2], truth[:, :2]), np.minimum(box[2:], truth[:, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(1)
    own = np.clip(box[2:] - box[:2] + 1, 0, None).prod()
    area = np.clip(truth[:, 2:] - truth[:, :2] + 1, 0, None).prod(1)
    tiny = np.finfo(np.float64).tiny
    return shared / max(own, tiny), shared / np.maximum(area, tiny), shared / np.maximum(own + area - shared, tiny)
