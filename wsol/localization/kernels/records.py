"""Components as records in one flat array, joined by union-find, and the log of boxes that they grow out of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from wsol.jit import jit_inner

__all__ = [
    "COLUMNS",
    "Log",
    "extend",
    "find",
    "log_box",
    "merge",
    "new_component",
    "pack",
    "packed_box",
    "reaches_outside",
    "unpack",
]

# A component is known by where its record begins. EULER4 is kept modulo 2 ** 32. FILLED is the most that the holes may
# add to the area; LOWER the least that the area may be, and what it is if EXACT. START is the cut at which the box
# became what it is, TOUCHED the last one at which pixels were added.
PARENT, FIRST, COUNT, AREA2, EULER4, X0, Y0, X1, Y1, START, TOUCHED, LOWER, EXACT, FILLED = range(14)
COLUMNS = 14
UNKNOWN = 0xFFFFFFFF
# The label of a pixel that was not added yet.
NO_LABEL = 0xFFFFFFFF


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
