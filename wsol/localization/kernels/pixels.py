"""Pixels: maps enlarged to their size, how many cuts each passes, and which neighbors are there when it is added."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from wsol.errors import UserError
from wsol.jit import jit, jit_inner
from wsol.localization.protocol import Protocol

BUCKETS = 4096
ENCODED_EULER = 16  # added to Euler numbers in the neighbor table, so that nothing is negative


class Cuts(NamedTuple):
    """Thresholds, and the distinct cuts that they come down to."""

    thresholds: np.ndarray  # float64 (T,), increasing
    first: np.ndarray  # int64 (J,): the first threshold of each cut; cuts increase with the thresholds


def bin_pixels(score_map: np.ndarray, protocol: Protocol, buffer: np.ndarray) -> tuple[Cuts, np.ndarray]:
    """Cuts of a map (float64, contiguous), and each pixel's bin within a frame of zeros: ((H + 2) * (W + 2),).

    The bins are uint8, uint16 or int32, as their number wants it: a view of the buffer (uint8, four times as long).
    They are all zero if the map has no positive value, once quantized. Refuses values that are NaN or outside [0, 1].
    """
    levels, every_value = protocol.levels, protocol.thresholds == "levels"
    n = (score_map.shape[0] + 2) * (score_map.shape[1] + 2)
    if levels is None:
        values, bins, top = score_map, buffer[:n], float(score_map.max())
        bad = not (score_map.min() >= 0 and top <= 1)
    else:
        values = bins = buffer[:n] if levels <= 256 and not every_value else buffer[: 4 * n].view(np.int32)
        bad, top = quantize(score_map, float(levels - 1), bins)
    if bad:
        raise _outside(score_map)
    if top == 0:  # one cut, which no pixel passes
        bins[:] = 0
        return Cuts(np.zeros(1) if every_value else _grid(protocol), np.zeros(1, np.int64)), bins
    full = _full(protocol, top, bins if levels else score_map, score_map.shape)
    if levels is None:
        cuts, values = _cuts(protocol, full, top, values)
        kind = np.uint8 if len(values) <= 255 else np.uint16 if len(values) <= 65535 else np.int32
        bins = buffer[: n * kind().itemsize].view(kind)
        # Where to begin the search for a value; mostly the answer, or the one before it.
        buckets = np.searchsorted(values, np.linspace(0.0, 1.0, BUCKETS + 1) * values[-1]).astype(np.int32)
        crowded = len(values) > 1 and bool(np.diff(values).min() * BUCKETS < 2 * values[-1])
        place(score_map, np.append(values, np.inf), buckets, protocol.pixel_comparison == ">", crowded, bins)
        return cuts, bins
    cuts, table = _quantized_cuts(protocol, full, top, values) if every_value else _grid_cuts(protocol, full, top)
    if table is not None:
        look_up(table, score_map.shape[1] + 2, bins)
    return cuts, bins


def _full(protocol: Protocol, top: float, values: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return what tau is multiplied with, for a map with that maximum; quantized values lie within a frame."""
    if protocol.cut_of == "max":
        return top
    if protocol.cut_of == "absolute":
        return 1.0 if protocol.levels is None else protocol.levels - 1
    inside = values if values.ndim == 2 else values.reshape(shape[0] + 2, shape[1] + 2)[1:-1, 1:-1]
    return float(np.percentile(inside, protocol.cut_of))


def _cuts(protocol: Protocol, full: float, top: float, values: np.ndarray | None) -> tuple[Cuts, np.ndarray]:
    """Cuts of a map with that maximum, and what pixels are compared with; its values count if each is a threshold."""
    if protocol.thresholds == "levels":
        compared = np.union1d([0.0], values)
        if protocol.pixel_comparison == ">":  # above the maximum there is nothing
            compared = compared[:-1]
        return Cuts(compared / full, np.arange(len(compared))), compared
    products = _grid(protocol) * full
    products = products if protocol.levels is None else products.astype(np.int64)
    compared, first = np.unique(products, return_index=True)
    return Cuts(_grid(protocol), first), compared


def _quantized_cuts(
    protocol: Protocol, full: float, top: int, values: np.ndarray | None
) -> tuple[Cuts, np.ndarray | None]:
    """Cuts of a quantized map, and the bin of each integer (None: the integer itself)."""
    cuts, compared = _cuts(protocol, full, top, values)
    integers = np.arange(top + 1)
    bins = np.searchsorted(compared, integers, side="left" if protocol.pixel_comparison == ">" else "right")
    return cuts, None if np.array_equal(bins, integers) else bins


@lru_cache(maxsize=1024)
def _grid_cuts(protocol: Protocol, full: float, top: int) -> tuple[Cuts, np.ndarray | None]:
    return _quantized_cuts(protocol, full, top, None)


@lru_cache(maxsize=64)
def _grid(protocol: Protocol) -> np.ndarray:
    return protocol.grid()


def _outside(score_map: np.ndarray) -> UserError:
    wrong = ~((score_map >= 0) & (score_map <= 1))
    y, x = np.unravel_index(int(wrong.argmax()), wrong.shape)
    return UserError(
        f"score map has {score_map[y, x]} at row {y}, column {x} "
        f"({int(wrong.sum())} values are NaN or outside [0, 1]): "
        "normalize it first, with wsol.score_map or by hand"
    )


@jit
def quantize(score_map: np.ndarray, scale: float, out: np.ndarray) -> tuple[bool, int]:
    """Truncate `value * scale` into the inside of a flat array, and zero its frame.

    Returns whether a value was NaN or outside [0, 1], and the greatest integer.
    """
    height, width = score_map.shape
    stride = width + 2
    out[:stride] = 0
    out[(height + 1) * stride : (height + 2) * stride] = 0
    bad = 0
    for y in range(height):
        row = out[(y + 1) * stride : (y + 2) * stride]
        row[0] = row[width + 1] = 0
        inside, source = row[1 : width + 1], score_map[y]
        for x in range(width):
            value = source[x]
            bad += not (value >= 0 and value <= 1)
            inside[x] = np.int32(value * scale)
    top = 0
    for i in range((height + 2) * stride):
        top = max(top, out[i])
    return bad > 0, top


@jit
def look_up(table: np.ndarray, stride: int, out: np.ndarray) -> None:
    """Replace each integer within the frame by what the table says."""
    for y in range(1, len(out) // stride - 1):
        for i in range(y * stride + 1, (y + 1) * stride - 1):
            out[i] = table[out[i]]


@jit
def place(
    score_map: np.ndarray, cuts: np.ndarray, buckets: np.ndarray, strict: bool, crowded: bool, out: np.ndarray
) -> None:
    """Write for each value the number of cuts that it passes into the inside of a flat array, and zero its frame.

    `cuts` end with an infinite one; `buckets` say how many lie before each of equally wide ones. Unless cuts are
    `crowded`, two are at least as far from each other as two buckets are wide.
    """
    height, width = score_map.shape
    last, most = cuts[len(cuts) - 2], float(len(buckets) - 1)
    # A little less, so that rounding never leads to the bucket behind.
    scale = most / last * (1 - 1e-12) if last > 0 else 0.0
    out[:] = 0
    for y in range(height):
        row, source = out[(y + 1) * (width + 2) + 1 : (y + 2) * (width + 2) - 1], score_map[y]
        for x in range(width):  # without jumps, which would often be foreseen wrongly
            b = np.int64(buckets[int(min(source[x] * scale, most))])
            row[x] = b + ((source[x] > cuts[b]) | ((source[x] == cuts[b]) & (not strict)))
        for x in range(width if crowded else 0):
            b = np.int64(row[x])
            while source[x] > cuts[b] or (not strict and source[x] == cuts[b]):
                b += 1
            row[x] = b


# Neighbors are numbered clockwise from the left; the first four come earlier in raster order.


def _groups(mask: int, eight: bool) -> list[int]:
    """One neighbor for each group of those present that hang together without the center."""
    group = {k: k for k in range(8) if mask >> k & 1}
    for k in range(8):
        for other in (k + 1, k + 2) if eight and k % 2 == 0 else (k + 1,):
            if k in group and other % 8 in group:
                low, high = sorted((group[k], group[other % 8]))
                group = {member: low if of == high else of for member, of in group.items()}
    members = [k for k in group if eight or k % 2 == 0]
    return sorted({group[k]: k for k in reversed(members)}.values())


def _euler4(count: int, diagonal: bool) -> int:
    """What a window of 2 x 2 with so many pixels adds to four times the Euler number (8-connected)."""
    return (0, 1, -2 if diagonal else 0, -1, 0)[count]


def _table(eight: bool) -> np.ndarray:
    """Pack for each mask: bits 0-2 number of groups, 3-14 a neighbor of each, 15-17 area, from 18 the Euler number."""
    table = np.zeros(256, np.uint32)
    for mask in range(256):
        groups, area2, euler4 = _groups(mask, eight), 0, ENCODED_EULER
        for k in (0, 2, 4, 6):
            sides, corner = (mask >> k & 1) + (mask >> (k + 2) % 8 & 1), mask >> (k + 1) & 1
            area2 += sides + corner >= 2
            euler4 += _euler4(sides + corner + 1, sides == 0) - _euler4(sides + corner, corner == 0)
        table[mask] = len(groups) | area2 << 15 | euler4 << 18
        for position, neighbor in enumerate(groups):
            table[mask] |= neighbor << (3 + 3 * position)
    return table


NEIGHBOR_TABLES = np.stack([_table(False), _table(True)])


@jit_inner
def offsets(width: int) -> np.ndarray:
    """Where the neighbors lie in a flat array, counted from the upper left one, so that nothing is negative."""
    stride = np.uint32(width + 2)
    around = np.empty(8, np.uint32)
    around[0], around[1], around[2], around[3] = stride, 0, 1, 2
    around[4], around[5], around[6], around[7] = stride + 2, 2 * stride + 2, 2 * stride + 1, 2 * stride
    return around


@jit
def neighbor_masks(bins: np.ndarray, height: int, width: int, masks: np.ndarray) -> None:
    """For each pixel the neighbors that are added before it, the highest bin first, in raster order within a bin.

    `bins` lie within a frame; in `masks` (uint8) bit k is written for neighbor k.
    """
    stride = width + 2
    for y in range(1, height + 1):
        at = y * stride + 1
        up, down = at - stride, at + stride
        center, out = bins[at : at + width], masks[at : at + width]
        w, e = bins[at - 1 : at - 1 + width], bins[at + 1 : at + 1 + width]
        nw, n, ne = bins[up - 1 : up - 1 + width], bins[up : up + width], bins[up + 1 : up + 1 + width]
        sw, s, se = bins[down - 1 : down - 1 + width], bins[down : down + width], bins[down + 1 : down + 1 + width]
        for x in range(width):
            c = center[x]
            out[x] = (
                np.uint8(w[x] >= c)
                | np.uint8(nw[x] >= c) << 1
                | np.uint8(n[x] >= c) << 2
                | np.uint8(ne[x] >= c) << 3
                | np.uint8(e[x] > c) << 4
                | np.uint8(se[x] > c) << 5
                | np.uint8(s[x] > c) << 6
                | np.uint8(sw[x] > c) << 7
            )


def mark_frame(masks: np.ndarray, width: int) -> None:
    """Write into the masks that the frame is there before everything else."""
    inside = masks.reshape(-1, width + 2)[1:-1, 1:-1]
    inside[:, 0] |= 1
    inside[0] |= 4
    inside[:, -1] |= 16
    inside[-1] |= 64


@jit
def sort_pixels(bins: np.ndarray, height: int, width: int, starts: np.ndarray, order: np.ndarray) -> None:
    """Counting sort: pixels as `y << 16 | x` by bin, in raster order within a bin.

    `starts` (J + 2,) is where each of the J + 1 bins begins in `order`, and the end.
    """
    stride = width + 2
    # The upper and the lower half are counted apart: neighbors often share a bin, and two independent counters are
    # waited for half as long.
    half = height // 2
    upper, lower = np.zeros(len(starts), np.uint32), np.zeros(len(starts), np.uint32)
    for y in range(height - half):
        a, b = (y + 1) * stride + 1, (y + 1 + half) * stride + 1
        for x in range(width):
            if y < half:
                upper[bins[a + x]] += 1
            lower[bins[b + x]] += 1
    total = np.int64(0)
    for j in range(len(starts)):
        starts[j] = total
        count, more = np.int64(upper[j]), np.int64(lower[j])
        upper[j] = total
        lower[j] = total + count
        total += count + more
    for y in range(height - half):
        a, b = (y + 1) * stride + 1, (y + 1 + half) * stride + 1
        for x in range(width):
            if y < half:
                order[upper[bins[a + x]]] = y << 16 | x
                upper[bins[a + x]] += 1
            order[lower[bins[b + x]]] = (y + half) << 16 | x
            lower[bins[b + x]] += 1


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


@lru_cache(maxsize=512)
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
    taps = min(old, len(parts))
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
