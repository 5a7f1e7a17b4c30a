"""Every conversion between box conventions, every scaling, and the IoU: nowhere else are corners reckoned with."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from wsol.errors import UserError
from wsol.jit import jit, jit_inner
from wsol.localization.protocol import Protocol

Sides = tuple[int, int] | tuple[np.ndarray, np.ndarray]  # width, height; of several boxes, (N,) each


def checked_boxes(boxes: object, size: tuple[int, int], where: str = "gt_boxes") -> np.ndarray:
    """Make float64 (G, 4) of boxes `x0 y0 x1 y1`, or of one (4,), and make sure that each lies in its (width, height).

    Corners are inclusive; annotations that end at the width or height itself, one pixel late, are common and pass. An
    error names the box that is not four finite numbers, is inverted, or reaches outside, and `where` it was.

    >>> checked_boxes([0, 0, 4, 2], (5, 3))
    array([[0., 0., 4., 2.]])
    """
    array = np.atleast_2d(np.array(boxes, np.float64))
    if array.ndim != 2 or array.shape[1] != 4 or len(array) == 0:
        raise UserError(f"{where} has shape {array.shape}: pass at least one box x0 y0 x1 y1, shape (G, 4)")
    width, height = size
    for index, (x0, y0, x1, y1) in enumerate(array.tolist()):
        if not (0 <= x0 <= x1 <= width > x0 and 0 <= y0 <= y1 <= height > y0):
            raise UserError(
                f"{where}: box {index} (x0 y0 x1 y1 from 0, inclusive: {x0:g} {y0:g} {x1:g} {y1:g}) is inverted, or "
                f"not inside {width} x {height} pixels: fix the annotation, or pass the right image_size"
            )
    return array


COUNTED = {"best": slice(None), "first": slice(1), "last": slice(-1, None)}


class Axis(NamedTuple):
    """How one axis of an image becomes that of a score map: `x * new / old - offset`, of which [0, side) is kept."""

    old: float
    new: float
    offset: float
    side: int


def view_axes(protocol: Protocol, image_size: tuple[int, int], size: tuple[int, int]) -> tuple[Axis, Axis]:
    """Both axes, from an image's pixels to those of a score map of that size (width, height) under a protocol."""
    axes, short = [], min(image_size)
    for old, side in zip(image_size, size, strict=True):
        new, offset = float(side), 0.0
        if protocol.view == "short_side":
            old, new = short, float(min(size))
        elif protocol.view != "squash":
            new = side / protocol.view_share
            # A share of 0.9333 means 448 of 480; cells of a map at its own size are no pixels.
            new = new if protocol.size == "heatmap" else float(round(new))
            offset = (new - side) / 2
            if protocol.view == "short_side_crop":
                offset, old = round((old * new / short - side + 1) / 2), short
        axes.append(Axis(old, new, offset, side))
    return axes[0], axes[1]


def truth_boxes(
    boxes: np.ndarray, protocol: Protocol, image_size: tuple[int, int] | None, size: tuple[int, int]
) -> np.ndarray:
    """Ground-truth boxes as a protocol compares them with predicted ones: those that count, cut, scaled and rounded.

    Of inclusive boxes (G, 4) in pixels of an image of (width, height), or of the score map itself where that is None
    (they are then only rounded and clipped): float64 (G, 4), or (1, 4) where the first or last counts, in pixels of a
    score map of that size; as the numbers stand for inclusive and corner IoU, `[x0, x1)` for continuous IoU. The
    protocol's `view`, `iou_convention`, `truths` and all that begins with `truth_` are used.

    >>> truth_boxes(np.array([[10.0, 10, 99, 49]]), Protocol(), (100, 50), (224, 224))
    array([[ 22.,  44., 221., 219.]])
    >>> truth_boxes(np.array([[10.0, 10, 99, 49]]), Protocol(iou_convention="continuous"), (100, 50), (200, 50))
    array([[ 20.,  10., 200.,  50.]])
    """
    protocol = protocol.for_dataset()
    chosen = np.asarray(boxes, np.float64).reshape(-1, 4)[COUNTED[protocol.truths]]
    if image_size is None:
        axes = tuple(Axis(side, float(side), 0.0, side) for side in size)
    else:
        axes, chosen = view_axes(protocol, image_size, size), _annotated(chosen, protocol)
    divided, scaled = protocol.truth_scaling == "divide_first", []
    for box in chosen.tolist():
        for k, value in enumerate(box):
            old, new, offset, side = axes[k & 1]
            if protocol.iou_convention == "continuous" and k >= 2:
                # What ends at the width itself, one pixel late, still ends with the image.
                value = min(value + 1, size[k & 1] if image_size is None else image_size[k & 1])
            value = (value / old * new if divided else value * new / old) - offset
            if protocol.truth_rounding == "truncate":
                value = math.trunc(value)
            scaled.append(_clipped(value, side, protocol.truth_clipped, k >= 2))
    return np.array(scaled, np.float64).reshape(-1, 4)  # (G, 4)


def _annotated(boxes: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Corners (G, 4) as a paper's evaluator reads them from the annotation."""
    boxes = boxes - protocol.truth_origin
    if protocol.truth_end == "last_pixel":
        boxes[:, 2:] -= 1
    if protocol.truth_integers == "sides":
        # Of x + width and x the width is had back up to the last bits.
        boxes = np.hstack([np.trunc(boxes[:, :2]), np.trunc(np.round(boxes[:, 2:] - boxes[:, :2], 6))])
        boxes[:, 2:] += boxes[:, :2]
    return np.trunc(boxes) if protocol.truth_integers == "corners" else boxes


def _clipped(value: float, side: int, clipping: str, is_end: bool) -> float:
    if clipping == "none":
        return value
    last = side - 1 if clipping.endswith("last_pixel") else side
    if clipping.startswith("both"):
        return min(max(value, 0), last)
    return min(value, last) if is_end else max(value, 0)


def from_inclusive(boxes: np.ndarray, convention: str, size: Sides) -> np.ndarray:
    """Inclusive boxes (N, 4) in another `Protocol.box_convention`: float64 (N, 4).

    `size` is the (width, height) of their map; two arrays (N,) where each box has a map of its own.

    >>> from_inclusive(np.array([[1, 2, 5, 7]]), "half_open_clipped", (7, 8))
    array([[1., 2., 6., 7.]])
    """
    converted = np.array(boxes, np.float64)
    if convention != "inclusive":
        converted[:, 2:] += 1
    if convention == "half_open_clipped":
        converted[:, 2:] = np.minimum(converted[:, 2:], np.stack([size[0] - 1, size[1] - 1], axis=-1))
    return converted  # (N, 4)


def to_inclusive(boxes: np.ndarray, convention: str) -> np.ndarray:
    """Boxes (N, 4) of a `Protocol.box_convention` with inclusive corners; without extent, the pixel at their corner.

    A box of "half_open_clipped" that ends in the map's last column may end there or one before; this gives the one
    before. A sweep knows better: use `Sweep.to_inclusive` for its boxes.

    >>> to_inclusive(np.array([[1, 2, 5, 7]]), "half_open")
    array([[1., 2., 4., 6.]])
    """
    converted = np.array(boxes, np.float64)
    if convention != "inclusive":
        converted[:, 2:] = np.maximum(converted[:, 2:] - 1, converted[:, :2])
    return converted  # (N, 4)


def box_iou(boxes: np.ndarray, truth: np.ndarray, convention: str, clamped: bool = True) -> np.ndarray:
    """IoU of every box (N, 4) with every ground-truth box (G, 4): float64 (N, G); 0 where the union has no area.

    Sides are `x1 - x0 + 1` long by the "inclusive" convention, else `x1 - x0`; for `clamped` see
    `Protocol.iou_clamped`.

    >>> box_iou(np.array([[0, 0, 3, 3]]), np.array([[0, 0, 1, 3], [4, 0, 5, 3]]), "inclusive")
    array([[0.5, 0. ]])
    """
    plus = 1.0 if convention == "inclusive" else 0.0
    a, b = np.asarray(boxes, np.float64)[:, None], np.asarray(truth, np.float64)[None]  # (N, 1, 4), (1, G, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + plus
    both = (np.maximum(sides, 0) if clamped else sides).prod(axis=-1)  # (N, G)
    area_a, area_b = ((c[..., 2:] - c[..., :2] + plus).prod(axis=-1) for c in (a, b))
    union = area_a + area_b - both
    divisible = union > 0 if clamped else union != 0
    return np.where(divisible, both / np.where(divisible, union, 1), 0.0)


class IouRules(NamedTuple):
    """What turns a component's inclusive box into the one that a protocol takes the IoU of, for the kernels."""

    late: float  # added to x1 and y1
    last_x1: float  # the greatest x1
    last_y1: float
    plus: float  # added to each side's length
    clamped: bool
    empty: tuple[float, float, float, float]  # the box where there is no component; NaN: none


def iou_rules(protocol: Protocol, size: tuple[int, int]) -> IouRules:
    """Box and IoU convention of a protocol for a map of that size."""
    continuous = protocol.iou_convention == "continuous"
    # As a region of the plane, an inclusive box reaches to the far side of its last pixel.
    late = protocol.box_convention != "inclusive" or continuous
    end = 1 if protocol.box_convention == "half_open_clipped" else 0
    x0, y0, x1, y1 = empty_box(protocol, size) or (math.nan,) * 4
    if continuous and protocol.box_convention == "inclusive":
        x1, y1 = x1 + 1, y1 + 1
    last_x1, last_y1 = float(size[0] - end), float(size[1] - end)
    plus = float(protocol.iou_convention == "inclusive")
    return IouRules(float(late), last_x1, last_y1, plus, protocol.iou_clamped, (x0, y0, x1, y1))


def empty_box(protocol: Protocol, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """Box of a map of that size where nothing is above the cut, in the protocol's convention; None: none."""
    if protocol.empty_box != "image":
        return protocol.empty_box
    behind = float(protocol.box_convention != "half_open")
    return 0.0, 0.0, size[0] - behind, size[1] - behind


@jit_inner
def best_iou(x0: int, y0: int, x1: int, y1: int, gt_boxes: np.ndarray, rules: IouRules) -> float:
    """Largest IoU of a component's inclusive box with the boxes from `truth_boxes` (G, 4)."""
    x_end, y_end = min(x1 + rules.late, rules.last_x1), min(y1 + rules.late, rules.last_y1)
    return largest_overlap(float(x0), float(y0), x_end, y_end, gt_boxes, rules)


@jit
def box_ious(packed: np.ndarray, gt_boxes: np.ndarray, rules: IouRules) -> np.ndarray:
    """The same of packed boxes (N,); of the empty box where one is -1, 0 if the protocol has none."""
    ious = np.empty(len(packed))
    for i in range(len(packed)):
        box = packed[i]
        if i > 0 and box == packed[i - 1]:
            ious[i] = ious[i - 1]
        elif box >= 0:
            ious[i] = best_iou(box >> 48, box >> 32 & 0xFFFF, box >> 16 & 0xFFFF, box & 0xFFFF, gt_boxes, rules)
        else:
            x0, y0, x1, y1 = rules.empty
            ious[i] = 0.0 if np.isnan(x0) else largest_overlap(x0, y0, x1, y1, gt_boxes, rules)
    return ious


@jit_inner
def largest_overlap(x0: float, y0: float, x1: float, y1: float, gt_boxes: np.ndarray, rules: IouRules) -> float:
    """The same of any box, its numbers as they are."""
    plus = rules.plus
    area = (x1 - x0 + plus) * (y1 - y0 + plus)
    best = 0.0 if rules.clamped else -np.inf
    for g in range(len(gt_boxes)):
        x0_gt, y0_gt, x1_gt, y1_gt = gt_boxes[g, 0], gt_boxes[g, 1], gt_boxes[g, 2], gt_boxes[g, 3]
        w = min(x1, x1_gt) - max(x0, x0_gt) + plus
        h = min(y1, y1_gt) - max(y0, y0_gt) + plus
        if (w > 0 and h > 0) or not rules.clamped:
            union = area + (x1_gt - x0_gt + plus) * (y1_gt - y0_gt + plus) - w * h
            if union > 0 or not rules.clamped:
                best = max(best, w * h / union if union != 0 else 0.0)
    return best


def to_image(
    boxes: np.ndarray, size: tuple[int, int], image_size: tuple[int, int], protocol: Protocol | None = None
) -> np.ndarray:
    """Scale inclusive boxes (N, 4) from a score map to its image, not rounded; under a protocol to where it looked.

    Examples
    --------
    >>> to_image(np.array([[0, 0, 1, 1]]), (4, 4), (8, 12))
    array([[0., 0., 3., 5.]])
    """
    axes = view_axes(protocol or Protocol(), image_size, size) * 2
    scaled = np.array(boxes, np.float64)
    scaled[:, 2:] += 1
    scaled = (scaled + [axis.offset for axis in axes]) * [axis.old / axis.new for axis in axes]
    scaled[:, 2:] -= 1
    return scaled
