"""Every conversion between box conventions, every scaling, and the IoU: nowhere else are corners reckoned with."""

from __future__ import annotations

import math

import numpy as np

from wsol.compiled import compiled
from wsol.errors import UserError
from wsol.localization.protocol import Protocol

__all__ = [
    "best_iou",
    "box_iou",
    "checked_boxes",
    "from_inclusive",
    "iou_rules",
    "to_image",
    "to_inclusive",
    "truth_boxes",
]


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
    try:
        found = np.array(boxes, np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{where}: {boxes!r} is not an array of numbers: pass boxes x0 y0 x1 y1") from None
    if found.ndim == 1 and len(found) == 4:
        found = found[None]
    if found.ndim != 2 or found.shape[1] != 4 or len(found) == 0:
        raise UserError(f"{where} has shape {found.shape}: pass at least one box x0 y0 x1 y1, shape (G, 4)")
    width, height = size
    if all(0 <= x0 <= x1 <= width > x0 and 0 <= y0 <= y1 <= height > y0 for x0, y0, x1, y1 in found.tolist()):
        return found
    x0, y0, x1, y1 = found.T
    inside = (x0 >= 0) & (y0 >= 0) & (x1 <= width) & (y1 <= height) & (x0 < width) & (y0 < height)
    ordered = (x0 <= x1) & (y0 <= y1)
    for index in np.flatnonzero(~(inside & ordered)):
        numbers = " ".join(f"{value:g}" for value in found[index])
        fault = "is not finite" if not np.isfinite(found[index]).all() else "is inverted"
        if np.isfinite(found[index]).all() and ordered[index]:
            fault = f"reaches outside {width} x {height} pixels"
        raise UserError(f"{where}: box {index} ({numbers}) {fault}: mend the annotation, or pass the right image_size")
    return found


def truth_boxes(
    boxes: np.ndarray, protocol: Protocol, image_size: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """True boxes as a protocol compares them with predicted ones.

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
    found = []
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
            found.append(min(value, new - 1) if protocol.truth_clipped else value)
    return np.array(found, np.float64).reshape(-1, 4)  # (G, 4)


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
    found = np.array(boxes, np.float64)
    if convention != "inclusive":
        found[:, 2:] += 1
    if convention == "half_open_clipped":
        found[:, 2:] = np.minimum(found[:, 2:], (size[0] - 1, size[1] - 1))
    return found  # (N, 4)


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
    found = np.array(boxes, np.float64)
    if convention != "inclusive":
        found[:, 2:] = np.maximum(found[:, 2:] - 1, found[:, :2])
    return found  # (N, 4)


def box_iou(boxes: np.ndarray, truth: np.ndarray, convention: str) -> np.ndarray:
    """Intersection over union of every box with every true box.

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


def iou_rules(protocol: Protocol, size: tuple[int, int]) -> np.ndarray:
    """What turns a component's inclusive box into the one that a protocol takes the IoU of, for the kernel.

    Parameters
    ----------
    protocol : Protocol
        Its `box_convention` and `iou_convention` are used.
    size : (width, height)
        Of the score map.

    Returns
    -------
    array of float64 (8,)
        Added to x1 and y1; greatest x1; greatest y1; added to each side's length; the empty box (NaN: none).

    Examples
    --------
    >>> iou_rules(Protocol(), (224, 224)).tolist()
    [1.0, 223.0, 223.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    clipped = protocol.box_convention == "half_open_clipped"
    continuous = protocol.iou_convention == "continuous"
    # As a region of the plane, an inclusive box reaches to the far side of its last pixel.
    late = protocol.box_convention != "inclusive" or continuous
    ends = (size[0] - 1, size[1] - 1) if clipped else size
    empty = np.full(4, np.nan) if protocol.empty_box is None else np.array(protocol.empty_box)
    if continuous and protocol.box_convention == "inclusive":
        empty[2:] += 1
    return np.array([float(late), *ends, float(not continuous), *empty])


@compiled
def best_iou(x0: int, y0: int, x1: int, y1: int, truth: np.ndarray, rules: np.ndarray) -> float:
    """Largest IoU of a component's box (inclusive corners) with the true boxes.

    Parameters
    ----------
    x0, y0, x1, y1 : int
        Score-map pixels.
    truth : array of float64 (G, 4)
        From `truth_boxes`.
    rules : array of float64 (8,)
        From `iou_rules`.

    Returns
    -------
    float

    Examples
    --------
    >>> best_iou(0, 0, 1, 3, np.array([[0.0, 0, 3, 3]]), iou_rules(Protocol(box_convention="inclusive"), (9, 9)))
    0.5
    """
    return most_overlap(
        float(x0), float(y0), min(x1 + rules[0], rules[1]), min(y1 + rules[0], rules[2]), truth, rules[3]
    )


@compiled
def most_overlap(x0: float, y0: float, x1: float, y1: float, truth: np.ndarray, plus: float) -> float:
    """Largest IoU of one box, its numbers as they are, with the true boxes; `plus` is added to each side."""
    area = (x1 - x0 + plus) * (y1 - y0 + plus)
    best = 0.0
    for g in range(len(truth)):
        w = min(x1, truth[g, 2]) - max(x0, truth[g, 0]) + plus
        h = min(y1, truth[g, 3]) - max(y0, truth[g, 1]) + plus
        if w > 0 and h > 0:
            union = area + (truth[g, 2] - truth[g, 0] + plus) * (truth[g, 3] - truth[g, 1] + plus) - w * h
            if union > 0:
                best = max(best, w * h / union)
    return best


def to_image(boxes: np.ndarray, size: tuple[int, int], image_size: tuple[int, int]) -> np.ndarray:
    """Scale inclusive boxes from a score map to its image.

    Parameters
    ----------
    boxes : array (N, 4)
        Inclusive, in pixels of the score map.
    size, image_size : (width, height)
        Of the score map and of the image.

    Returns
    -------
    array of float64 (N, 4)
        Inclusive, in pixels of the image; not rounded.

    Examples
    --------
    >>> to_image(np.array([[0, 0, 1, 1]]), (4, 4), (8, 12))
    array([[0., 0., 3., 5.]])
    """
    across, down = image_size[0] / size[0], image_size[1] / size[1]
    found = np.array(boxes, np.float64)
    found[:, 2:] += 1
    found *= (across, down, across, down)
    found[:, 2:] -= 1
    return found
