"""Which cuts each pixel of a score map passes: quantization, the thresholds' integers, and one bin per pixel."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from wsol.compiled import compiled
from wsol.errors import UserError
from wsol.localization.protocol import Protocol

__all__ = ["Cuts", "bin_pixels"]


class Cuts:
    """Thresholds, and the distinct cuts that they come down to.

    Parameters
    ----------
    thresholds : array of float64 (T,)
        Increasing.
    first : array of int64 (J,)
        The first threshold of each cut; cuts are distinct and increase with the thresholds.
    """

    __slots__ = ("first", "thresholds")

    def __init__(self, thresholds: np.ndarray, first: np.ndarray) -> None:
        self.thresholds, self.first = thresholds, first


@compiled
def quantize(score_map: np.ndarray, scale: float, out: np.ndarray) -> tuple[bool, int]:
    """Truncated `value * scale` into the inside of a flat padded array, whose frame is zeroed.

    Returns whether a value was NaN or outside [0, 1], and the greatest integer.
    """
    height, width = score_map.shape
    stride = width + 2
    out[:stride] = 0
    out[(height + 1) * stride : (height + 2) * stride] = 0
    bad = 0
    for y in range(height):
        row = out[(y + 1) * stride : (y + 2) * stride]
        row[0] = row[width + 1] = 0
        inside, source = row[1 : width + 1], score_map[y]
        for x in range(width):
            value = source[x]
            bad += not (value >= 0 and value <= 1)
            inside[x] = np.int32(value * scale)
    top = 0
    for i in range((height + 2) * stride):
        top = max(top, out[i])
    return bad > 0, top


@compiled
def look_up(table: np.ndarray, stride: int, out: np.ndarray) -> None:
    """Replace each integer within the frame by what the table says."""
    for y in range(1, len(out) // stride - 1):
        for i in range(y * stride + 1, (y + 1) * stride - 1):
            out[i] = table[out[i]]


@compiled
def place(score_map: np.ndarray, cuts: np.ndarray, strict: bool, out: np.ndarray) -> None:
    """Write for each value the number of cuts that it passes into the inside of a flat array with a frame of zeros."""
    height, width = score_map.shape
    stride = width + 2
    n = len(cuts)
    # Where to begin the search for a value: exactness comes from the steps that follow.
    buckets = np.searchsorted(cuts, np.linspace(0.0, 1.0, 4097) * cuts[-1]).astype(np.int32)
    scale = 4096 / cuts[-1] if cuts[-1] > 0 else 0.0
    out[:] = 0
    for y in range(height):
        for x in range(width):
            value = score_map[y, x]
            b = buckets[int(min(value * scale, 4096.0))]
            while b < n and (value > cuts[b] or (not strict and value == cuts[b])):
                b += 1
            while b > 0 and not (value > cuts[b - 1] or (not strict and value == cuts[b - 1])):
                b -= 1
            out[(y + 1) * stride + 1 + x] = b


@lru_cache(maxsize=1024)
def _quantized(protocol: Protocol, top: int) -> tuple[Cuts, np.ndarray | None]:
    """Cuts of a quantized map with that maximum, and the bin of each integer (None: the integer itself)."""
    taus = protocol.grid()
    values, first = np.unique((taus * top).astype(np.int64), return_index=True)
    side = "left" if protocol.pixel_comparison == ">" else "right"
    bins = np.searchsorted(values, np.arange(top + 1), side=side)  # (top + 1,)
    return Cuts(taus, first), None if (bins == np.arange(top + 1)).all() else bins


@lru_cache(maxsize=64)
def _grid(protocol: Protocol) -> np.ndarray:
    return protocol.grid()


def bin_pixels(score_map: np.ndarray, protocol: Protocol, buffer: np.ndarray) -> tuple[Cuts, np.ndarray]:
    """Sort a map's values between the cuts.

    Parameters
    ----------
    score_map : array of float64 (H, W)
        C-contiguous.
    protocol : Protocol
        Its `levels`, `pixel_comparison`, `thresholds` and `threshold` are used.
    buffer : array of uint8, at least 4 * (H + 2) * (W + 2) long
        Memory for the bins.

    Returns
    -------
    Cuts
        J of them.
    array of uint8, uint16 or int32 ((H + 2) * (W + 2),)
        A view of the buffer: for each pixel the number of cuts that it passes, within a frame of zeros. All zero if the
        map has no positive value (once quantized).

    Raises
    ------
    UserError
        Naming the first value that is NaN or outside [0, 1].
    """
    n = (score_map.shape[0] + 2) * (score_map.shape[1] + 2)
    strict = protocol.pixel_comparison == ">"
    if protocol.levels is not None:
        small = protocol.levels <= 256 and protocol.thresholds != "levels"
        bins = buffer[:n] if small else buffer[: 4 * n].view(np.int32)
        bad, top = quantize(score_map, float(protocol.levels - 1), bins)
        if bad:
            raise _outside(score_map)
        if top == 0:
            return Cuts(_taus(protocol), np.zeros(1, np.int64)), bins
        if protocol.thresholds == "levels":
            present = np.unique(bins.reshape(score_map.shape[0] + 2, -1)[1:-1, 1:-1]).astype(np.float64)
            cuts, values = _every_level(present, strict)
            table = np.searchsorted(values, np.arange(top + 1), side="left" if strict else "right")
        else:
            cuts, table = _quantized(protocol, top)
        if table is not None:
            look_up(table, score_map.shape[1] + 2, bins)
        return cuts, bins
    top = score_map.max()
    if not (score_map.min() >= 0 and top <= 1):
        raise _outside(score_map)
    if top == 0:
        buffer[:n] = 0
        return Cuts(_taus(protocol), np.zeros(1, np.int64)), buffer[:n]
    if protocol.thresholds == "levels":
        cuts, values = _every_level(np.unique(score_map), strict)
    else:
        values, first = np.unique(_grid(protocol) * top, return_index=True)
        cuts = Cuts(_grid(protocol), first)
    kind = np.uint8 if len(values) <= 255 else np.uint16 if len(values) <= 65535 else np.int32
    bins = buffer[: n * kind().itemsize].view(kind)
    place(score_map, values, strict, bins)
    return cuts, bins


def _taus(protocol: Protocol) -> np.ndarray:
    return np.zeros(1) if protocol.thresholds == "levels" else _grid(protocol)


def _every_level(present: np.ndarray, strict: bool) -> tuple[Cuts, np.ndarray]:
    """0 and every value of a map as cuts; above the maximum itself there is nothing."""
    values = np.union1d([0.0], present)
    values = values[:-1] if strict else values
    return Cuts(values / present[-1], np.arange(len(values))), values


def _outside(score_map: np.ndarray) -> UserError:
    wrong = ~((score_map >= 0) & (score_map <= 1))
    y, x = np.unravel_index(int(wrong.argmax()), wrong.shape)
    return UserError(
        f"score map has {score_map[y, x]} at row {y}, column {x} "
        f"({int(wrong.sum())} values are NaN or outside [0, 1]): "
        "normalize it first, with wsol.score_map or by hand"
    )
