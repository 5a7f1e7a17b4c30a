"""Every conversion between box conventions, every scaling, and the IoU: nowhere else are corners reckoned with."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from wsol.errors import UserError
from wsol.jit import jit, jit_inner
from wsol.localization.protocol import Protocol


def checked_boxes(boxes: object, size: tuple[int, int], where: str = "gt_boxes") -> np.ndarray:
    """Make an array of boxes and make sure that each lies in its image.

    Parameters
    ----------
    boxes : array-like (G, 4), or (4,) for one
        `x0 y0 x1 y1`, inclusive corners. Annotations that end at the width or height itself, one pixel late, are
        common and pass.
    size : (width, height)
        Of what the boxes lie in.
    where : str
        For the message.

    Returns
    -------
    array of float64 (G, 4)

    Raises
    ------
    UserError
        Naming the box that is not four finite numbers, is inverted, or reaches outside.

    Examples
    --------
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
                f"{where}: box {index} ({x0:g} {y0:g} {x1:g} {y1:g}) is inverted, or not inside {width} x {height} "
                "pixels: fix the annotation, or pass the right image_size"
            )
    return array


def truth_boxes(
    boxes: np.ndarray, protocol: Protocol, image_size: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """Ground-truth boxes as a protocol compares them with predicted ones.

    Parameters
    ----------
    boxes : array (G, 4)
        Inclusive corners, in pixels of `image_size`.
    protocol : Protocol
        Its `iou_convention`, `truth_rounding` and `truth_clipped` are used.
    image_size, size : (width, height)
        Of the image, and of the score map.

    Returns
    -------
    array of float64 (G, 4)
        In score-map pixels: as the numbers stand for inclusive IoU, `[x0, x1)` for continuous IoU.

    Examples
    --------
    >>> truth_boxes(np.array([[10.0, 10, 99, 49]]), Protocol(), (100, 50), (224, 224))
    array([[ 22.,  44., 221., 219.]])
    >>> truth_boxes(np.array([[10.0, 10, 99, 49]]), Protocol(iou_convention="continuous"), (100, 50), (200, 50))
    array([[ 20.,  10., 200.,  50.]])
    """
    scaled = []
    for box in np.asarray(boxes, np.float64).tolist():
        for k, value in enumerate(box):
            old, new = image_size[k & 1], size[k & 1]
            if protocol.iou_convention == "continuous" and k >= 2:
                # What ends at the width itself, one pixel late, still ends with the image.
                value = min(value + 1, old)
            # Multiplied first, then divided: so that truncation meets the same numbers as in the field's evaluator.
            value = value * new / old
            if protocol.truth_rounding == "truncate":
                value = math.trunc(value)
            scaled.append(min(value, new - 1) if protocol.truth_clipped else value)
    return np.array(scaled, np.float64).reshape(-1, 4)  # (G, 4)


def from_inclusive(boxes: np.ndarray, convention: str, size: tuple[int, int]) -> np.ndarray:
    """Boxes with inclusive corners in another convention.

    Parameters
    ----------
    boxes : array (N, 4)
        Pixels of a map, inclusive corners.
    convention : "inclusive", "half_open" or "half_open_clipped"
        See `Protocol.box_convention`.
    size : (width, height)
        Of the map.

    Returns
    -------
    array of float64 (N, 4)

    Examples
    --------
    >>> from_inclusive(np.array([[1, 2, 5, 7]]), "half_open_clipped", (7, 8))
    array([[1., 2., 6., 7.]])
    """
    converted = np.array(boxes, np.float64)
    if convention != "inclusive":
        converted[:, 2:] += 1
    if convention == "half_open_clipped":
        converted[:, 2:] = np.minimum(converted[:, 2:], (size[0] - 1, size[1] - 1))
    return converted  # (N, 4)


def to_inclusive(boxes: np.ndarray, convention: str) -> np.ndarray:
    """Boxes of a convention with inclusive corners; those without extent become the one pixel at their corner.

    A box of "half_open_clipped" that ends in the map's last column may end there or one before; this gives the one
    before. A sweep knows better: use `Sweep.to_inclusive` for its boxes.

    Parameters
    ----------
    boxes : array (N, 4)
        In that convention.
    convention : "inclusive", "half_open" or "half_open_clipped"
        See `Protocol.box_convention`.

    Returns
    -------
    array of float64 (N, 4)

    Examples
    --------
    >>> to_inclusive(np.array([[1, 2, 5, 7]]), "half_open")
    array([[1., 2., 4., 6.]])
    """
    converted = np.array(boxes, np.float64)
    if convention != "inclusive":
        converted[:, 2:] = np.maximum(converted[:, 2:] - 1, converted[:, :2])
    return converted  # (N, 4)


def box_iou(boxes: np.ndarray, truth: np.ndarray, convention: str) -> np.ndarray:
    """Intersection over union of every box with every ground-truth box.

    Parameters
    ----------
    boxes : array (N, 4); truth : array (G, 4)
        `x0 y0 x1 y1`.
    convention : "inclusive" or "continuous"
        Sides of length `x1 - x0 + 1`, or `x1 - x0`.

    Returns
    -------
    array of float64 (N, G)
        0 where neither has an area.

    Examples
    --------
    >>> box_iou(np.array([[0, 0, 3, 3]]), np.array([[0, 0, 1, 3], [4, 0, 5, 3]]), "inclusive")
    array([[0.5, 0. ]])
    """
    plus = 1.0 if convention == "inclusive" else 0.0
    a, b = np.asarray(boxes, np.float64)[:, None], np.asarray(truth, np.float64)[None]  # (N, 1, 4), (1, G, 4)
    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + plus, 0)
    both = sides.prod(axis=-1)  # (N, G)
    area_a, area_b = ((c[..., 2:] - c[..., :2] + plus).prod(axis=-1) for c in (a, b))
    union = area_a + area_b - both
    return np.where(union > 0, both / np.where(union > 0, union, 1), 0.0)


class IouRules(NamedTuple):
    """What turns a component's inclusive box into the one that a protocol takes the IoU of, for the kernels."""

    late: float  # added to x1 and y1
    last_x1: float  # the greatest x1
    last_y1: float
    plus: float  # added to each side's length
    empty: tuple[float, float, float, float]  # the box where there is no component; NaN: none


def iou_rules(protocol: Protocol, size: tuple[int, int]) -> IouRules:
    """Box and IoU convention of a protocol for a map of that size."""
    continuous = protocol.iou_convention == "continuous"
    # As a region of the plane, an inclusive box reaches to the far side of its last pixel.
    late = protocol.box_convention != "inclusive" or continuous
    end = 1 if protocol.box_convention == "half_open_clipped" else 0
    x0, y0, x1, y1 = protocol.empty_box or (math.nan,) * 4
    if continuous and protocol.box_convention == "inclusive":
        x1, y1 = x1 + 1, y1 + 1
    return IouRules(float(late), float(size[0] - end), float(size[1] - end), float(not continuous), (x0, y0, x1, y1))


@jit_inner
def best_iou(x0: int, y0: int, x1: int, y1: int, gt_boxes: np.ndarray, rules: IouRules) -> float:
    """Largest IoU of a component's inclusive box with the boxes from `truth_boxes` (G, 4)."""
    x_end, y_end = min(x1 + rules.late, rules.last_x1), min(y1 + rules.late, rules.last_y1)
    return largest_overlap(float(x0), float(y0), x_end, y_end, gt_boxes, rules.plus)


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
            ious[i] = 0.0 if np.isnan(x0) else largest_overlap(x0, y0, x1, y1, gt_boxes, rules.plus)
    return ious


@jit_inner
def largest_overlap(x0: float, y0: float, x1: float, y1: float, gt_boxes: np.ndarray, plus: float) -> float:
    """The same of any box, its numbers as they are; `plus` is added to each side."""
    area = (x1 - x0 + plus) * (y1 - y0 + plus)
    best = 0.0
    for g in range(len(gt_boxes)):
        x0_gt, y0_gt, x1_gt, y1_gt = gt_boxes[g, 0], gt_boxes[g, 1], gt_boxes[g, 2], gt_boxes[g, 3]
        w = min(x1, x1_gt) - max(x0, x0_gt) + plus
        h = min(y1, y1_gt) - max(y0, y0_gt) + plus
        if w > 0 and h > 0:
            union = area + (x1_gt - x0_gt + plus) * (y1_gt - y0_gt + plus) - w * h
            if union > 0:
                best = max(best, w * h / union)
    return best


def to_image(boxes: np.ndarray, size: tuple[int, int], image_size: tuple[int, int]) -> np.ndarray:
    """Scale inclusive boxes (N, 4) from a score map to its image, not rounded.

    Examples
    --------
    >>> to_image(np.array([[0, 0, 1, 1]]), (4, 4), (8, 12))
    array([[0., 0., 3., 5.]])
    """
    across, down = image_size[0] / size[0], image_size[1] / size[1]
    scaled = np.array(boxes, np.float64)
    scaled[:, 2:] += 1
    scaled *= (across, down, across, down)
    scaled[:, 2:] -= 1
    return scaled
