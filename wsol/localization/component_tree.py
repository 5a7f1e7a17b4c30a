"""One pass over the pixels gives the boxes of all components at all cuts: union-find from the brightest pixel down.

A *cut* is a distinct value that pixels are compared with; `J` cuts are numbered upwards. Every pixel has a *bin*: the
number of cuts that it passes, so that it is foreground at cut `j` where `bin > j`. Pixels are sorted by bin (counting
sort) and added from the highest bin down; each joins the components around it. What a component needs (box, pixel
count, polygon area, Euler number) changes by an amount that only the eight neighbors decide, so it is looked up in a
table of 256 entries.

The polygon through the centers of a component's outer border has twice the area `2 * n4 + n3`, where `n4` and `n3`
count the 2 x 2 windows with four and three pixels of the component, if it has no hole; the Euler number, from windows
as well, tells. Where there is a hole and it may matter, the border is followed.

Holes are components of the background: the same union-find from the darkest pixel up, with the other connectivity; what
reaches the frame is outside.
"""

from __future__ import annotations

import numpy as np

from wsol.compiled import compiled, inner
from wsol.localization.boxes import best_iou, most_overlap
from wsol.localization.largest import EIGHT, HOLES, largest_component, polygon_bounds
from wsol.localization.neighbors import TABLES, neighbor_masks, offsets, sort_pixels
from wsol.localization.records import (
    AREA2,
    COLUMNS,
    COUNT,
    EULER4,
    EXACT,
    FILLED,
    FIRST,
    NO_LABEL,
    PARENT,
    START,
    TOUCHED,
    UNKNOWN,
    X0,
    X1,
    Y0,
    Y1,
    begin,
    extend,
    find,
    merge,
    offer_all,
    pack,
    retire,
)

__all__ = ["sweep_bins"]

ENCODED_EULER = 16


def sweep_bins(
    bins: np.ndarray,
    size: tuple[int, int],
    first: np.ndarray,
    truth: np.ndarray,
    rules: np.ndarray,
    settings: tuple[bool, bool, bool, bool],
    scratch: tuple[np.ndarray, ...],
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Boxes and IoUs of the largest and of the best component at every cut, run-length coded.

    Parameters
    ----------
    bins : flat array of unsigned integers ((height + 2) * (width + 2),)
        For each pixel how many cuts it passes, within a frame of zeros.
    size : (width, height)
        Without the frame.
    first : array of int64 (J,)
        The first threshold of each cut.
    truth, rules
        See `wsol.localization.boxes.best_iou`.
    settings : four bools
        8-connectivity (else 4); area of the contour (else pixels); the last of equals wins (else the first); outlines
        of holes compete for the best box.
    scratch : (masks uint8, order uint32, labels uint32, records uint32, touched uint32, log int64, log uint32)
        Overwritten. The first three as long as `bins`; for each of half as many components (and two more) COLUMNS of
        records, and one in each of the others.

    Returns
    -------
    (first threshold (R,), packed boxes (R,), IoUs (R,)) of the largest component, and of the best one
        Packed boxes have inclusive corners; -1 where there is no component.
    """
    # The kernels are called one by one: compiled into one function they get slower, and take longer to compile.
    masks, order, scratch = scratch[0][: len(bins)], scratch[1], scratch[2:]
    (width, height), cuts = size, len(first)
    starts = np.empty(cuts + 2, np.uint32)
    boxes, ious = np.empty(cuts, np.int64), np.empty(cuts)
    contest = (truth, rules, np.zeros(2 * cuts), np.zeros(2 * cuts, np.int64))
    pixels = (masks, order, starts)
    sort_pixels(bins, height, width, starts, order)
    neighbor_masks(bins, height, width, -1, masks)
    holes = grow_components(pixels, scratch, width, settings, contest, boxes, ious)
    largest = encode_runs(first, boxes, ious)
    if holes and settings[HOLES]:
        neighbor_masks(bins, height, width, 1, masks)
        grow_holes(pixels, scratch, width, not settings[EIGHT], contest)
    take_best(contest[2], contest[3], boxes, ious)
    return largest, encode_runs(first, boxes, ious)


@compiled
def grow_components(
    pixels: tuple[np.ndarray, ...],
    scratch: tuple[np.ndarray, ...],
    width: int,
    settings: tuple[bool, bool, bool, bool],
    contest: tuple[np.ndarray, ...],
    boxes: np.ndarray,
    ious: np.ndarray,
) -> bool:
    """Add pixels from the highest bin down; write the largest component's box and IoU at each cut.

    Returns whether a component had a hole at any cut, or might have had one.
    """
    masks, order, starts = pixels
    truth, rules, _, _ = contest
    labels, records, touched, log = scratch[0], scratch[1], scratch[2], (scratch[3], scratch[4])
    table = TABLES[1 if settings[EIGHT] else 0]
    stride = np.int64(np.uint32(width + 2))
    around = offsets(stride)
    labels[: len(masks)] = NO_LABEL
    # Numbers of one type from the start: a literal would have every function below compiled once more.
    end = zero = np.int64(0)
    none = np.int64(-1)
    best, first, area, box, iou, holes = none, none, none, none, 0.0, not settings[EIGHT]
    for cut in range(len(starts) - 3, -1, -1):
        n_touched = logged = np.int64(0)
        for i in range(starts[cut + 1], starts[cut + 2]):
            y, x = np.int64(order[i] >> 16), np.int64(order[i] & 0xFFFF)
            corner = y * stride + x
            p = corner + stride + 1
            info = np.int64(table[masks[p]])
            groups = info & 7
            if groups == 0:
                begin(records, end, p, x, y, (info >> 18) - ENCODED_EULER, cut)
                touched[n_touched] = labels[p] = end
                end += COLUMNS
                n_touched += 1
                continue
            root = np.int64(labels[corner + around[info >> 3 & 7]])
            if records[root + PARENT] != root:
                root = find(records, root)
            for k in range(1, groups):
                other = find(records, np.int64(labels[corner + around[info >> (3 + 3 * k) & 7]]))
                if other != root:
                    root, logged = merge(records, root, other, cut, log, logged)
                else:
                    # A ring was closed: there is a new hole, of whatever size.
                    records[root + FILLED] = UNKNOWN
            # Known not to be negative, an index needs no test.
            root = np.int64(np.uint32(root))
            labels[p] = root
            if x < records[root + X0] or x > records[root + X1] or y < records[root + Y0] or y > records[root + Y1]:
                if records[root + START] != cut:
                    logged = retire(records, root, cut, log, logged)
                    records[root + START] = cut
                records[root + X0] = min(x, np.int64(records[root + X0]))
                records[root + Y0] = min(y, np.int64(records[root + Y0]))
                records[root + X1] = max(x, np.int64(records[root + X1]))
                records[root + Y1] = max(y, np.int64(records[root + Y1]))
            if p < records[root + FIRST]:
                records[root + FIRST] = p
            records[root + COUNT] += 1
            records[root + AREA2] += info >> 15 & 7
            records[root + EULER4] += (info >> 18) - ENCODED_EULER
            if records[root + TOUCHED] != cut:
                records[root + TOUCHED] = cut
                records[root + EXACT] = 0
                touched[n_touched] = root
                n_touched += 1
        if n_touched > 0:
            holes = holes or any_hole(records, touched, n_touched)
            best = largest_component((best, first, area), (n_touched, end), scratch[:3], cut, stride, settings)
            first, area = np.int64(records[best + FIRST]), polygon_bounds(records, best, settings)[1]
            x0, y0, x1, y1 = records[best + X0], records[best + Y0], records[best + X1], records[best + Y1]
            found = pack(x0, y0, x1, y1)
            if found != box:
                box = found
                iou = best_iou(np.int64(x0), np.int64(y0), np.int64(x1), np.int64(y1), truth, rules)
            offer_all(log, logged, cut, zero, contest)
        boxes[cut], ious[cut] = box, iou
    if boxes[-1] < 0:
        empty = 0.0 if np.isnan(rules[4]) else most_overlap(rules[4], rules[5], rules[6], rules[7], truth, rules[3])
        ious[boxes < 0] = empty
    offer_all(log, retire_all(records, zero, end, len(boxes), log), none, zero, contest)
    return holes


@inner
def any_hole(records: np.ndarray, touched: np.ndarray, n_touched: int) -> bool:
    """Whether a component that changed has another Euler number than 1."""
    for i in range(n_touched):
        if records[touched[i] + PARENT] == touched[i] and records[touched[i] + EULER4] != 4:
            return True
    return False


@inner
def retire_all(records: np.ndarray, begin: int, end: int, cut: int, log: tuple[np.ndarray, np.ndarray]) -> int:
    """Log the boxes of all components that are left when there are no more cuts."""
    logged = np.int64(0)
    for root in range(begin, end, COLUMNS):
        if records[root + PARENT] == root:
            logged = retire(records, root, cut, log, logged)
    return logged


@compiled
def grow_holes(
    pixels: tuple[np.ndarray, ...],
    scratch: tuple[np.ndarray, ...],
    width: int,
    eight: bool,
    contest: tuple[np.ndarray, ...],
) -> None:
    """Add pixels from the lowest bin up; offer each hole's box, grown by one pixel on each side.

    Record 0 stands for the outside, and a label of 0, in the frame too, for a pixel that belongs to it.
    """
    masks, order, starts = pixels
    labels, records, log = scratch[0], scratch[1], (scratch[3], scratch[4])
    table = TABLES[1 if eight else 0]
    stride = np.int64(np.uint32(width + 2))
    around = offsets(stride)
    labels[: len(masks)] = 0
    zero, one, cuts = np.int64(0), np.int64(1), len(starts) - 2
    begin(records, zero, zero, zero, zero, zero, zero)
    first = end = np.int64(COLUMNS)
    for cut in range(cuts):
        logged = np.int64(0)
        for i in range(starts[cut], starts[cut + 1]):
            y, x = np.int64(order[i] >> 16), np.int64(order[i] & 0xFFFF)
            corner = y * stride + x
            info = np.int64(table[masks[corner + stride + 1]])
            groups = info & 7
            if groups == 0:
                begin(records, end, corner, x, y, zero, cut)
                labels[corner + stride + 1] = end
                end += COLUMNS
                continue
            root = np.int64(labels[corner + around[info >> 3 & 7]])
            if records[root + PARENT] != root:
                root = find(records, root)
            for k in range(1, groups):
                other = find(records, np.int64(labels[corner + around[info >> (3 + 3 * k) & 7]]))
                if other != root and root != 0 and other != 0:
                    root, logged = merge(records, root, other, cut, log, logged)
                elif other != root:
                    # What is connected with the outside is no hole any more.
                    logged = retire(records, root + other, cut, log, logged)
                    records[root + other + PARENT] = 0
                    root = 0
            if root != 0:
                root = np.int64(np.uint32(root))
                labels[corner + stride + 1] = root
                if x < records[root + X0] or x > records[root + X1] or y < records[root + Y0] or y > records[root + Y1]:
                    logged = extend(records, root, (x, y, x, y), cut, log, logged)
                records[root + COUNT] += 1
        offer_all(log, logged, cut, one, contest)
    offer_all(log, retire_all(records, first, end, cuts, log), cuts, one, contest)


@compiled
def take_best(tree_ious: np.ndarray, tree_boxes: np.ndarray, boxes: np.ndarray, ious: np.ndarray) -> None:
    """Replace what stands for a cut by the contest's winner where that has a larger IoU."""
    cuts = len(tree_ious) // 2
    for node in range(2, 2 * cuts):
        above = node >> 1
        if tree_ious[above] > tree_ious[node] or (
            tree_ious[above] == tree_ious[node] and tree_boxes[above] < tree_boxes[node]
        ):
            tree_ious[node], tree_boxes[node] = tree_ious[above], tree_boxes[above]
    for cut in range(cuts):
        if tree_ious[cut + cuts] > ious[cut]:
            ious[cut], boxes[cut] = tree_ious[cut + cuts], tree_boxes[cut + cuts]


def encode_runs(first: np.ndarray, boxes: np.ndarray, ious: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keep the first of each run of equal boxes and IoUs."""
    changes = (boxes[1:] != boxes[:-1]) | (ious[1:] != ious[:-1])
    kept = np.concatenate([[0], np.flatnonzero(changes) + 1])
    return first[kept], boxes[kept], ious[kept]
