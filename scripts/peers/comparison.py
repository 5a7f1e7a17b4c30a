"""How far two libraries' heatmaps are apart, and the search for the cause that is the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from scripts.peers.maps import Maps, ours
from scripts.peers.networks import Case, exact, rectified
from wsol.errors import UserError

ALIKE = 1e-4  # maps in [0, 1] that are nowhere farther apart agree
FAINT = 1e-5  # maps whose maximum is not above it are not compared


def unit(heatmap: torch.Tensor) -> torch.Tensor:
    low, high = heatmap.min(), heatmap.max()
    return (heatmap - low) / (high - low) if high > low else torch.zeros_like(heatmap)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference between maps (B, h, w), each brought to [0, 1]."""
    pairs = zip(one.double(), other.double(), strict=True)
    return max(float((unit(a) - unit(b)).abs().max()) for a, b in pairs)


def clipped(one: torch.Tensor, other: torch.Tensor) -> float:
    """Compare with maps whose negative part was cut off, as grad-cam always does."""
    return apart(one, other.relu())


def turned(one: torch.Tensor, other: torch.Tensor) -> float:
    """Compare with whole maps that are turned the way ours are."""
    along = ((one - one.mean((1, 2), keepdim=True)) * other).sum((1, 2), keepdim=True)
    return apart(one, torch.where(along < 0, -other, other))


Compare = Callable[[torch.Tensor, torch.Tensor], float]


@dataclass(frozen=True)
class Cause:
    """Why maps differ, and what to compare to prove it: our side, theirs, or the way they are compared, changed."""

    text: str
    ours: Maps | None = None
    theirs: Maps | None = None
    compare: Compare | None = None


LAST_RELU = Cause(
    "A DenseNet's last ReLU is no module, and works in place. grad-cam takes A behind it, as memory is shared, but G "
    "before it; its guided backpropagation, which exchanges modules, misses it. Nothing is left when it is a module."
)
ROUNDING = Cause(
    "Rounding: activations within 1e-7 of a ReLU's zero, or channels that are divided by next to nothing. Nothing is "
    "left in float64."
)


@dataclass(frozen=True)
class Row:
    """One method of ours and the library's, and why maps may differ."""

    method: str
    label: str
    theirs: Maps
    cause: Cause | None = None
    options: tuple[tuple[str, Any], ...] = ()
    compare: Compare = apart

    @property
    def ours(self) -> Maps:
        """Our side."""
        return ours(self.method, **dict(self.options))


@dataclass(frozen=True)
class Verdict:
    """What a comparison came to: how far maps are apart, and how far without the causes; or why there is none."""

    difference: float | None = None
    causes: tuple[Cause, ...] = ()
    left: float | None = None
    refusal: str = ""

    @property
    def agrees(self) -> bool:
        """Whether there is nothing to explain."""
        return self.difference is not None and self.difference < ALIKE

    @property
    def explained(self) -> bool:
        """Whether nothing is left without the causes."""
        return self.agrees or (self.left is not None and self.left < ALIKE)


def judge(row: Row, case: Case) -> Verdict:
    """Compare, and where maps differ look for the fewest causes that are the whole of it."""
    try:
        mine = row.ours(case)
    except UserError:
        return Verdict(refusal="–")
    kept = mine.amax((1, 2)) > FAINT
    if not kept.any():
        return Verdict(refusal="too faint")
    try:
        theirs = row.theirs(case)
    except Exception as error:  # whatever it is, the library can't do this
        fault = f"It fails: {type(error).__name__}, “{str(error).split('.')[0]}”."
        return Verdict(causes=(Cause(fault),), refusal="fails")
    difference, left = row.compare(mine[kept], theirs[kept]), float("inf")
    causes: tuple[Cause, ...] = ()
    if difference < ALIKE:
        return Verdict(difference)
    for causes, here, there in suspects(row, case):
        by = causes[0]
        one = mine if here is case and by.ours is None else (by.ours or row.ours)(here)
        other = theirs if there is case and by.theirs is None else (by.theirs or row.theirs)(there)
        left = (by.compare or row.compare)(one[kept], other[kept])
        if left < ALIKE:
            break
    return Verdict(difference, causes, left)


def suspects(row: Row, case: Case) -> Iterator[tuple[tuple[Cause, ...], Case, Case]]:
    """Causes to try, the row's own first, each with the cases to compare on our side and on theirs."""
    own = (row.cause,) if row.cause else ()
    for others in ((), (LAST_RELU,), (ROUNDING,), (LAST_RELU, ROUNDING)):
        here = exact(case) if ROUNDING in others else case
        there = rectified(here) if LAST_RELU in others else here
        if LAST_RELU in others and there is here:
            continue
        for causes in dict.fromkeys((others, own + others)):
            if causes:
                yield causes, here, there
