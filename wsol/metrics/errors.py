"""Why a sample counts as right or wrong: six kinds, the first that applies."""

from __future__ import annotations

import numpy as np

from wsol.metrics.overlap import coverage

__all__ = ["ERROR_KINDS", "error_kind"]

ERROR_KINDS = ("wrong_class", "right", "several", "part", "too_much", "elsewhere")


def error_kind(rank: int, right: bool, box: np.ndarray, truth: np.ndarray) -> str:
    """Name the kind of a sample's error at one threshold and IoU 0.5.

    Parameters
    ----------
    rank : int
        Rank of the true class, 0 is the best; -1 (no prediction) never counts as a wrong class.
    right : bool
        Whether the box overlaps a true box enough.
    box : array (4,)
        Predicted box, inclusive; an empty box has x1 < x0.
    truth : array (G, 4)
        True boxes, inclusive, in the same pixels.

    Returns
    -------
    str
        `wrong_class`: the best class is another; `right`: so right = Top-1 localization; `several`: the box covers
        more than 0.3 of each of at least two true boxes; `part`: more than 0.5 of the box lies in the true box that
        it matches best; `too_much`: it covers at least 0.7 of that box; `elsewhere`: all else.

    Examples
    --------
    >>> error_kind(0, False, np.array([0, 0, 3, 3]), np.array([[0, 0, 9, 9]]))
    'part'
    """
    if rank > 0:
        return "wrong_class"
    if right:
        return "right"
    in_truth, of_truth, iou = coverage(box, truth)
    if not len(iou):
        return "elsewhere"
    if int((of_truth > 0.3).sum()) >= 2:
        return "several"
    best = int(np.argmax(iou))
    if in_truth[best] > 0.5:
        return "part"
    return "too_much" if of_truth[best] >= 0.7 else "elsewhere"
