"""From a heatmap as the network gave it to a score map: resized, normalized, zero where the view did not look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsol.errors import UserError
from wsol.localization.kernels.pixels import resize
from wsol.localization.protocol import Protocol, load_protocol

if TYPE_CHECKING:
    import torch

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
        Its `size`, `interpolation` and `normalization` are used.
    image_size : (width, height), optional
        Of the original image in pixels; needed where the protocol evaluates at that size, and with `rectangle`.
    rectangle : (x0, y0, x1, y1), optional
        The part of the original image that the heatmap covers, `[x0, x1) x [y0, y1)` in its pixels; None: all of it.

    Returns
    -------
    array of float64 (H, W)
        In [0, 1]. What lies outside the rectangle is 0. All zeros if the heatmap's values are all equal (or, with
        "max" normalization, if none is positive).

    Raises
    ------
    UserError
        If the heatmap is not a finite, non-empty array of rank 2, or if sizes are missing or wrong.

    Examples
    --------
    >>> score_map(np.array([[0.0, 1.0], [2.0, 4.0]]), Protocol(size=(2, 2)))
    array([[0.  , 0.25],
           [0.5 , 1.  ]])
    """
    protocol, raw = load_protocol(protocol), checked_map(heatmap, "heatmap")
    if not np.isfinite(raw).all():
        raise UserError("heatmap contains NaN or infinity: fix what computes it, or leave it out")
    (width, height), (x0, y0, x1, y1) = _target(protocol, image_size, rectangle)
    values = _normalized(raw, (x1 - x0, y1 - y0), protocol)
    if values.shape == (height, width):
        return values
    padded = np.zeros((height, width))
    padded[y0:y1, x0:x1] = values
    return padded  # (H, W)


def score_maps(
    heatmaps: np.ndarray | torch.Tensor | Sequence[np.ndarray],
    protocol: Protocol | str | Path,
    image_sizes: Sequence[Size | None] | None = None,
    rectangles: Sequence[Rectangle | None] | None = None,
) -> list[np.ndarray]:
    """Bring many heatmaps to evaluation size and normalize each.

    Parameters
    ----------
    heatmaps : array or tensor (N, h, w), or sequence of N of them
        See `score_map`, for these and the others.
    protocol : Protocol, str or path
    image_sizes : N times (width, height) or None, optional
    rectangles : N times (x0, y0, x1, y1) or None, optional

    Returns
    -------
    list of N arrays of float64 (H, W)

    Raises
    ------
    UserError
        See `score_map`; the text names the heatmap's index.

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
    protocol: Protocol, image_size: Size | None, rectangle: Rectangle | None
) -> tuple[Size, tuple[int, int, int, int]]:
    """Evaluation size, and the part of it that the heatmap fills, both in whole pixels."""
    size = protocol.size or image_size
    if size is None:
        raise UserError(f"protocol {protocol.name} evaluates at the original image's size: pass image_size")
    width, height = int(size[0]), int(size[1])
    if rectangle is None:
        return (width, height), (0, 0, width, height)
    if image_size is None:
        raise UserError("a rectangle of the image needs image_size: pass (width, height)")
    x0, y0, x1, y1 = rectangle
    if not (0 <= x0 < x1 <= image_size[0] and 0 <= y0 < y1 <= image_size[1]):
        raise UserError(f"rectangle {rectangle} is empty or not inside the image of {image_size[0]} x {image_size[1]}")
    left, right = _span(x0, x1, width / image_size[0], width)
    top, bottom = _span(y0, y1, height / image_size[1], height)
    return (width, height), (left, top, right, bottom)


def _span(low: float, high: float, scale: float, length: int) -> tuple[int, int]:
    # At least one pixel, however small the rectangle is at evaluation size.
    start = min(int(np.floor(low * scale + 0.5)), length - 1)
    return start, max(int(np.floor(high * scale + 0.5)), start + 1)


def _normalized(raw: np.ndarray, size: Size, protocol: Protocol) -> np.ndarray:
    # Resizing a constant leaves rounding errors that normalization would blow up, so equality is judged before it.
    if raw.min() == raw.max():
        return np.zeros(size[::-1])
    values = raw.copy() if raw.shape == size[::-1] else resize(raw[None], size, protocol.interpolation)[0]  # (H, W)
    if protocol.normalization == "minmax":
        values -= values.min()
    else:
        np.maximum(values, 0, out=values)
    top = values.max()
    if top > 0:
        values /= top
    return values
