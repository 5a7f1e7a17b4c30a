"""Components as records in one flat array: joined by union-find, their boxes, their areas, and which is the largest.

The area of a contour's polygon is known within bounds, which decide most cases; in the others its border is followed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from wsol.jit import jit_inner
from wsol.localization.kernels.pixels import ENCODED_EULER

# A component is known by where its record begins. COUNT is its pixels, AREA2 twice the area of its outline as 2 x 2
# windows of pixels sum it up (tree.py says how). EULER4 is kept modulo 2 ** 32. FILLED is the most that the holes may
# add to the area; LOWER the least that the area may be, and what it is if EXACT. START is the cut at which the box
# became what it is, TOUCHED the last one at which pixels were added.
PARENT, FIRST, COUNT, AREA2, EULER4, X0, Y0, X1, Y1, START, TOUCHED, LOWER, EXACT, FILLED = range(14)
COLUMNS = 14
UNKNOWN = 0xFFFFFFFF
# The label of a pixel that was not added yet.
NO_LABEL = 0xFFFFFFFF


class ComponentRules(NamedTuple):
    """What a protocol says about components, for the kernels."""

    eight: bool  # 8-connectivity, else 4
    contour: bool  # the area of the outer border's polygon, else the number of pixels
    last_wins: bool  # among equal areas the component that begins last in raster order, else the first
    holes: bool  # outlines of holes compete for the best box


class Components(NamedTuple):
    """The components of a map, as far as its pixels were added."""

    labels: np.ndarray  # uint32: each pixel's record, within a frame of NO_LABEL
    records: np.ndarray  # uint32: COLUMNS for each component
    touched: np.ndarray  # uint32: those that changed at a cut


class Log(NamedTuple):
    """Boxes that components grew out of, and at which cut each began."""

    boxes: np.ndarray  # int64, packed
    starts: np.ndarray  # uint32


@jit_inner
def find(records: np.ndarray, root: int) -> int:
    """Root of a record's set, with path halving."""
    root = np.int64(root)
    parent = np.int64(records[root + PARENT])
    while parent != root:
        records[root + PARENT] = records[parent + PARENT]
        root = np.int64(records[root + PARENT])
        parent = np.int64(records[root + PARENT])
    return root


@jit_inner
def new_component(records: np.ndarray, root: int, p: int, x: int, y: int, euler4: int, cut: int) -> None:
    """Write the record of a component of one pixel."""
    records[root + PARENT] = root
    records[root + FIRST] = p
    records[root + COUNT] = 1
    records[root + AREA2] = 0
    records[root + EULER4] = euler4
    records[root + X0] = records[root + X1] = x
    records[root + Y0] = records[root + Y1] = y
    records[root + START] = records[root + TOUCHED] = cut
    records[root + LOWER] = records[root + EXACT] = records[root + FILLED] = 0


@jit_inner
def add_pixel(records: np.ndarray, root: int, p: int, info: int) -> None:
    """Count one more pixel of a component."""
    if p < records[root + FIRST]:
        records[root + FIRST] = p
    records[root + COUNT] += 1
    records[root + AREA2] += info >> 15 & 7
    records[root + EULER4] += (info >> 18) - ENCODED_EULER


@jit_inner
def merge(records: np.ndarray, root: int, other: int, cut: int, log: Log, logged: int) -> tuple[int, int]:
    """Join two components, the one with more pixels stays root: that root, and how many boxes are in the log."""
    if records[other + COUNT] > records[root + COUNT]:
        root, other = other, root
    logged = log_box(records, other, cut, log, logged)
    x0, y0 = np.int64(records[other + X0]), np.int64(records[other + Y0])
    x1, y1 = np.int64(records[other + X1]), np.int64(records[other + Y1])
    if reaches_outside(records, root, x0, y0, x1, y1):
        logged = log_box(records, root, cut, log, logged)
        extend(records, root, x0, y0, x1, y1, cut)
    records[other + PARENT] = root
    records[root + FIRST] = min(records[root + FIRST], records[other + FIRST])
    records[root + LOWER] = max(records[root + LOWER], records[other + LOWER])
    filled = np.int64(records[root + FILLED]) + np.int64(records[other + FILLED])
    records[root + FILLED] = min(filled, UNKNOWN)
    records[root + COUNT] += records[other + COUNT]
    records[root + AREA2] += records[other + AREA2]
    records[root + EULER4] += records[other + EULER4]
    return root, logged


@jit_inner
def pack(x0: int, y0: int, x1: int, y1: int) -> int:
    """Put a box into one integer, four times 16 bits; integers compare like boxes."""
    return np.int64(x0) << 48 | np.int64(y0) << 32 | np.int64(x1) << 16 | np.int64(y1)


def unpack(packed: np.ndarray) -> np.ndarray:
    """Boxes again: (R,) -> (R, 4)."""
    return np.stack([packed >> 48, packed >> 32, packed >> 16, packed], axis=-1) & 0xFFFF


@jit_inner
def packed_box(records: np.ndarray, root: int) -> int:
    """A component's box, packed."""
    return pack(records[root + X0], records[root + Y0], records[root + X1], records[root + Y1])


@jit_inner
def log_box(records: np.ndarray, root: int, cut: int, log: Log, logged: int) -> int:
    """Log a box that does not last beyond the cut before this one; returns how many are in the log.

    At any cut a component does so at most once, so the log needs one place for each.
    """
    if records[root + START] != cut:
        log.boxes[logged] = packed_box(records, root)
        log.starts[logged] = records[root + START]
        logged += 1
    return logged


@jit_inner
def reaches_outside(records: np.ndarray, root: int, x0: int, y0: int, x1: int, y1: int) -> bool:
    """Whether a component's box does not hold another."""
    return x0 < records[root + X0] or x1 > records[root + X1] or y0 < records[root + Y0] or y1 > records[root + Y1]


@jit_inner
def extend(records: np.ndarray, root: int, x0: int, y0: int, x1: int, y1: int, cut: int) -> None:
    """Make a component's box hold another."""
    records[root + START] = cut
    records[root + X0] = min(x0, np.int64(records[root + X0]))
    records[root + Y0] = min(y0, np.int64(records[root + Y0]))
    records[root + X1] = max(x1, np.int64(records[root + X1]))
    records[root + Y1] = max(y1, np.int64(records[root + Y1]))


@jit_inner
def log_all_boxes(records: np.ndarray, begin: int, end: int, cut: int, log: Log) -> int:
    """Log the boxes of all components that are left when there are no more cuts."""
    logged = np.int64(0)
    for root in range(begin, end, COLUMNS):
        if records[root + PARENT] == root:
            logged = log_box(records, root, cut, log, logged)
    return logged


@jit_inner
def any_hole(records: np.ndarray, touched: np.ndarray, n_touched: int) -> bool:
    """Whether a component that changed has another Euler number than 1."""
    for i in range(n_touched):
        if records[touched[i] + PARENT] == touched[i] and records[touched[i] + EULER4] != 4:
            return True
    return False


@jit_inner
def polygon_bounds(records: np.ndarray, root: int, rules: ComponentRules) -> tuple[int, int]:
    """Least and greatest possible area of a component, equal where it is known: its pixels, or twice its outline's."""
    if not rules.contour:
        return np.int64(records[root + COUNT]), np.int64(records[root + COUNT])
    area2, lower = np.int64(records[root + AREA2]), np.int64(records[root + LOWER])
    if records[root + EXACT] != 0:
        return lower, lower
    width = np.int64(records[root + X1]) - np.int64(records[root + X0])
    height = np.int64(records[root + Y1]) - np.int64(records[root + Y0])
    if not rules.eight:
        # A 4-connected component may surround background that reaches out diagonally: the polygon fills it.
        return max(lower, area2), 2 * width * height
    # Without a hole (Euler number 1) the windows say it all. Twice the polygon's area around a hole is at least 4.
    euler4 = np.int64(np.int32(records[root + EULER4]))
    filled = np.int64(records[root + FILLED]) if euler4 != 4 else np.int64(0)
    return max(lower, area2 + 4 - euler4), min(area2 + filled, 2 * width * height)


@jit_inner
def largest_component(
    before: tuple[int, int, int],
    counts: tuple[int, int],
    components: Components,
    cut: int,
    stride: int,
    rules: ComponentRules,
) -> tuple[int, int, int]:
    """Root, first pixel and greatest possible area of the largest component, given those at the cut above.

    Areas only grow, so only a component that changed can overtake it; unless it now begins earlier while its area may
    be what it was: then it may lose a tie against any. `counts`: how many were touched, and where the records end.
    """
    records, touched = components.records, components.touched
    count = np.int64(0)
    for i in range(counts[0]):
        root = np.int64(touched[i])
        if records[root + PARENT] == root:
            touched[count] = root
            count += 1
            if records[root + EULER4] == 4:
                records[root + FILLED] = 0
    begins_earlier = False
    if before[0] >= 0:
        best = find(records, before[0])
        if records[best + TOUCHED] != cut:
            touched[count] = best
            count += 1
        begins_earlier = rules.last_wins and records[best + FIRST] != before[1]
    root = largest_of(count, components, stride, rules)
    if begins_earlier and polygon_bounds(records, root, rules)[0] <= before[2]:
        count = np.int64(0)
        for other in range(0, counts[1], COLUMNS):
            if records[other + PARENT] == other:
                touched[count] = other
                count += 1
        root = largest_of(count, components, stride, rules)
    return root, np.int64(records[root + FIRST]), polygon_bounds(records, root, rules)[1]


@jit_inner
def largest_of(count: int, components: Components, stride: int, rules: ComponentRules) -> int:
    """Root of the largest of the touched components; a border is followed only where bounds do not decide."""
    labels, records, touched = components.labels, components.records, components.touched
    leader, floor, rivals = np.int64(touched[0]), np.int64(-1), 0
    for i in range(count):
        low = polygon_bounds(records, np.int64(touched[i]), rules)[0]
        if low > floor:
            leader, floor = np.int64(touched[i]), low
    for i in range(count):
        rivals += polygon_bounds(records, np.int64(touched[i]), rules)[1] >= floor
    if rivals == 1:
        return leader
    # The one that is surely large goes first: once its area is known, few others come into question.
    winner, winner_area = np.int64(-1), np.int64(-1)
    for i in range(-1, count):
        root = np.int64(touched[i]) if i >= 0 else leader
        area, high = polygon_bounds(records, root, rules)
        if high < winner_area or root == winner:
            continue
        if area < high:
            area = np.int64(border_area(labels, records, root, stride, rules.eight))
            records[root + LOWER] = area
            records[root + EXACT] = 1
            records[root + FILLED] = area - np.int64(records[root + AREA2])
        if area > winner_area or (
            area == winner_area and (records[root + FIRST] > records[winner + FIRST]) == rules.last_wins
        ):
            winner, winner_area = root, area
    return winner


@jit_inner
def border_area(labels: np.ndarray, records: np.ndarray, root: int, stride: int, eight: bool) -> int:
    """Twice the area of the polygon through the centers of a component's outer border pixels, followed once around.

    `labels` lie within a frame of NO_LABEL; with 4-connectivity they tell a component from its diagonal neighbors.
    """
    dx = (-1, -1, 0, 1, 1, 1, 0, -1)
    dy = (0, -1, -1, -1, 0, 1, 1, 1)
    steps = np.array([-1, -stride - 1, -stride, -stride + 1, 1, stride + 1, stride, stride - 1])
    start = np.int64(records[root + FIRST])
    # What lies before the first pixel in raster order is outside, so the search begins in the west, counterclockwise:
    # this finds the pixel from which the walk will come back.
    back, d = np.int64(-1), 0
    for k in range(8):
        d = (8 - k) & 7
        if belongs(labels, records, start + steps[d], root, eight):
            back = start + steps[d]
            break
    if back < 0:
        return 0
    p = start
    x = y = total = 0
    while True:
        # Clockwise, beginning behind the pixel that the walk came from.
        d = (d + 1) & 7
        q = p + steps[d]
        while not belongs(labels, records, q, root, eight):
            d = (d + 1) & 7
            q = p + steps[d]
        total += x * dy[d] - y * dx[d]
        x += dx[d]
        y += dy[d]
        if q == start and p == back:
            return abs(total)
        p = q
        d = (d + 4) & 7


@jit_inner
def belongs(labels: np.ndarray, records: np.ndarray, p: int, root: int, eight: bool) -> bool:
    """Whether a pixel next to one of the component belongs to it."""
    label = np.int64(labels[p])
    return label != NO_LABEL and (eight or find(records, label) == root)
