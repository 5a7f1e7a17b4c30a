"""Heatmaps enlarged: separable interpolation in float64, a few taps along each axis."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from wsol.jit import jit

TAPS = 4  # always, so that the inner loops can be unrolled


class Taps(NamedTuple):
    """Old values that are mixed into each new one."""

    first: np.ndarray  # int64 (new,)
    weights: np.ndarray  # float64 (new, taps)


def resize(heatmaps: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Resize maps (N, h, w) to (N, height, width) as torch does without aligned corners, in float64.

    Examples
    --------
    >>> resize(np.array([[[0.0, 1.0]]]), (4, 1), "bilinear").tolist()
    [[[0.0, 0.25, 0.75, 1.0]]]
    """
    width, height = size
    resized = np.empty((len(heatmaps), height, width))
    rows = interpolation_weights(heatmaps.shape[1], height, interpolation)
    columns = interpolation_weights(heatmaps.shape[2], width, interpolation)
    _mix(np.ascontiguousarray(heatmaps), rows, columns, resized)
    return resized


@lru_cache(maxsize=64)
def interpolation_weights(old: int, new: int, interpolation: str) -> Taps:
    """Where each new value begins to look on the old line, and with which weights.

    To the bit those of torch's float64 kernels, which fuse some products and sums and so round them once. The same is
    had here from products of numbers cut in two, which are exact.
    """
    scale, middles = old / new, np.arange(new) + 0.5
    if interpolation == "nearest":
        # Torch has two kernels, of which the one for small outputs multiplies in single precision.
        source = np.arange(new) * (scale if old + new > 128 else np.float32(scale))
        before, parts = 0, [np.ones(new)]
    else:
        high, low = _halves(np.float64(scale))
        source = (high * middles - 0.5) + low * middles
        source = np.maximum(source, 0) if interpolation == "bilinear" else source
    start = np.minimum(np.floor(source.astype(np.float32)), old - 1).astype(np.int64)  # (new,)
    t = np.clip(source - start, 0, 1)
    if interpolation == "bilinear":
        before, parts = 0, [1 - t, t]
    elif interpolation == "bicubic":
        before, parts = 1, [_outer(t + 1), _inner(t), _inner(1 - t), _outer(1 - t + 1)]
    taps = min(old, TAPS)
    first = np.clip(start - before, 0, old - taps)
    weights = np.zeros((new, taps))
    for k, part in enumerate(parts):
        # Beyond the edge the last value is taken again.
        weights[np.arange(new), np.clip(start - before + k, 0, old - 1) - first] += part
    return Taps(first, weights)


def _halves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers of few bits that add up to x."""
    high = x.astype(np.float32).astype(np.float64)
    return high, x - high


def _inner(x: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -0.75 at distances up to 1."""
    high, low = _halves(x)
    slope = (1.25 * high - 2.25) + 1.25 * low
    return slope * x * x + 1


def _outer(x: np.ndarray) -> np.ndarray:
    """The same at distances from 1 to 2."""
    high, low = _halves(x)
    slope = (3.75 - 0.75 * high) - 0.75 * low
    high_slope, low_slope = _halves(slope)
    curve = (high_slope * high - 6) + (high_slope * low + low_slope * x)
    return curve * x + 3


@jit
def _mix(heatmaps: np.ndarray, rows: Taps, columns: Taps, resized: np.ndarray) -> None:
    """Rows first, one line at a time, then along it."""
    (first_row, row_weights), (first_column, column_weights) = rows, columns
    count, height, width = resized.shape
    old_width = heatmaps.shape[2]
    line = np.empty(old_width)
    for n in range(count):
        for y in range(height):
            top = first_row[y]
            for x in range(old_width):
                mixed = 0.0
                for tap in range(row_weights.shape[1]):
                    mixed += row_weights[y, tap] * heatmaps[n, top + tap, x]
                line[x] = mixed
            for x in range(width):
                left = first_column[x]
                mixed = 0.0
                for tap in range(column_weights.shape[1]):
                    mixed += column_weights[x, tap] * line[left + tap]
                resized[n, y, x] = mixed
