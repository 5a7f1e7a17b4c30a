"""What can be wrong with an annotated box, and whether reading an annotation stops there.

Datasets refuse a wrong box, with file and line, when they are made. `wsol check` wants to list all of them, so it
makes the dataset inside of `wrong_boxes_kept`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

__all__ = ["box_fault", "wrong_boxes_kept", "wrong_boxes_stop"]

_stop: ContextVar[bool] = ContextVar("wrong_boxes_stop", default=True)


def wrong_boxes_stop() -> bool:
    """Whether a dataset that is being made must refuse a box that is inverted, negative or not finite.

    Examples
    --------
    >>> wrong_boxes_stop()
    True
    """
    return _stop.get()


@contextmanager
def wrong_boxes_kept() -> Iterator[None]:
    """Datasets that are made in the block keep wrong boxes as they are, for somebody who looks at each of them."""
    token = _stop.set(False)
    try:
        yield
    finally:
        _stop.reset(token)


def box_fault(box: np.ndarray, image_size: tuple[int, int] | None) -> str:
    """Name what is wrong with a box.

    Parameters
    ----------
    box : array (4,)
        `x0 y0 x1 y1` in pixels, inclusive corners.
    image_size : (width, height), optional
        None where it is not known: whether the box lies inside isn't looked at.

    Returns
    -------
    str
        "box not finite", "box inverted", "box empty" (no pixel: x1 is one less than x0), "box outside", "box one pixel
        late" (it ends at the width itself, as if corners were exclusive), or "".

    Examples
    --------
    >>> box_fault(np.array([0, 0, 9, 9]), (10, 10)), box_fault(np.array([5, 0, 2, 9]), None)
    ('', 'box inverted')
    """
    x0, y0, x1, y1 = map(float, box)
    if not np.isfinite([x0, y0, x1, y1]).all():
        return "box not finite"
    if x1 < x0 - 1 or y1 < y0 - 1:
        return "box inverted"
    if x1 < x0 or y1 < y0:
        return "box empty"
    width, height = image_size or (np.inf, np.inf)
    if x0 < 0 or y0 < 0 or x0 >= width or y0 >= height or x1 > width or y1 > height:
        return "box outside"
    return "box one pixel late" if x1 > width - 1 or y1 > height - 1 else ""
