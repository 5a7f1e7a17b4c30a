"""From a heatmap as the network gave it to a score map: resized, normalized, zero where the view did not look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsol.errors import UserError
from wsol.localization.boxes import Axis, view_axes
from wsol.localization.kernels.pixels import resize
from wsol.localization.protocol import Protocol, load_protocol

if TYPE_CHECKING:
    import torch

ROUNDING = 1e-12  # of a map's largest value: below it, differences are rounding errors of resizing
Size = tuple[int, int]
Rectangle = tuple[float, float, float, float]


def score_map(
    heatmap: np.ndarray | torch.Tensor,
    protocol: Protocol | str | Path,
    image_size: Size | None = None,
    rectangle: Rectangle | None = None,
) -> np.ndarray:
    """Bring one heatmap to evaluation size and normalize it.

    Parameters
    ----------
    heatmap : array or tensor (h, w)
        As the network gave it: any range, no NaN or infinity.
    protocol : Protocol, str or path
        Its `size`, `view`, `interpolation` and `normalization` are used.
    image_size : (width, height), optional
        Of the original image in pixels; needed where the protocol evaluates at that size, and with `rectangle`. None:
        the heatmap covers what the protocol's `view` covers.
    rectangle : (x0, y0, x1, y1), optional
        The part of the original image that the heatmap covers, `[x0, x1) x [y0, y1)` in its pixels; None: all of it.

    Returns
    -------
    array of float64 (H, W)
        In [0, 1]. What lies outside the rectangle is 0. All zeros where normalization would divide by 0: if all values
        are equal, for "max" if none is positive, for "percentile" if its two values are equal.

    Raises
    ------
    UserError
        If the heatmap is not a finite, non-empty array of rank 2, if it is not in [0, 1] and the protocol does not
        normalize, or if sizes are missing or wrong.

    Examples
    --------
    >>> score_map(np.array([[0.0, 1.0], [2.0, 4.0]]), Protocol(size=(2, 2)))
    array([[0.  , 0.25],
           [0.5 , 1.  ]])
    """
    protocol, raw = load_protocol(protocol).for_dataset(), checked_map(heatmap, "heatmap")
    if not np.isfinite(raw).all():
        raise UserError("heatmap contains NaN or infinity: fix what computes it, or leave it out")
    if protocol.normalization == "none" and not 0 <= raw.min() <= raw.max() <= 1:
        raise UserError(
            f"a protocol with normalization=none takes heatmaps as they are, in [0, 1]; this one has {raw.min():g} to "
            f"{raw.max():g}: leave such protocols out, or score maps that their method made"
        )
    (width, height), (x0, y0, x1, y1) = _target(protocol, raw.shape[::-1], image_size, rectangle)
    inside = slice(max(-y0, 0), height - y0), slice(max(-x0, 0), width - x0)
    values = _normalized(raw, (x1 - x0, y1 - y0), inside, protocol)
    if values.shape == (height, width):
        return values
    padded = np.zeros((height, width))
    padded[max(y0, 0) : y1, max(x0, 0) : x1] = values
    return padded  # (H, W)


def score_maps(
    heatmaps: np.ndarray | torch.Tensor | Sequence[np.ndarray],
    protocol: Protocol | str | Path,
    image_sizes: Sequence[Size | None] | None = None,
    rectangles: Sequence[Rectangle | None] | None = None,
) -> list[np.ndarray]:
    """Bring many heatmaps (N, h, w), or N of them, to evaluation size and normalize each: N arrays of float64 (H, W).

    Sizes and rectangles are lists of N, None where there is none; an error names the heatmap's index. See `score_map`.

    Examples
    --------
    >>> [values.shape for values in score_maps(np.eye(3)[None], Protocol(size=None), [(8, 6)])]
    [(6, 8)]
    """
    protocol, maps = load_protocol(protocol), []
    views = [[None] * len(heatmaps) if values is None else values for values in (image_sizes, rectangles)]
    for index, inputs in enumerate(zip(heatmaps, *views, strict=True)):
        try:
            maps.append(score_map(inputs[0], protocol, *inputs[1:]))
        except UserError as error:
            raise UserError(f"heatmap {index}: {error}") from None
    return maps


def checked_map(values: object, name: str) -> np.ndarray:
    """Array of float64 (h, w) from an array or tensor; `name` is for the message."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    array = np.asarray(values, np.float64, order="C")
    if array.ndim != 2 or array.size == 0:
        raise UserError(f"{name} has shape {array.shape}: pass one non-empty map of shape (h, w)")
    return array  # (h, w)


def _target(
    protocol: Protocol, heatmap_size: Size, image_size: Size | None, rectangle: Rectangle | None
) -> tuple[Size, tuple[int, int, int, int]]:
    """Evaluation size, and what of its pixels, whole ones, the heatmap fills; maybe more than there are."""
    width, height = protocol.evaluation_size(image_size, heatmap_size)
    if rectangle is None and (image_size is None or protocol.view in ("squash", "short_side")):
        return (width, height), (0, 0, width, height)
    if image_size is None:
        raise UserError("a rectangle of the image needs image_size: pass (width, height)")
    x0, y0, x1, y1 = rectangle or (0, 0, *image_size)
    if not (0 <= x0 < x1 <= image_size[0] and 0 <= y0 < y1 <= image_size[1]):
        raise UserError(f"rectangle {rectangle} is empty or not inside the image of {image_size[0]} x {image_size[1]}")
    across, down = view_axes(protocol, image_size, (width, height))
    (left, right), (top, bottom) = _span(x0, x1, across), _span(y0, y1, down)
    return (width, height), (left, top, right, bottom)


def _span(low: float, high: float, axis: Axis) -> tuple[int, int]:
    # At least one pixel, however small the rectangle is at evaluation size, and one that is inside.
    # Rounding errors of halves are rounded off first.
    low, high = (np.floor(round(edge * axis.new / axis.old - axis.offset, 9) + 0.5) for edge in (low, high))
    start = min(int(low), axis.side - 1)
    return start, max(int(high), start + 1, 1)


def _normalized(raw: np.ndarray, size: Size, inside: tuple[slice, slice], protocol: Protocol) -> np.ndarray:
    """Resize to that size, of which `inside` is kept, and normalize, in the protocol's order."""
    # Resizing a constant leaves rounding errors that normalization would blow up, so equality is judged before it.
    if raw.min() == raw.max() and protocol.normalization != "none":
        return np.zeros(size[::-1])[inside]
    none, first = protocol.normalization == "none", protocol.normalization_order == "before_resizing"
    values = _stretch(raw.copy(), protocol) if first and not none else raw
    values = values.copy() if values.shape == size[::-1] else resize(values[None], size, protocol.interpolation)[0]
    values = values[inside]  # (H, W)
    if first or none:  # bicubic interpolation may leave the range
        return np.clip(values, 0, 1, out=np.ascontiguousarray(values))
    if (
        values.shape != size[::-1] and np.ptp(values) <= ROUNDING * np.abs(raw).max()
    ):  # the part that is kept is constant
        return np.zeros(values.shape)
    return _stretch(np.ascontiguousarray(values), protocol)


def _stretch(values: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Normalize in place."""
    kind = protocol.normalization
    if kind == "percentile":
        low, high = (_order_statistic(values, share) for share in protocol.normalization_percentiles)
        values -= low
        np.clip(values, 0, high - low, out=values)
        top = high - low
    else:
        if kind != "minmax":
            np.maximum(values, 0, out=values)
        if kind != "max":
            values -= values.min()
        top = values.max()
    top += protocol.normalization_epsilon
    if top > 0:
        values /= top
    return values


def _order_statistic(values: np.ndarray, share: float) -> float:
    """Return the value at index `int(n * share)` of all n sorted, the last where there is none."""
    index = min(int(values.size * share), values.size - 1)
    return float(np.partition(values, index, axis=None)[index])
