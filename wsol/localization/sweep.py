"""The sweep: what one score map yields under one protocol at every threshold."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wsol.errors import UserError
from wsol.localization.boxes import box_iou, checked_boxes, from_inclusive, iou_rules, to_inclusive, truth_boxes
from wsol.localization.component_tree import sweep_bins
from wsol.localization.cuts import bin_pixels
from wsol.localization.protocol import Protocol, load_protocol
from wsol.localization.records import COLUMNS

__all__ = ["Runs", "Sweep", "join_runs", "sweep_thresholds"]

LONGEST_SIDE = 32767  # a box is packed into four times 16 bits


@dataclass(frozen=True, eq=False, kw_only=True)
class Runs:
    """A box over the thresholds, run-length coded: neighboring runs differ in box or IoU.

    Parameters
    ----------
    first : array of int64 (R,)
        Index of the first threshold of each run, increasing from 0.
    boxes : array of float64 (R, 4)
        `x0 y0 x1 y1` in score-map pixels and the sweep's convention.
    iou : array of float64 (R,)
        In [0, 1].
    """

    first: np.ndarray
    boxes: np.ndarray
    iou: np.ndarray


class Coded(NamedTuple):
    """Runs with packed inclusive boxes, -1 where there is no component."""

    first: np.ndarray
    packed: np.ndarray
    iou: np.ndarray


class Sweep:
    """Boxes and IoUs of one score map at every threshold; kept run-length coded, spread out when asked for.

    Attributes
    ----------
    thresholds : array of float64 (T,)
        Tau, increasing.
    size : (width, height)
        Of the score map.
    protocol : Protocol
        The rules.
    convention : str
        Box convention of what this sweep returns: the protocol's, or "inclusive".
    """

    def __init__(
        self,
        thresholds: np.ndarray,
        size: tuple[int, int],
        protocol: Protocol,
        coded: dict[str, Coded],
        convention: str | None = None,
    ) -> None:
        self.thresholds = thresholds
        self.size = size
        self.protocol = protocol
        self.convention = convention or protocol.box_convention
        self._coded = coded

    def __repr__(self) -> str:
        """Size, thresholds, and how many runs there are."""
        runs = ", ".join(f"{len(coded.first)} {which}" for which, coded in self._coded.items())
        width, height = self.size
        return f"Sweep({len(self.thresholds)} thresholds of {width} x {height} pixels; runs: {runs})"

    def runs(self, which: str) -> Runs:
        """Boxes and IoUs, run-length coded.

        Parameters
        ----------
        which : "largest" or "any"
            The largest component's box; or the best box of any, chosen with the truth.

        Raises
        ------
        UserError
            If it is neither.

        Examples
        --------
        >>> sweep_thresholds(np.eye(4), [0, 0, 3, 3]).runs("largest").first.tolist()
        [0]
        """
        coded = self._coded_of(which)
        return Runs(first=coded.first, boxes=self._boxes(coded.packed), iou=coded.iou)

    def at(self, index: int, which: str) -> tuple[np.ndarray, float]:
        """Box and IoU at one threshold, without decoding the others.

        Parameters
        ----------
        index : int
            Of the threshold.
        which : "largest" or "any"

        Returns
        -------
        box : float64 array (4,)
        iou : float

        Raises
        ------
        UserError
            If it is neither.

        Examples
        --------
        >>> box, iou = sweep_thresholds(np.eye(4), [0, 0, 3, 3], "exact").at(0, "largest")
        >>> box.tolist(), iou
        ([0.0, 0.0, 4.0, 4.0], 1.0)
        """
        coded = self._coded_of(which)
        run = int(np.searchsorted(coded.first, index, side="right")) - 1
        return self._boxes(coded.packed[run : run + 1])[0], float(coded.iou[run])

    @property
    def boxes_largest(self) -> np.ndarray:
        """Box of the largest component at each threshold: float64 (T, 4)."""
        return self._spread(self.runs("largest").boxes, "largest")

    @property
    def iou_largest(self) -> np.ndarray:
        """Its largest IoU with a true box: float64 (T,)."""
        return self._spread(self._coded["largest"].iou, "largest")

    @property
    def boxes_any(self) -> np.ndarray:
        """The box, of any component (or hole), with the largest IoU with a true box: float64 (T, 4).

        Among equals the largest component's, if it is one of them, else the least `x0 y0 x1 y1`.
        """
        return self._spread(self.runs("any").boxes, "any")

    @property
    def iou_any(self) -> np.ndarray:
        """That IoU: float64 (T,)."""
        return self._spread(self._coded["any"].iou, "any")

    def to_inclusive(self) -> Sweep:
        """Return the same sweep with boxes whose corners are inclusive; IoUs stay as the protocol counts them.

        Where there is no component: the empty box, converted, or `0 0 -1 -1` if the protocol has none.

        Examples
        --------
        >>> sweep = sweep_thresholds(np.eye(4), [0, 0, 3, 3], "exact")
        >>> sweep.boxes_largest[0].tolist(), sweep.to_inclusive().boxes_largest[0].tolist()
        ([0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 3.0, 3.0])
        """
        return Sweep(self.thresholds, self.size, self.protocol, self._coded, "inclusive")

    def against(self, gt_boxes: object, image_size: tuple[int, int] | None = None) -> Sweep:
        """Return the sweep of the same map against other true boxes, without its pixels.

        Only for a map that has one component without holes at every threshold, such as a Gaussian around the center:
        the best component is then the largest whatever the truth, and nothing but the IoUs changes.

        Parameters
        ----------
        gt_boxes, image_size
            As in `sweep_thresholds`.

        Examples
        --------
        >>> sweep_thresholds(np.ones((4, 4)), [0, 0, 3, 3], "exact").against([0, 0, 1, 3]).iou_any[0].item()
        0.5
        """
        image_size = self.size if image_size is None else image_size
        truth = truth_boxes(checked_boxes(gt_boxes, image_size), self.protocol, image_size, self.size)
        iou = box_iou(self._compared, truth, self.protocol.iou_convention).max(axis=1)  # (R,)
        coded = self._coded["largest"]._replace(iou=iou)
        return Sweep(self.thresholds, self.size, self.protocol, {"largest": coded, "any": coded}, self.convention)

    @cached_property
    def _compared(self) -> np.ndarray:
        """Boxes of the largest components as the protocol takes their IoU: float64 (R, 4)."""
        packed, rules = self._coded["largest"].packed, iou_rules(self.protocol, self.size)
        corners = np.stack([packed >> 48, packed >> 32, packed >> 16, packed], axis=-1) & 0xFFFF
        boxes = corners.astype(np.float64)
        boxes[:, 2:] = np.minimum(boxes[:, 2:] + rules[0], rules[1:3])
        boxes[packed < 0] = rules[4:]
        return boxes

    def _coded_of(self, which: str) -> Coded:
        if which not in self._coded:
            raise UserError(f"no runs of {which!r} components: choose largest or any")
        return self._coded[which]

    def _boxes(self, packed: np.ndarray) -> np.ndarray:
        corners = np.stack([packed >> 48, packed >> 32, packed >> 16, packed], axis=-1) & 0xFFFF
        boxes = from_inclusive(corners, self.convention, self.size)  # (R, 4)
        if (packed < 0).any():
            boxes[packed < 0] = self._empty_box()
        return boxes

    def _empty_box(self) -> np.ndarray:
        if self.protocol.empty_box is None:
            return np.array([0.0, 0, -1, -1]) if self.convention == "inclusive" else np.zeros(4)
        empty = np.array([self.protocol.empty_box])
        if self.convention != self.protocol.box_convention:
            empty = to_inclusive(empty, self.protocol.box_convention)
        return empty[0]

    def _spread(self, values: np.ndarray, which: str) -> np.ndarray:
        lengths = np.diff(self._coded[which].first, append=len(self.thresholds))
        return np.repeat(values, lengths, axis=0)  # (T, …)


def join_runs(sweeps: Sequence[Sweep], which: str) -> Runs:
    """Runs of many sweeps of one protocol, one after the other.

    Parameters
    ----------
    sweeps : sequence of Sweep
    which : "largest" or "any"

    Examples
    --------
    >>> sweeps = [sweep_thresholds(np.eye(4), [0, 0, 3, 3], "exact")] * 2
    >>> join_runs(sweeps, "largest").boxes.tolist()
    [[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]]
    """
    coded = [sweep._coded_of(which) for sweep in sweeps]
    if not coded:
        return Runs(first=np.zeros(0, np.int64), boxes=np.zeros((0, 4)), iou=np.zeros(0))
    if len({(sweep.size, sweep.convention) for sweep in sweeps}) == 1:
        boxes = sweeps[0]._boxes(np.concatenate([one.packed for one in coded]))
    else:
        boxes = np.concatenate([sweep._boxes(one.packed) for sweep, one in zip(sweeps, coded, strict=True)])
    return Runs(
        first=np.concatenate([one.first for one in coded]), boxes=boxes, iou=np.concatenate([one.iou for one in coded])
    )


def sweep_thresholds(
    score_map: object,
    gt_boxes: object,
    protocol: Protocol | str | Path = "choe2020",
    image_size: tuple[int, int] | None = None,
) -> Sweep:
    """Boxes of the largest and of the best component at every threshold, and their IoUs with the truth.

    Parameters
    ----------
    score_map : array or tensor (H, W)
        In [0, 1]; taken as it is, never normalized again.
    gt_boxes : array-like (G, 4)
        True boxes `x0 y0 x1 y1`, inclusive corners: in score-map pixels, or in those of the original image if
        `image_size` is given.
    protocol : Protocol, str or path
        The rules, a preset's name, or a file; it says nothing about the map's size here.
    image_size : (width, height), optional
        Of the original image.

    Returns
    -------
    Sweep

    Raises
    ------
    UserError
        If a value is NaN or outside [0, 1], the rank is not 2, or a box is inverted or outside.

    References
    ----------
    Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020.

    Examples
    --------
    >>> score_map = np.zeros((8, 8))
    >>> score_map[2:6, 1:7] = 1
    >>> sweep = sweep_thresholds(score_map, [1, 2, 6, 5], "exact")
    >>> sweep.boxes_largest[0].tolist(), float(sweep.iou_largest[0])
    ([1.0, 2.0, 7.0, 6.0], 1.0)
    """
    rules = load_protocol(protocol)
    values = _checked_map(score_map)
    height, width = values.shape
    size = (width, height)
    if image_size is not None and (len(image_size) != 2 or min(image_size) < 1):
        raise UserError(f"image_size = {image_size}: pass (width, height) in pixels")
    image_size = size if image_size is None else (int(image_size[0]), int(image_size[1]))
    truth = truth_boxes(checked_boxes(gt_boxes, image_size), rules, image_size, size)
    WORKSPACE.reserve(height, width)
    cuts, bins = bin_pixels(values, rules, WORKSPACE.bins)
    numbers, settings = _kernel_rules(rules, size)
    largest, best = sweep_bins(bins, size, cuts.first, truth, numbers, settings, WORKSPACE.scratch)
    return Sweep(cuts.thresholds, size, rules, {"largest": Coded(*largest), "any": Coded(*best)})


def _checked_map(score_map: object) -> np.ndarray:
    if hasattr(score_map, "detach"):
        score_map = score_map.detach().cpu().numpy()
    found = np.asarray(score_map)
    if found.dtype.kind not in "fiub":
        raise UserError(f"score map has values of type {found.dtype}: pass real numbers in [0, 1]")
    if found.ndim != 2 or 0 in found.shape:
        raise UserError(f"score map has shape {found.shape}: pass one map of shape (H, W)")
    if max(found.shape) > LONGEST_SIDE:
        raise UserError(f"score map has shape {found.shape}: sides up to {LONGEST_SIDE} pixels are possible")
    return np.ascontiguousarray(found, np.float64)  # (H, W)


class Workspace(threading.local):
    """Scratch memory of one thread, reused from map to map: about six times a map of float64."""

    def __init__(self) -> None:
        self.pixels = 0
        self.reserve(1, 1)

    def reserve(self, height: int, width: int) -> None:
        """Make sure that a map of that size fits."""
        padded = (height + 2) * (width + 2)
        if padded <= self.pixels:
            return
        self.pixels = padded
        self.bins = np.empty(4 * padded, np.uint8)
        # No two first pixels are neighbors, so at most every second pixel begins a component.
        components = padded // 2 + 2
        self.scratch = (
            np.empty(padded, np.uint8),  # masks
            np.empty(padded, np.uint32),  # order
            np.empty(padded, np.uint32),  # labels
            np.empty(components * COLUMNS, np.uint32),  # records
            np.empty(components, np.uint32),  # touched
            np.empty(components, np.int64),  # log of boxes
            np.empty(components, np.uint32),  # and when they began
        )


WORKSPACE = Workspace()


@lru_cache(maxsize=256)
def _kernel_rules(rules: Protocol, size: tuple[int, int]) -> tuple[np.ndarray, tuple[bool, bool, bool, bool]]:
    settings = (rules.connectivity == 8, rules.area == "contour", rules.tie == "last", rules.holes)
    return iou_rules(rules, size), settings
