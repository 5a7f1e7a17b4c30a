"""A component's area, and which is the largest: bounds decide most cases, a walk around the border the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from wsol.jit import jit_inner
from wsol.localization.kernels.records import (
    AREA2,
    COLUMNS,
    COUNT,
    EULER4,
    EXACT,
    FILLED,
    FIRST,
    LOWER,
    NO_LABEL,
    PARENT,
    TOUCHED,
    X0,
    X1,
    Y0,
    Y1,
    find,
)

__all__ = ["ComponentRules", "Components", "largest_component"]


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


@jit_inner
def polygon_bounds(records: np.ndarray, root: int, rules: ComponentRules) -> tuple[int, int]:
    """Least and greatest possible area of a component; equal where it is known."""
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
