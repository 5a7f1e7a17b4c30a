"""The kernel that enlarges heatmaps: separable interpolation in float64, a few taps along each axis."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from wsol.compiled import compiled

__all__ = ["resize"]


def resize(heatmaps: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Resize maps as `torch.nn.functional.interpolate` does with `align_corners=False`.

    Parameters
    ----------
    heatmaps : float64 array (N, h, w)
    size : (width, height)
    interpolation : "bicubic", "bilinear" or "nearest"

    Returns
    -------
    float64 array (N, height, width)

    Examples
    --------
    >>> resize(np.array([[[0.0, 1.0]]]), (4, 1), "bilinear").tolist()
    [[[0.0, 0.25, 0.75, 1.0]]]
    """
    width, height = size
    found = np.empty((len(heatmaps), height, width))
    rows, columns = (
        interpolation_weights(heatmaps.shape[1], height, interpolation),
        interpolation_weights(heatmaps.shape[2], width, interpolation),
    )
    _mix(np.ascontiguousarray(heatmaps), *rows, *columns, found)
    return found


@lru_cache(maxsize=64)
def interpolation_weights(old: int, new: int, interpolation: str) -> tuple[np.ndarray, np.ndarray]:
    """Where on the old line each new value begins to look, with which weights: int64 (new,), float64 (new, taps).

    To the bit those of torch's float64 kernels on x86 with fused multiply-add, which each bracket below stands for.
    """
    scale, middles = old / new, np.arange(new) + 0.5
    if interpolation == "nearest":
        # Torch's kernel for small outputs multiplies in single precision; both floor there.
        position = np.arange(new) * (scale if old + new > 128 else np.float32(scale))
        return np.minimum(np.floor(position.astype(np.float32)), old - 1).astype(np.int64), np.ones((new, 1))
    # In two parts the product is exact, so that the sum is rounded once.
    high = np.float64(np.float32(scale))
    position = (high * middles - 0.5) + (scale - high) * middles  # (new,)
    if interpolation == "bilinear":
        position = np.maximum(position, 0)
    start = np.minimum(np.floor(position.astype(np.float32)), old - 1).astype(np.int64)
    t = np.clip(position - start, 0, 1)
    if interpolation == "bilinear":
        before, weights = 0, [1 - t, t]
    else:
        before, weights = 1, [_outer(t + 1), _inner(t), _inner(1 - t), _outer(1 - t + 1)]
    taps = min(old, len(weights))
    first = np.clip(start - before, 0, old - taps)
    joined = np.zeros((new, taps))
    for k, weight in enumerate(weights):
        # Beyond the edge the last value is taken again.
        joined[np.arange(new), np.clip(start - before + k, 0, old - 1) - first] += weight
    return first, joined


def _inner(x: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -0.75 at distances up to 1."""
    high = x.astype(np.float32).astype(np.float64)
    slope = (1.25 * high - 2.25) + 1.25 * (x - high)
    return slope * x * x + 1


def _outer(x: np.ndarray) -> np.ndarray:
    """The same at distances from 1 to 2."""
    high = x.astype(np.float32).astype(np.float64)
    low = x - high
    slope = (3.75 - 0.75 * high) - 0.75 * low
    high_slope = slope.astype(np.float32).astype(np.float64)
    curve = (high_slope * high - 6) + (high_slope * low + (slope - high_slope) * x)
    return curve * x + 3


@compiled
def _mix(
    heatmaps: np.ndarray,
    first_row: np.ndarray,
    row_weights: np.ndarray,
    first_column: np.ndarray,
    column_weights: np.ndarray,
    found: np.ndarray,
) -> None:
    count, height, width = found.shape
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
                found[n, y, x] = mixed
