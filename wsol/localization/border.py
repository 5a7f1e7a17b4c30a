"""The outer border of a component, followed once around: the area that its polygon encloses, holes included."""

from __future__ import annotations

import numpy as np

from wsol.compiled import inner
from wsol.localization.records import FIRST, NO_LABEL, find

__all__ = ["trace_area"]


@inner
def trace_area(labels: np.ndarray, records: np.ndarray, root: int, stride: int, eight: bool) -> int:
    """Twice the area of the polygon through the centers of a component's outer border pixels.

    Parameters
    ----------
    labels : flat array of uint32, within a frame of NO_LABEL
        Pixels that are there have another label; with 4-connectivity it tells a component from its diagonal neighbors.
    records : flat array
        Of all components.
    root, stride : int
        Which component; width with the frame.
    eight : bool
        8-connectivity.
    """
    dx = (-1, -1, 0, 1, 1, 1, 0, -1)
    dy = (0, -1, -1, -1, 0, 1, 1, 1)
    steps = np.array([-1, -stride - 1, -stride, -stride + 1, 1, stride + 1, stride, stride - 1])
    start = np.int64(records[root + FIRST])
    # What lies before the first pixel in raster order is outside, so the search begins in the west, counterclockwise:
    # this finds the pixel from which the walk will come back.
    back, d = np.int64(-1), 0
    for k in range(8):
        d = (8 - k) & 7
        if belongs(labels, records, start + steps[d], root, eight):
            back = start + steps[d]
            break
    if back < 0:
        return 0
    p = start
    x = y = total = 0
    while True:
        # Clockwise, beginning behind the pixel that the walk came from.
        d = (d + 1) & 7
        q = p + steps[d]
        while not belongs(labels, records, q, root, eight):
            d = (d + 1) & 7
            q = p + steps[d]
        total += x * dy[d] - y * dx[d]
        x += dx[d]
        y += dy[d]
        if q == start and p == back:
            return abs(total)
        p = q
        d = (d + 4) & 7


@inner
def belongs(labels: np.ndarray, records: np.ndarray, p: int, root: int, eight: bool) -> bool:
    """Whether a pixel next to one of the component belongs to it."""
    label = np.int64(labels[p])
    return label != NO_LABEL and (eight or find(records, label) == root)
