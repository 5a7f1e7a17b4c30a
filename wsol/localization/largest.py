"""Which component is the largest, at each cut: bounds decide most cases, a walk around the border the others."""

from __future__ import annotations

import numpy as np

from wsol.compiled import inner
from wsol.localization.border import trace_area
from wsol.localization.records import (
    AREA2,
    COLUMNS,
    COUNT,
    EULER4,
    EXACT,
    FILLED,
    FIRST,
    LOWER,
    PARENT,
    TOUCHED,
    X0,
    X1,
    Y0,
    Y1,
    find,
)

__all__ = ["CONTOUR", "EIGHT", "HOLES", "LAST_WINS", "largest_component", "polygon_bounds"]

# Of the rules that the kernel knows.
EIGHT, CONTOUR, LAST_WINS, HOLES = range(4)


@inner
def polygon_bounds(records: np.ndarray, root: int, settings: tuple[bool, bool, bool, bool]) -> tuple[int, int]:
    """Least and greatest possible area of a component; equal where it is known."""
    if not settings[CONTOUR]:
        return np.int64(records[root + COUNT]), np.int64(records[root + COUNT])
    area2, lower = np.int64(records[root + AREA2]), np.int64(records[root + LOWER])
    if records[root + EXACT] != 0:
        return lower, lower
    width = np.int64(records[root + X1]) - np.int64(records[root + X0])
    height = np.int64(records[root + Y1]) - np.int64(records[root + Y0])
    if not settings[EIGHT]:
        # A 4-connected component may surround background that reaches out diagonally: the polygon fills it.
        return max(lower, area2), 2 * width * height
    # Without a hole (Euler number 1) the windows say it all. Twice the polygon's area around a hole is at least 4.
    euler4 = np.int64(np.int32(records[root + EULER4]))
    filled = np.int64(records[root + FILLED]) if euler4 != 4 else np.int64(0)
    return max(lower, area2 + 4 - euler4), min(area2 + filled, 2 * width * height)


@inner
def largest_of(
    count: int,
    scratch: tuple[np.ndarray, ...],
    stride: int,
    settings: tuple[bool, bool, bool, bool],
) -> int:
    """Root of the largest among the components in `touched`; a border is followed only where bounds do not decide."""
    labels, records, touched = scratch
    leader, floor, rivals = np.int64(touched[0]), np.int64(-1), 0
    for i in range(count):
        low = polygon_bounds(records, np.int64(touched[i]), settings)[0]
        if low > floor:
            leader, floor = np.int64(touched[i]), low
    for i in range(count):
        rivals += polygon_bounds(records, np.int64(touched[i]), settings)[1] >= floor
    if rivals == 1:
        return leader
    # The one that is surely large goes first: once its area is known, few others come into question.
    winner, winner_area = np.int64(-1), np.int64(-1)
    for i in range(-1, count):
        root = np.int64(touched[i]) if i >= 0 else leader
        area, high = polygon_bounds(records, root, settings)
        if high < winner_area or root == winner:
            continue
        if area < high:
            area = np.int64(trace_area(labels, records, root, stride, settings[EIGHT]))
            records[root + LOWER] = area
            records[root + EXACT] = 1
            records[root + FILLED] = area - np.int64(records[root + AREA2])
        if area > winner_area or (
            area == winner_area and (records[root + FIRST] > records[winner + FIRST]) == settings[LAST_WINS]
        ):
            winner, winner_area = root, area
    return winner


@inner
def largest_component(
    before: tuple[int, int, int],
    counts: tuple[int, int],
    scratch: tuple[np.ndarray, ...],
    cut: int,
    stride: int,
    settings: tuple[bool, bool, bool, bool],
) -> int:
    """Root of the largest component, given (root, first pixel, greatest possible area) of that of the cut above.

    Areas only grow, so only a component that changed can overtake it; unless it now begins earlier while its area may
    be what it was: then it may lose a tie against any.
    """
    _, records, touched = scratch
    n_touched, end = counts
    count = np.int64(0)
    for i in range(n_touched):
        root = np.int64(touched[i])
        if records[root + PARENT] == root:
            touched[count] = root
            count += 1
            if records[root + EULER4] == 4:
                records[root + FILLED] = 0
    if before[0] < 0:
        return largest_of(count, scratch, stride, settings)
    best = find(records, before[0])
    if records[best + TOUCHED] != cut:
        touched[count] = best
        count += 1
    root = largest_of(count, scratch, stride, settings)
    moved = settings[LAST_WINS] and records[best + FIRST] != before[1]
    if moved and polygon_bounds(records, root, settings)[0] <= before[2]:
        count = np.int64(0)
        for other in range(0, end, COLUMNS):
            if records[other + PARENT] == other:
                touched[count] = other
                count += 1
        root = largest_of(count, scratch, stride, settings)
    return root
