"""Heatmaps that never look at the image: a method that doesn't beat them has found nothing.

The center baseline is that of Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

import numpy as np


def center(size: tuple[int, int]) -> np.ndarray:
    """Gaussian around the center of (width, height), σ a quarter of the size in each direction: float64 (h, w)."""
    return np.outer(*profiles("center", size))


def full(size: tuple[int, int]) -> np.ndarray:
    """Ones everywhere, for a size (width, height): the box is the whole image. float64 (h, w)."""
    return np.ones(size[::-1])


@lru_cache(maxsize=4096)  # a few numbers for each size that images have
def profiles(kind: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Down (h,) and across (w,) the center or full map, which is their outer product; shared, not to be written to."""
    if kind == "full":
        return np.ones(size[1]), np.ones(size[0])
    across, down = (np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 4)) ** 2) for n in size)
    return down, across


def random(size: tuple[int, int], sample_id: str, seed: int = 0) -> np.ndarray:
    """Uniform noise in [0, 1), the same for a sample in whatever order samples come: float64 (h, w)."""
    return np.random.default_rng((seed, zlib.crc32(sample_id.encode()))).random(size[::-1])
