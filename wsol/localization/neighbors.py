"""What a pixel's eight neighbors decide when it is added, by which of them are there already; and in which order."""

from __future__ import annotations

import numpy as np

from wsol.compiled import compiled, inner

__all__ = ["TABLES", "neighbor_masks", "offsets", "sort_pixels"]

# Neighbors are numbered clockwise from the left; the first four come earlier in raster order.


def _groups(mask: int, connectivity: int) -> list[int]:
    """One neighbor for each group of those present that hang together without the center."""
    ring = [k for k in range(8) if mask >> k & 1]
    group = {k: k for k in ring}

    def join(a: int, b: int) -> None:
        if a in group and b in group:
            low, high = sorted((group[a], group[b]))
            group.update({k: low for k in ring if group[k] == high})

    for k in range(8):
        join(k, (k + 1) % 8)
        if connectivity == 8 and k % 2 == 0:
            join(k, (k + 2) % 8)
    members = [k for k in ring if connectivity == 8 or k % 2 == 0]
    return sorted({min(k for k in members if group[k] == g) for g in {group[k] for k in members}})


def _window_gains(mask: int) -> tuple[int, int]:
    """What the center adds to twice the polygon's area and to four times the Euler number (8-connected)."""
    area2 = euler4 = 0
    for k in (0, 2, 4, 6):
        sides = (mask >> k & 1) + (mask >> (k + 2) % 8 & 1)
        corner = mask >> (k + 1) & 1
        # A window counts +1 with one pixel, -1 with three, -2 with two on a diagonal.
        before = {(0, 0): 0, (1, 0): 1, (2, 0): -2, (0, 1): 1, (1, 1): 0, (2, 1): -1}[sides, corner]
        after = {(0, 0): 1, (1, 0): 0, (2, 0): -1, (0, 1): -2, (1, 1): -1, (2, 1): 0}[sides, corner]
        area2 += sides + corner >= 2
        euler4 += after - before
    return area2, euler4


def _table(connectivity: int) -> np.ndarray:
    """Pack for each mask: bits 0-2 number of groups, 3-14 a neighbor of each, 15-17 area, from 18 Euler number + 16."""
    table = np.zeros(256, np.uint32)
    for mask in range(256):
        groups = _groups(mask, connectivity)
        area2, euler4 = _window_gains(mask)
        table[mask] = len(groups) | area2 << 15 | (euler4 + 16) << 18
        for position, neighbor in enumerate(groups):
            table[mask] |= neighbor << (3 + 3 * position)
    return table


TABLES = np.stack([_table(4), _table(8)])


@inner
def offsets(stride: int) -> np.ndarray:
    """Where the neighbors lie in a flat array, counted from the upper left one, so that nothing is negative."""
    found = np.empty(8, np.uint32)
    found[0], found[1], found[2], found[3] = stride, 0, 1, 2
    found[4], found[5], found[6], found[7] = stride + 2, 2 * stride + 2, 2 * stride + 1, 2 * stride
    return found


@compiled
def neighbor_masks(bins: np.ndarray, height: int, width: int, direction: int, masks: np.ndarray) -> None:
    """For each pixel the neighbors that are added before it.

    Parameters
    ----------
    bins : flat array of unsigned integers ((height + 2) * (width + 2),)
        Within a frame of zeros.
    height, width : int
        Without the frame.
    direction : 1 or -1
        Pixels are added from the lowest bin up (background), or from the highest down (foreground); in raster order
        within a bin.
    masks : flat array of uint8, like `bins`
        Written: bit k for neighbor k. Going upward, the frame is there before everything else.
    """
    stride = width + 2
    for y in range(1, height + 1):
        at = y * stride + 1
        center, out = bins[at : at + width], masks[at : at + width]
        w, e = bins[at - 1 : at - 1 + width], bins[at + 1 : at + 1 + width]
        up, down = at - stride, at + stride
        nw, n, ne = bins[up - 1 : up - 1 + width], bins[up : up + width], bins[up + 1 : up + 1 + width]
        sw, s, se = bins[down - 1 : down - 1 + width], bins[down : down + width], bins[down + 1 : down + 1 + width]
        if direction > 0:
            for x in range(width):
                c = center[x]
                out[x] = (
                    np.uint8(w[x] <= c)
                    | np.uint8(nw[x] <= c) << 1
                    | np.uint8(n[x] <= c) << 2
                    | np.uint8(ne[x] <= c) << 3
                    | np.uint8(e[x] < c) << 4
                    | np.uint8(se[x] < c) << 5
                    | np.uint8(s[x] < c) << 6
                    | np.uint8(sw[x] < c) << 7
                )
        else:
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
    if direction > 0:
        for y in range(1, height + 1):
            masks[y * stride + 1] |= 1
            masks[y * stride + width] |= 16
        for x in range(1, width + 1):
            masks[stride + x] |= 4
            masks[height * stride + x] |= 64


@compiled
def sort_pixels(bins: np.ndarray, height: int, width: int, starts: np.ndarray, order: np.ndarray) -> None:
    """Counting sort: pixels by bin, in raster order within a bin.

    Parameters
    ----------
    bins : flat array of unsigned integers
        Within a frame, as above; values in 0 .. J.
    height, width : int
        Without the frame.
    starts : array of uint32 (J + 2,)
        Written: where each bin begins in `order`, and the end.
    order : array of uint32 (at least height * width,)
        Written: pixels as `y << 16 | x`.
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
