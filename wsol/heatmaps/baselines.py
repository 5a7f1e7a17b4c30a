"""Heatmaps that never look at the image: a method that doesn't beat them has found nothing."""

from __future__ import annotations

import zlib
from functools import lru_cache

import numpy as np

__all__ = ["center", "full", "profiles", "random"]


def center(size: tuple[int, int]) -> np.ndarray:
    """Gaussian around the image's center, σ a quarter of the size in each direction.

    Parameters
    ----------
    size : (width, height)

    Returns
    -------
    float64 array (height, width), values in (0, 1]

    References
    ----------
    Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020 (center baseline).

    Examples
    --------
    >>> center((3, 3)).round(2).tolist()
    [[0.17, 0.41, 0.17], [0.41, 1.0, 0.41], [0.17, 0.41, 0.17]]
    """
    return np.outer(*profiles("center", size))


@lru_cache(maxsize=4096)  # a few numbers for each size that images have
def profiles(kind: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Down and across a baseline's map, which is their outer product.

    Parameters
    ----------
    kind : "center" or "full"
    size : (width, height)

    Returns
    -------
    float64 arrays (height,) and (width,)
        Not to be written to: all calls share them.

    Examples
    --------
    >>> down, across = profiles("center", (5, 3))
    >>> bool((np.outer(down, across) == center((5, 3))).all())
    True
    """
    if kind == "full":
        return np.ones(size[1]), np.ones(size[0])
    across, down = (np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 4)) ** 2) for n in size)
    return down, across


def full(size: tuple[int, int]) -> np.ndarray:
    """Ones everywhere: the box is the whole image.

    Parameters
    ----------
    size : (width, height)

    Returns
    -------
    float64 array (height, width)

    Examples
    --------
    >>> full((3, 2)).shape
    (2, 3)
    """
    return np.ones(size[::-1])


def random(size: tuple[int, int], sample_id: str, seed: int = 0) -> np.ndarray:
    """Uniform noise in [0, 1), the same for a sample in whatever order samples come.

    Parameters
    ----------
    size : (width, height)
    sample_id : str
    seed : int

    Returns
    -------
    float64 array (height, width)

    Examples
    --------
    >>> bool((random((7, 7), "a") == random((7, 7), "a")).all())
    True
    """
    return np.random.default_rng((seed, zlib.crc32(sample_id.encode()))).random(size[::-1])
