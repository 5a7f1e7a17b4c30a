"""Pixels of an object as COCO writes them: polygons, or runs of pixels (RLE), plain or packed into text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wsol.datasets.polygon_kernel import fill_polygon
from wsol.errors import UserError

__all__ = ["Region", "draw_region", "read_region", "unpack_runs"]

Region = list[np.ndarray] | np.ndarray  # polygons, float64 (N, 2) each; or lengths of runs, int64


def read_region(region: Any, size: tuple[int, int], where: str) -> Region:
    """Read a segmentation, without drawing it.

    Parameters
    ----------
    region : list of lists of numbers, or {"size": [height, width], "counts": list of int or str}
        As it stands in the file.
    size : (width, height)
        Of the image.
    where : str
        File and annotation, for the message.

    Returns
    -------
    list of float64 arrays (N, 2), or int64 array
        Corners x and y of each polygon; or the lengths of runs down the columns, background first.

    Raises
    ------
    UserError
        If a polygon is no list of x y pairs, at least three, or runs don't fill the image exactly.

    Examples
    --------
    >>> read_region({"size": [2, 3], "counts": "132"}, (3, 2), "a.json").tolist()
    [1, 3, 2]
    """
    if isinstance(region, Mapping):
        height_width, pixels = region.get("size"), size[0] * size[1]
        if height_width != [size[1], size[0]]:
            raise UserError(f"{where}: runs for [height, width] = {height_width}, but the image has {size[::-1]}")
        runs = _runs(region, where)
        covered = runs.sum() if runs.max() <= pixels else runs.max()  # the sum of larger ones could wrap around
        if covered != pixels:
            raise UserError(f"{where}: runs cover {covered} pixels, but the image has {pixels}; mend them")
        return runs
    if not isinstance(region, list) or not region:
        raise UserError(f"{where}: the segmentation is neither a list of polygons nor runs; mend it")
    return [_corners(ring, where) for ring in region]


def draw_region(region: Region, size: tuple[int, int]) -> np.ndarray:
    """Draw a segmentation.

    Parameters
    ----------
    region : list of arrays (N, 2), or array of int
        From `read_region`.
    size : (width, height)

    Returns
    -------
    bool array (height, width)
        Of polygons: the pixels whose center lies inside of any; pixel (0, 0) spans 0 to 1, as in COCO.

    Examples
    --------
    >>> draw_region([np.array([[1, 0], [3, 0], [3, 2], [1, 2]], float)], (4, 2)).astype(int)
    array([[0, 1, 1, 0],
           [0, 1, 1, 0]])
    >>> draw_region(np.array([1, 3, 2]), (3, 2)).astype(int)
    array([[0, 1, 0],
           [1, 1, 0]])
    """
    width, height = size
    if isinstance(region, np.ndarray):
        return np.repeat(np.arange(len(region)) % 2 == 1, region).reshape(width, height).T  # runs go down the columns
    mask = np.zeros((height, width), bool)
    for points in region:
        fill_polygon(points, mask)
    return mask


def unpack_runs(text: str) -> np.ndarray:
    """Read run lengths that were packed into text.

    Each character carries five bits above "0", the lowest first, and says in a sixth whether more follow; from the
    fourth number on, what is written is the difference to the number two before.

    Returns
    -------
    int64 array

    Raises
    ------
    ValueError
        If the text ends within a number, or has characters that were never written.

    Examples
    --------
    >>> unpack_runs("52203").tolist()
    [5, 2, 2, 2, 5]
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"{character!r} at an unexpected place")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("the text ends within a number")
    return np.array(runs, np.int64)


def _runs(region: Mapping[str, Any], where: str) -> np.ndarray:
    counts = region.get("counts")
    try:
        runs = unpack_runs(counts) if isinstance(counts, str) else np.array(counts, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: the runs can't be read: {error}; mend them") from error
    if runs.ndim != 1 or not len(runs) or (runs < 0).any():
        raise UserError(f"{where}: the runs are not a list of lengths; mend them")
    return runs


def _corners(ring: Any, where: str) -> np.ndarray:
    try:
        points = np.asarray(ring)
    except ValueError:  # lists of several lengths
        points = np.zeros(0)
    listed = points.ndim == 1 and points.size >= 6 and points.size % 2 == 0
    if not listed or points.dtype.kind not in "if" or not np.isfinite(points).all():
        shown = str(ring) if len(str(ring)) < 60 else f"{str(ring)[:60]} …"
        raise UserError(f"{where}: polygon {shown} is not x y x y x y …, at least three points; mend it")
    # Beyond every image anyway; larger numbers would overflow where they are drawn.
    return np.clip(points.astype(np.float64), -1e6, 1e6).reshape(-1, 2)
