"""The kernel that enlarges heatmaps: separable interpolation in float64, a few taps along each axis."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from wsol.compiled import compiled

__all__ = ["resize"]

MOST_TAPS = 4


def resize(heatmaps: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Resize maps as `torch.nn.functional.interpolate` does with `align_corners=False`, to the last few bits.

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
    rows, columns = _taps(heatmaps.shape[1], height, interpolation), _taps(heatmaps.shape[2], width, interpolation)
    _mix(np.ascontiguousarray(heatmaps), *rows, *columns, found)
    return found


@lru_cache(maxsize=64)
def _taps(old: int, new: int, interpolation: str) -> tuple[np.ndarray, np.ndarray]:
    """Where on the old line each new value begins to look, with which weights: int64 (new,), float64 (new, taps)."""
    # Torch itself tells: resizing the identity gives the weights. Imported here so that a sweep of ready score maps
    # does not wait for torch.
    import torch
    from torch.nn.functional import interpolate

    identity = torch.eye(old, dtype=torch.float64)[None, None]  # (1, 1, old, old)
    options = {} if interpolation == "nearest" else {"align_corners": False}
    weights = interpolate(identity, size=(new, old), mode=interpolation, **options)[0, 0].numpy()  # (new, old)
    taps = min(old, MOST_TAPS)
    first = np.minimum((weights != 0).argmax(1), old - taps)
    return first, np.ascontiguousarray(np.take_along_axis(weights, first[:, None] + np.arange(taps), 1))


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
