"""The kernel that fills a polygon: the pixels whose centers lie inside."""

from __future__ import annotations

import numpy as np

from wsol.compiled import compiled

__all__ = ["fill_polygon"]


@compiled
def fill_polygon(points: np.ndarray, mask: np.ndarray) -> None:
    """Add a polygon's pixels to a mask.

    A center lies inside where an odd number of edges crosses its row to the left of it. An edge's upper end belongs to
    it and its lower end does not, so that a corner between two rows counts once; a center on an edge belongs to what
    lies right of that edge.

    Parameters
    ----------
    points : array of float64 (N, 2)
        x and y of the corners, in any direction; pixel (0, 0) spans 0 to 1. What lies outside the mask is cut off.
    mask : bool array (H, W)
        Pixels inside become True.
    """
    height, width = mask.shape
    flips = np.zeros((height, width + 1), np.uint8)
    top, bottom = height, 0
    for i in range(len(points)):
        x0, y0 = points[i - 1, 0], points[i - 1, 1]
        x1, y1 = points[i, 0], points[i, 1]
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        first = int(min(max(np.ceil(y0 - 0.5), 0), height))
        end = int(min(max(np.ceil(y1 - 0.5), 0), height))
        for row in range(first, end):
            x = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            flips[row, int(min(max(np.ceil(x - 0.5), 0), width))] ^= 1
        top, bottom = min(top, first), max(bottom, end)
    for row in range(top, bottom):
        inside = 0
        for column in range(width):
            inside ^= flips[row, column]
            if inside:
                mask[row, column] = True
