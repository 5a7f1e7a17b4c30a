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

The best box at each cut is kept in a segment tree over the cuts: a component offers each box that it grows out of to
all cuts at which it had that box, in logarithmic time.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from wsol.jit import jit, jit_inner
from wsol.localization.boxes import IouRules, best_iou, box_ious
from wsol.localization.kernels import components
from wsol.localization.kernels.components import ComponentRules, Components, Log
from wsol.localization.kernels.pixels import (
    ENCODED_EULER,
    NEIGHBOR_TABLES,
    mark_frame,
    neighbor_masks,
    offsets,
    sort_pixels,
)


class PackedRuns(NamedTuple):
    """A component's box over the thresholds, run-length coded."""

    first: np.ndarray  # int64 (R,): index of each run's first threshold
    boxes: np.ndarray  # int64 (R,): packed inclusive box, -1 where there is no component
    iou: np.ndarray  # float64 (R,)


class Boxes(NamedTuple):
    """A box and its IoU at every cut."""

    packed: np.ndarray  # int64 (J,), inclusive; -1 where there is no component
    ious: np.ndarray  # float64 (J,)


class Contest(NamedTuple):
    """The best box at each of J cuts, in a segment tree: the best IoU and, among equals, the least packed box."""

    gt_boxes: np.ndarray  # float64 (G, 4)
    iou_rules: IouRules
    tree: Boxes  # (2 J,)


class Scratch(NamedTuple):
    """Memory of the kernels: masks, order and labels as long as a map within its frame, the others for half as many."""

    masks: np.ndarray  # uint8: which neighbors are added before a pixel
    order: np.ndarray  # uint32: pixels by bin, y << 16 | x
    components: Components
    log: Log


def sweep_bins(
    bins: np.ndarray,
    size: tuple[int, int],
    first: np.ndarray,
    gt_boxes: np.ndarray,
    iou_rules: IouRules,
    rules: ComponentRules,
    scratch: Scratch,
    which: Collection[str],
) -> dict[str, PackedRuns]:
    """Boxes and IoUs of the "largest" and of the best component ("any"), and of their "union", at every cut.

    `bins` ((height + 2) * (width + 2),) says for each pixel how many cuts it passes, within a frame of zeros, and is
    overwritten; `first` (J,) is the first threshold of each cut. `which` of the three are wanted.
    """
    # The kernels are called one by one: compiled into one function they get slower, and take longer to compile.
    (width, height), cuts = size, len(first)
    scratch = scratch._replace(masks=scratch.masks[: len(bins)])
    starts = np.empty(cuts + 2, np.uint32)
    boxes = np.empty(cuts, np.int64)
    contest = Contest(gt_boxes, iou_rules, Boxes(np.zeros(2 * cuts, np.int64), np.zeros(2 * cuts)))
    runs: dict[str, PackedRuns] = {}
    if "union" in which:
        union_boxes(bins, height, width, boxes)
        runs["union"] = encode_runs(first, Boxes(boxes, box_ious(boxes, gt_boxes, iou_rules)))
    if runs.keys() >= set(which):
        return runs
    sort_pixels(bins, height, width, starts, scratch.order)
    neighbor_masks(bins, height, width, scratch.masks)
    has_holes = grow_components(starts, width, scratch, rules, contest, "any" in which, boxes)
    boxes = Boxes(boxes, box_ious(boxes, gt_boxes, iou_rules))
    runs["largest"] = encode_runs(first, boxes)
    if "any" not in which:
        return runs
    if has_holes and rules.holes:
        # The lowest bin first: the order of bins is turned round.
        neighbor_masks(np.invert(bins, out=bins), height, width, scratch.masks)
        mark_frame(scratch.masks, width)
        grow_holes(starts, width, scratch, not rules.eight, contest)
    take_best(contest.tree, boxes)
    return runs | {"any": encode_runs(first, boxes)}


@jit
def union_boxes(bins: np.ndarray, height: int, width: int, boxes: np.ndarray) -> None:
    """Box around all foreground at each cut, packed; -1 where there is none. `bins` lie within a frame of zeros."""
    rows, columns = np.zeros(height, bins.dtype), np.zeros(width, bins.dtype)
    for y in range(height):
        row = bins[(y + 1) * (width + 2) + 1 : (y + 2) * (width + 2) - 1]
        most = rows[y]
        for x in range(width):
            most = max(most, row[x])
            columns[x] = max(columns[x], row[x])
        rows[y] = most
    x0, x1, y0, y1 = 0, width - 1, 0, height - 1
    for cut in range(len(boxes)):
        while y0 < height and rows[y0] <= cut:
            y0 += 1
        if y0 == height:
            boxes[cut:] = -1
            return
        while rows[y1] <= cut:
            y1 -= 1
        while columns[x0] <= cut:
            x0 += 1
        while columns[x1] <= cut:
            x1 -= 1
        boxes[cut] = components.pack(x0, y0, x1, y1)


@jit
def grow_components(
    starts: np.ndarray,
    width: int,
    scratch: Scratch,
    rules: ComponentRules,
    contest: Contest,
    contested: bool,
    largest: np.ndarray,
) -> bool:
    """Add pixels from the highest bin down; write the largest box at each cut. Whether there may be a hole at any.

    Only where it is `contested` boxes are offered to the contest.
    """
    # Taken out of a tuple inside a loop, an array would be counted as one more reference each time.
    masks, order, joined, log = scratch
    labels, records, touched = joined
    table = NEIGHBOR_TABLES[1 if rules.eight else 0]
    around, stride = offsets(width), np.int64(np.uint32(width + 2))
    labels[: len(masks)] = components.NO_LABEL
    # Numbers of one type from the start: a literal would have every function below compiled once more.
    end = zero = np.int64(0)
    none = np.int64(-1)
    best, box, has_holes = (none, none, none), none, not rules.eight
    for cut in range(len(starts) - 3, -1, -1):
        n_touched = logged = np.int64(0)
        for i in range(starts[cut + 1], starts[cut + 2]):
            y, x = np.int64(order[i] >> 16), np.int64(order[i] & 0xFFFF)
            corner = y * stride + x
            p = corner + stride + 1
            info = np.int64(table[masks[p]])
            if info & 7 == 0:
                components.new_component(records, end, p, x, y, (info >> 18) - ENCODED_EULER, cut)
                touched[n_touched] = labels[p] = end
                end += components.COLUMNS
                n_touched += 1
                continue
            root = np.int64(labels[corner + around[info >> 3 & 7]])
            if records[root + components.PARENT] != root:
                root = components.find(records, root)
            for k in range(1, info & 7):
                other = components.find(records, np.int64(labels[corner + around[info >> (3 + 3 * k) & 7]]))
                if other != root:
                    root, logged = components.merge(records, root, other, cut, log, logged)
                else:
                    # A ring was closed: there is a new hole, of whatever size.
                    records[root + components.FILLED] = components.UNKNOWN
            # Known not to be negative, an index needs no test.
            root = np.int64(np.uint32(root))
            labels[p] = root
            if components.reaches_outside(records, root, x, y, x, y):
                if records[root + components.START] != cut:
                    logged = components.log_box(records, root, cut, log, logged)
                components.extend(records, root, x, y, x, y, cut)
            components.add_pixel(records, root, p, info)
            if records[root + components.TOUCHED] != cut:
                records[root + components.TOUCHED] = cut
                records[root + components.EXACT] = 0
                touched[n_touched] = root
                n_touched += 1
        if n_touched > 0:
            has_holes = has_holes or components.any_hole(records, touched, n_touched)
            best = components.largest_component(best, (n_touched, end), joined, cut, stride, rules)
            box = components.packed_box(records, best[0])
            offer_boxes(log, logged if contested else zero, cut, zero, contest)
        largest[cut] = box
    if contested:
        offer_boxes(log, components.log_all_boxes(records, zero, end, len(largest), log), none, zero, contest)
    return has_holes


@jit
def grow_holes(starts: np.ndarray, width: int, scratch: Scratch, eight: bool, contest: Contest) -> None:
    """Add pixels from the lowest bin up; offer each hole's box, grown by one pixel on each side.

    Record 0 stands for the outside, and a label of 0, in the frame too, for a pixel that belongs to it.
    """
    masks, order, (labels, records, _), log = scratch
    table, around = NEIGHBOR_TABLES[1 if eight else 0], offsets(width)
    stride = np.int64(np.uint32(width + 2))
    labels[: len(masks)] = 0
    zero, one, cuts = np.int64(0), np.int64(1), len(starts) - 2
    components.new_component(records, zero, zero, zero, zero, zero, zero)
    first = end = np.int64(components.COLUMNS)
    for cut in range(cuts):
        logged = np.int64(0)
        for i in range(starts[cut], starts[cut + 1]):
            y, x = np.int64(order[i] >> 16), np.int64(order[i] & 0xFFFF)
            corner = y * stride + x
            info = np.int64(table[masks[corner + stride + 1]])
            groups = info & 7
            if groups == 0:
                components.new_component(records, end, corner, x, y, zero, cut)
                labels[corner + stride + 1] = end
                end += components.COLUMNS
                continue
            root = np.int64(labels[corner + around[info >> 3 & 7]])
            if records[root + components.PARENT] != root:
                root = components.find(records, root)
            for k in range(1, groups):
                other = components.find(records, np.int64(labels[corner + around[info >> (3 + 3 * k) & 7]]))
                if other != root and root != 0 and other != 0:
                    root, logged = components.merge(records, root, other, cut, log, logged)
                elif other != root:
                    # What is connected with the outside is no hole any more.
                    logged = components.log_box(records, root + other, cut, log, logged)
                    records[root + other + components.PARENT] = 0
                    root = 0
            if root != 0:
                root = np.int64(np.uint32(root))
                labels[corner + stride + 1] = root
                if components.reaches_outside(records, root, x, y, x, y):
                    logged = components.log_box(records, root, cut, log, logged)
                    components.extend(records, root, x, y, x, y, cut)
                records[root + components.COUNT] += 1
        offer_boxes(log, logged, cut, one, contest)
    offer_boxes(log, components.log_all_boxes(records, first, end, cuts, log), cuts, one, contest)


@jit_inner
def offer_boxes(log: Log, logged: int, cut: int, grown: int, contest: Contest) -> None:
    """Let the boxes in the log compete at all cuts from where they began to the one before this.

    Cuts go down for the foreground (`grown` 0) and up for holes (`grown` 1: what is added to the box on each side).
    """
    gt_boxes, iou_rules, (boxes, ious) = contest
    cuts = len(ious) // 2
    for i in range(logged):
        box, start = log.boxes[i], np.int64(log.starts[i])
        x0, y0 = (box >> 48) - grown, (box >> 32 & 0xFFFF) - grown
        x1, y1 = (box >> 16 & 0xFFFF) + grown, (box & 0xFFFF) + grown
        iou = best_iou(x0, y0, x1, y1, gt_boxes, iou_rules)
        if iou <= 0:
            continue
        box = components.pack(x0, y0, x1, y1)
        left, right = cuts + min(start, cut + 1), cuts + max(start + 1, cut)
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


@jit
def take_best(tree: Boxes, boxes: Boxes) -> None:
    """Replace what stands for a cut by the contest's winner where that has a larger IoU."""
    (tree_packed, tree_ious), (packed, ious) = tree, boxes
    cuts = len(ious)
    for node in range(2, 2 * cuts):
        above = node >> 1
        if tree_ious[above] > tree_ious[node] or (
            tree_ious[above] == tree_ious[node] and tree_packed[above] < tree_packed[node]
        ):
            tree_ious[node], tree_packed[node] = tree_ious[above], tree_packed[above]
    for cut in range(cuts):
        # Unclamped, an IoU may be negative, and 0 in the tree means that no box competed.
        if tree_ious[cut + cuts] > max(ious[cut], 0.0):
            ious[cut], packed[cut] = tree_ious[cut + cuts], tree_packed[cut + cuts]


def encode_runs(first: np.ndarray, boxes: Boxes) -> PackedRuns:
    """Keep the first of each run of equal boxes and IoUs."""
    kept = run_starts(*boxes)
    return PackedRuns(first[kept], boxes.packed[kept], boxes.ious[kept])


@jit
def run_starts(packed: np.ndarray, ious: np.ndarray) -> np.ndarray:
    """Index at which each run begins."""
    starts, runs = np.zeros(len(packed), np.int64), 1
    for i in range(1, len(packed)):
        if packed[i] != packed[i - 1] or ious[i] != ious[i - 1]:
            starts[runs] = i
            runs += 1
    return starts[:runs]
