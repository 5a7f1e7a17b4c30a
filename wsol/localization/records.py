"""Components as records in one flat array, joined by union-find, and the contest of their boxes at every cut."""

from __future__ import annotations

import numpy as np

from wsol.compiled import inner
from wsol.localization.boxes import best_iou

__all__ = ["COLUMNS", "begin", "extend", "find", "merge", "offer_all", "pack", "retire"]

# A component is known by where its record begins. EULER4 is kept modulo 2 ** 32. FILLED is the most that the holes may
# add to the area; LOWER the least that the area may be, and what it is if EXACT.
PARENT, FIRST, COUNT, AREA2, EULER4, X0, Y0, X1, Y1, START, TOUCHED, LOWER, EXACT, FILLED = range(14)
COLUMNS = 14
UNKNOWN = 0xFFFFFFFF
# The label of a pixel that was not added yet.
NO_LABEL = 0xFFFFFFFF


@inner
def find(records: np.ndarray, root: int) -> int:
    """Root of a record's set, with path halving."""
    root = np.int64(root)
    parent = np.int64(records[root + PARENT])
    while parent != root:
        records[root + PARENT] = records[parent + PARENT]
        root = np.int64(records[root + PARENT])
        parent = np.int64(records[root + PARENT])
    return root


@inner
def begin(records: np.ndarray, root: int, p: int, x: int, y: int, euler4: int, cut: int) -> None:
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


@inner
def pack(x0: int, y0: int, x1: int, y1: int) -> int:
    """Put a box into one integer, four times 16 bits; integers compare like boxes."""
    return np.int64(x0) << 48 | np.int64(y0) << 32 | np.int64(x1) << 16 | np.int64(y1)


@inner
def extend(
    records: np.ndarray,
    root: int,
    box: tuple[int, int, int, int],
    cut: int,
    log: tuple[np.ndarray, np.ndarray],
    logged: int,
) -> int:
    """Enlarge a component's box and log the old one; returns how many are in the log."""
    x0, y0 = np.int64(records[root + X0]), np.int64(records[root + Y0])
    x1, y1 = np.int64(records[root + X1]), np.int64(records[root + Y1])
    if box[0] < x0 or box[1] < y0 or box[2] > x1 or box[3] > y1:
        logged = retire(records, root, cut, log, logged)
        records[root + START] = cut
        records[root + X0] = min(box[0], x0)
        records[root + Y0] = min(box[1], y0)
        records[root + X1] = max(box[2], x1)
        records[root + Y1] = max(box[3], y1)
    return logged


@inner
def retire(records: np.ndarray, root: int, cut: int, log: tuple[np.ndarray, np.ndarray], logged: int) -> int:
    """Log a box that does not last beyond the cut before this one, with the cut at which it began.

    At any cut a component does so at most once, so the log needs one place for each.
    """
    if records[root + START] != cut:
        log[0][logged] = pack(records[root + X0], records[root + Y0], records[root + X1], records[root + Y1])
        log[1][logged] = records[root + START]
        logged += 1
    return logged


@inner
def offer_all(
    log: tuple[np.ndarray, np.ndarray], logged: int, cut: int, grown: int, contest: tuple[np.ndarray, ...]
) -> None:
    """Let the boxes in the log compete at all cuts from where they began to the one before this.

    Cuts go down for the foreground (`grown` 0) and up for holes (`grown` 1: what is added to the box on each side).
    `contest` is (truth, rules, ious, boxes): the last two are a segment tree over the cuts, which holds the best IoU
    and, among equals, the least packed box.
    """
    truth, rules, ious, boxes = contest
    cuts = len(ious) // 2
    for i in range(logged):
        box, start = log[0][i], np.int64(log[1][i])
        x0, y0 = (box >> 48) - grown, (box >> 32 & 0xFFFF) - grown
        x1, y1 = (box >> 16 & 0xFFFF) + grown, (box & 0xFFFF) + grown
        iou = best_iou(x0, y0, x1, y1, truth, rules)
        if iou <= 0:
            continue
        box = pack(x0, y0, x1, y1)
        left, right = cuts + min(start, cut + 1), cuts + max(start + 1, cut)  # type: ignore[operator]
        while left < right:
            if left & 1:
                if iou > ious[left] or (iou == ious[left] and box < boxes[left]):
                    ious[left], boxes[left] = iou, box
                left += 1
            if right & 1:
                right -= 1
                if iou > ious[right] or (iou == ious[right] and box < boxes[right]):
                    ious[right], boxes[right] = iou, box
            left >>= 1
            right >>= 1


@inner
def merge(
    records: np.ndarray, root: int, other: int, cut: int, log: tuple[np.ndarray, np.ndarray], logged: int
) -> tuple[int, int]:
    """Join two components; the one with more pixels stays root."""
    if records[other + COUNT] > records[root + COUNT]:
        root, other = other, root
    logged = retire(records, other, cut, log, logged)
    x0, y0 = np.int64(records[other + X0]), np.int64(records[other + Y0])
    x1, y1 = np.int64(records[other + X1]), np.int64(records[other + Y1])
    logged = extend(records, root, (x0, y0, x1, y1), cut, log, logged)
    records[other + PARENT] = root
    records[root + FIRST] = min(records[root + FIRST], records[other + FIRST])
    records[root + LOWER] = max(records[root + LOWER], records[other + LOWER])
    filled = np.int64(records[root + FILLED]) + np.int64(records[other + FILLED])
    records[root + FILLED] = min(filled, UNKNOWN)
    records[root + COUNT] += records[other + COUNT]
    records[root + AREA2] += records[other + AREA2]
    records[root + EULER4] += records[other + EULER4]
    return root, logged
