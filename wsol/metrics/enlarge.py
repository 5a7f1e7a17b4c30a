"""A stored heatmap at the size of its image, not normalized: for the pointing game, and for pictures."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from wsol.heatmaps.baselines import center, full
from wsol.heatmaps.store import StoredHeatmap
from wsol.localization.resize import resize

__all__ = ["at_image_size"]


def at_image_size(heatmap: StoredHeatmap, outside: float = 0.0) -> np.ndarray:
    """Enlarge one heatmap, bilinear, to the part of the image that it covers.

    Parameters
    ----------
    heatmap : StoredHeatmap
    outside : float
        Value where the view didn't look.

    Returns
    -------
    float64 array (height, width)
        Not to be written to: baselines share one for images of one size.
    """
    width, height = heatmap.image_size
    if heatmap.values is None:
        return _baseline(heatmap.kind, (width, height))
    x0, y0, x1, y1 = (round(side) for side in heatmap.rectangle)
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    image = np.full((height, width), outside)
    image[y0:y1, x0:x1] = resize(heatmap.values[None], (x1 - x0, y1 - y0), "bilinear")[0]
    return image


@lru_cache(maxsize=4)
def _baseline(name: str, size: tuple[int, int]) -> np.ndarray:
    return (full if name == "full" else center)(size)
