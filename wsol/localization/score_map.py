"""From a heatmap as the network gave it to a score map: resized, normalized, zero where the view did not look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsol.errors import UserError
from wsol.localization.protocol import Protocol, load_protocol
from wsol.localization.resize import resize

if TYPE_CHECKING:
    import torch

__all__ = ["score_map", "score_maps"]

Rectangle = tuple[float, float, float, float]


def score_map(
    heatmap: np.ndarray | torch.Tensor,
    protocol: Protocol | str | Path,
    image_size: tuple[int, int] | None = None,
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
        Of the original image; needed where the protocol evaluates at that size, and with `rectangle`.
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
    raw = _as_array(heatmap)
    if raw.ndim != 2:
        raise UserError(f"heatmap has shape {raw.shape}: pass one map of shape (h, w)")
    return score_maps(
        raw[None], protocol, None if image_size is None else [image_size], None if rectangle is None else [rectangle]
    )[0]


def score_maps(
    heatmaps: np.ndarray | torch.Tensor,
    protocol: Protocol | str | Path,
    image_sizes: Sequence[tuple[int, int] | None] | None = None,
    rectangles: Sequence[Rectangle | None] | None = None,
) -> list[np.ndarray]:
    """Bring many heatmaps of one shape to evaluation size and normalize each.

    Parameters
    ----------
    heatmaps : array or tensor (N, h, w)
        See `score_map`.
    protocol : Protocol, str or path
        See `score_map`.
    image_sizes : N times (width, height) or None, optional
        See `score_map`.
    rectangles : N times (x0, y0, x1, y1) or None, optional
        See `score_map`.

    Returns
    -------
    list of N arrays of float64 (H, W)

    Raises
    ------
    UserError
        See `score_map`; the text names the heatmap's index.

    Examples
    --------
    >>> [found.shape for found in score_maps(np.eye(3)[None], Protocol(size=None), [(8, 6)])]
    [(6, 8)]
    """
    rules = load_protocol(protocol)
    raw = _as_array(heatmaps)
    if raw.ndim != 3 or 0 in raw.shape:
        raise UserError(f"heatmaps have shape {raw.shape}: pass a non-empty array of shape (N, h, w)")
    finite = np.isfinite(raw).all(axis=(1, 2))
    if not finite.all():
        raise UserError(
            f"heatmap {int(finite.argmin())} contains NaN or infinity: mend what computes it, or leave it out"
        )
    for name, given in (("image_sizes", image_sizes), ("rectangles", rectangles)):
        if given is not None and len(given) != len(raw):
            raise UserError(f"{len(raw)} heatmaps but {len(given)} {name}: pass one for each")
    targets = [
        _target(rules, index, image_sizes[index] if image_sizes else None, rectangles[index] if rectangles else None)
        for index in range(len(raw))
    ]
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (_, (x0, y0, x1, y1)) in enumerate(targets):
        groups.setdefault((x1 - x0, y1 - y0), []).append(index)
    found: list[np.ndarray] = [np.empty(0)] * len(raw)
    for size, members in groups.items():
        for index, values in zip(members, _normalized(raw[members], size, rules), strict=True):
            (width, height), (x0, y0, x1, y1) = targets[index]
            if (x1 - x0, y1 - y0) != (width, height):
                inside, values = values, np.zeros((height, width))
                values[y0:y1, x0:x1] = inside
            found[index] = values  # (H, W)
    return found


def _as_array(heatmap: object) -> np.ndarray:
    if hasattr(heatmap, "detach"):
        heatmap = heatmap.detach().cpu().double().numpy()
    raw = np.asarray(heatmap)
    if raw.dtype.kind not in "fiub":
        raise UserError(f"heatmap has values of type {raw.dtype}: pass real numbers")
    return raw.astype(np.float64, copy=False)


def _target(
    rules: Protocol, index: int, image_size: tuple[int, int] | None, rectangle: Rectangle | None
) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """Evaluation size, and the part of it that the heatmap fills, both in whole pixels."""
    if image_size is not None and (len(image_size) != 2 or min(image_size) < 1):
        raise UserError(f"heatmap {index}: image_size = {image_size}: pass (width, height) in pixels")
    size = rules.size or image_size
    if size is None:
        raise UserError(
            f"heatmap {index}: protocol {rules.name} evaluates at the original image's size: pass image_size"
        )
    width, height = int(size[0]), int(size[1])
    if rectangle is None:
        return (width, height), (0, 0, width, height)
    if image_size is None:
        raise UserError(f"heatmap {index}: a rectangle of the image needs image_size: pass (width, height)")
    x0, y0, x1, y1 = rectangle
    if not (0 <= x0 < x1 <= image_size[0] and 0 <= y0 < y1 <= image_size[1]):
        raise UserError(
            f"heatmap {index}: rectangle {rectangle} is empty or not inside the image of "
            f"{image_size[0]} x {image_size[1]}"
        )
    left, right = _span(x0, x1, width / image_size[0], width)
    top, bottom = _span(y0, y1, height / image_size[1], height)
    return (width, height), (left, top, right, bottom)


def _span(low: float, high: float, scale: float, length: int) -> tuple[int, int]:
    # At least one pixel, however small the rectangle is at evaluation size.
    start = min(int(np.floor(low * scale + 0.5)), length - 1)
    return start, max(int(np.floor(high * scale + 0.5)), start + 1)


def _normalized(raw: np.ndarray, size: tuple[int, int], rules: Protocol) -> np.ndarray:
    # Resizing a constant leaves rounding errors that normalization would blow up, so equality is judged before it.
    flat = raw.reshape(len(raw), -1)
    constant = flat.min(axis=1) == flat.max(axis=1)
    same = raw.shape[1:] == size[::-1]
    values = raw.copy() if same else resize(raw, size, rules.interpolation)  # (N, H, W)
    if rules.normalization == "minmax":
        values -= values.min(axis=(1, 2), keepdims=True)
    else:
        np.maximum(values, 0, out=values)
    top = values.max(axis=(1, 2))
    empty = constant | ~(top > 0)
    values /= np.where(empty, 1, top)[:, None, None]
    values[empty] = 0
    return values
