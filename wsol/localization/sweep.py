"""The sweep: what one score map yields under one protocol at every threshold."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wsol.errors import UserError
from wsol.localization.boxes import (
    IouRules,
    box_ious,
    checked_boxes,
    empty_box,
    from_inclusive,
    iou_rules,
    to_inclusive,
    truth_boxes,
)
from wsol.localization.kernels.components import COLUMNS, ComponentRules, Components, Log, unpack
from wsol.localization.kernels.pixels import bin_pixels
from wsol.localization.kernels.tree import PackedRuns, Scratch, sweep_bins
from wsol.localization.protocol import Protocol, load_protocol
from wsol.localization.score_map import checked_map

COMPONENTS = ("largest", "any", "union")  # whose boxes a sweep holds
COLORS = {"largest": "#0072b2", "any": "#d55e00", "union": "#767c85"}  # of what a sweep shows in notebooks
LONGEST_SIDE = 32767  # a box is packed into four times 16 bits


class Runs(NamedTuple):
    """A box over the thresholds, run-length coded: neighboring runs differ in box or IoU.

    Attributes
    ----------
    first : array of int64 (R,)
        Index of the first threshold of each run, increasing from 0.
    boxes : array of float64 (R, 4)
        `x0 y0 x1 y1` in score-map pixels and the sweep's convention.
    iou : array of float64 (R,)
        In [0, 1] unless the protocol's `iou_clamped` is false.
    """

    first: np.ndarray
    boxes: np.ndarray
    iou: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
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

    Examples
    --------
    >>> sweep = sweep_thresholds(np.eye(4), [0, 0, 3, 3], "exact")
    >>> sweep
    Sweep(1000 thresholds of 4 x 4 pixels; best IoU: largest 1.000 at τ 0, any 1.000 at τ 0, union 1.000 at τ 0)
    >>> sweep.iou_largest.shape, sweep.boxes_any.shape
    ((1000,), (1000, 4))
    """

    thresholds: np.ndarray
    size: tuple[int, int]
    protocol: Protocol
    convention: str
    packed: dict[str, PackedRuns]

    def __repr__(self) -> str:
        """Size, thresholds, and the best IoU of each rule with the smallest τ that has it."""
        rules = [(which, self.packed[which]) for which in COLORS if which in self.packed]
        best = [(which, runs.iou.max(), self.thresholds[runs.first[runs.iou.argmax()]]) for which, runs in rules]
        said = ", ".join(f"{which} {iou:.3f} at τ {tau:g}" for which, iou, tau in best)
        return f"Sweep({len(self.thresholds)} thresholds of {self.size[0]} x {self.size[1]} pixels; best IoU: {said})"

    def _repr_html_(self) -> str:
        """The same, and IoU over τ as a chart, for notebooks."""
        lines, names = "", ""
        for which, runs in self.packed.items():
            color = COLORS[which]
            ends = [*(300 * self.thresholds[runs.first[1:]]), 300]
            path = "".join(f"V{100 - 100 * iou:.1f}H{end:.1f}" for iou, end in zip(runs.iou, ends, strict=True))
            lines += f'<path d="M0 {100 - 100 * runs.iou[0]:.1f}{path}" fill="none" stroke="{color}" stroke-width="2"/>'
            names += f' <span style="color:{color}">{which}</span>'
        chart = f'<svg viewBox="0 -5 300 110" width="300" style="border:1px solid #aaa">{lines}</svg>'
        return f"<p>{self!r}</p>{chart}<p>IoU (0 to 1) over τ (0 to 1):{names}</p>"

    def runs(self, which: str) -> Runs:
        """Boxes and IoUs, run-length coded, of the "largest" component, the best of "any", or their "union"."""
        packed = self.packed[which]
        return Runs(packed.first, self._boxes(packed.boxes), packed.iou)

    def at(self, index: int, which: str) -> tuple[np.ndarray, float]:
        """Box (4,) and IoU at one threshold, by its index, without spreading out the others."""
        packed = self.packed[which]
        run = int(np.searchsorted(packed.first, index, side="right")) - 1
        return self._boxes(packed.boxes[run : run + 1])[0], float(packed.iou[run])

    @property
    def boxes_largest(self) -> np.ndarray:
        """Box of the largest component at each threshold: float64 (T, 4)."""
        return self._spread(self.runs("largest").boxes, "largest")

    @property
    def iou_largest(self) -> np.ndarray:
        """Its largest IoU with a ground-truth box: float64 (T,)."""
        return self._spread(self.packed["largest"].iou, "largest")

    @property
    def boxes_any(self) -> np.ndarray:
        """The box, of any component (or hole), with the largest IoU with a ground-truth box: float64 (T, 4).

        Among equals the largest component's, if it is one of them, else the least `x0 y0 x1 y1`.
        """
        return self._spread(self.runs("any").boxes, "any")

    @property
    def iou_any(self) -> np.ndarray:
        """That IoU: float64 (T,)."""
        return self._spread(self.packed["any"].iou, "any")

    @property
    def boxes_union(self) -> np.ndarray:
        """Box around all of the foreground at each threshold: float64 (T, 4)."""
        return self._spread(self.runs("union").boxes, "union")

    @property
    def iou_union(self) -> np.ndarray:
        """Its largest IoU with a ground-truth box: float64 (T,)."""
        return self._spread(self.packed["union"].iou, "union")

    def to_inclusive(self) -> Sweep:
        """Return the same sweep with boxes whose corners are inclusive; IoUs stay as the protocol counts them.

        Where there is no component: the empty box, converted, or `0 0 -1 -1` if the protocol has none.

        Examples
        --------
        >>> sweep = sweep_thresholds(np.eye(4), [0, 0, 3, 3], "exact")
        >>> sweep.boxes_largest[0].tolist(), sweep.to_inclusive().boxes_largest[0].tolist()
        ([0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 3.0, 3.0])
        """
        return replace(self, convention="inclusive")

    def against(self, gt_boxes: object, image_size: tuple[int, int] | None = None) -> Sweep:
        """Return the sweep of the same map against other ground-truth boxes, without its pixels.

        Only for a map that has one component without holes at every threshold, such as a Gaussian around the center:
        the best component is then the largest whatever the ground truth, and nothing but the IoUs changes.
        """
        return replace(self, packed=dict.fromkeys(self.packed, self._largest(gt_boxes, self.protocol, image_size)))

    def largest_under(self, protocol: Protocol, gt_boxes: object, image_size: tuple[int, int] | None = None) -> Sweep:
        """Return the largest component's sweep under a protocol of the same `component_rules`, without pixels."""
        packed = {"largest": self._largest(gt_boxes, protocol, image_size)}
        return replace(self, protocol=protocol, convention=protocol.box_convention, packed=packed)

    def _largest(self, gt_boxes: object, protocol: Protocol, image_size: tuple[int, int] | None) -> PackedRuns:
        gt_boxes = truth_boxes(checked_boxes(gt_boxes, image_size or self.size), protocol, image_size, self.size)
        packed = self.packed["largest"]
        return packed._replace(iou=box_ious(packed.boxes, gt_boxes, iou_rules(protocol, self.size)))

    def _boxes(self, packed: np.ndarray) -> np.ndarray:
        boxes = from_inclusive(unpack(packed), self.convention, self.size)  # (R, 4)
        if (packed < 0).any():
            boxes[packed < 0] = _empty_box(self.protocol, self.convention, self.size)
        return boxes

    def _spread(self, values: np.ndarray, which: str) -> np.ndarray:
        lengths = np.diff(self.packed[which].first, append=len(self.thresholds))
        return np.repeat(values, lengths, axis=0)  # (T, …)


class PackedSweeps(NamedTuple):
    """Sweeps of many samples under one set of box rules: all that need be kept, for the ground truth gives the IoUs.

    Attributes
    ----------
    sample : array of int32 (R,)
        Number of the sample that each run belongs to, not falling; one without a heatmap has no run.
    first : array of int32 (R,)
        Index of the run's first threshold; 0 where a sample begins.
    boxes : array of int64 (R,)
        Inclusive box in score-map pixels, packed; -1 where there is no component.
    sizes : array of int16 (R, 2)
        Width and height of the score map.
    """

    sample: np.ndarray
    first: np.ndarray
    boxes: np.ndarray
    sizes: np.ndarray

    @classmethod
    def pack(cls, sweeps: Sequence[Sweep | None], which: str, start: int = 0) -> PackedSweeps:
        """Runs of the sweeps of samples `start`, `start + 1`, …; None where a heatmap is missing."""
        scored = [(start + number, sweep) for number, sweep in enumerate(sweeps) if sweep is not None]
        runs, empty = [sweep.packed[which] for _, sweep in scored], np.zeros(0, np.int64)
        lengths = [len(run.first) for run in runs]
        return cls(
            np.repeat(np.array([number for number, _ in scored], np.int32), lengths),
            np.concatenate([empty, *(run.first for run in runs)]).astype(np.int32),
            np.concatenate([empty, *(run.boxes for run in runs)]),
            np.repeat(np.array([sweep.size for _, sweep in scored], np.int16).reshape(-1, 2), lengths, axis=0),
        )

    @classmethod
    def join(cls, parts: Sequence[PackedSweeps]) -> PackedSweeps:
        """One after the other; each knows the numbers of its samples."""
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    def take(self, runs: np.ndarray) -> PackedSweeps:
        """Some runs, by index or mask."""
        return PackedSweeps(*(column[runs] for column in self))

    def ious(
        self,
        gt_boxes: Sequence[np.ndarray],
        image_sizes: np.ndarray,
        protocol: Protocol,
        truths_so_far: Truths | None = None,
    ) -> np.ndarray:
        """Largest IoU of each box with its sample's ground truth, by the kernel that sweeps use: float64 (R,).

        Boxes and sizes (N, 2) are those of the images; `truths_so_far` keeps what one method's sweeps have in common
        with the next one's.
        """
        ious, truths_so_far = np.empty(len(self.boxes)), {} if truths_so_far is None else truths_so_far
        ends = np.flatnonzero(np.diff(self.sample, append=-1)) + 1
        samples = zip(self.sample[ends - 1].tolist(), *self.sizes[ends - 1].T.tolist(), strict=True)
        for key, begin, end in zip(samples, np.append(0, ends)[:-1], ends, strict=True):
            if key not in truths_so_far:
                number, *size = key
                image_size = tuple(image_sizes[number].tolist())
                truths = truth_boxes(gt_boxes[number], protocol, image_size, tuple(size))
                truths_so_far[key] = truths, iou_rules(protocol, tuple(size))
            ious[begin:end] = box_ious(self.boxes[begin:end], *truths_so_far[key])
        return ious

    def corners(self, protocol: Protocol, convention: str) -> np.ndarray:
        """Boxes in score-map pixels and a convention: float64 (R, 4)."""
        boxes, missing = from_inclusive(unpack(self.boxes), convention, tuple(self.sizes.T)), self.boxes < 0
        sizes = map(tuple, self.sizes[missing].tolist())
        boxes[missing] = np.reshape([_empty_box(protocol, convention, size) for size in sizes], (-1, 4))
        return boxes


Truths = dict[tuple[int, int, int], tuple[np.ndarray, IouRules]]  # by a sample's number and its score map's size


def _empty_box(protocol: Protocol, convention: str, size: tuple[int, int]) -> np.ndarray:
    """Box (4,) of a map where there is no component, in a convention; one without extent if the protocol has none."""
    box = empty_box(protocol, size)
    if box is None:
        return np.array([0.0, 0, -1, -1]) if convention == "inclusive" else np.zeros(4)
    empty = np.array([box])
    return (empty if convention == protocol.box_convention else to_inclusive(empty, protocol.box_convention))[0]


def sweep_thresholds(
    score_map: object,
    gt_boxes: object,
    protocol: Protocol | str | Path = "choe2020",
    image_size: tuple[int, int] | None = None,
) -> Sweep:
    """Boxes of the largest component, the best and the union of all at every threshold, and IoUs with ground truth.

    Parameters
    ----------
    score_map : array or tensor (H, W)
        In [0, 1]; taken as it is, never normalized again.
    gt_boxes : array-like (G, 4)
        Ground-truth boxes `x0 y0 x1 y1`, inclusive corners: in score-map pixels, or in those of the original image if
        `image_size` is given.
    protocol : Protocol, str or path
        The rules, a preset's name, or a file; it says nothing about the map's size here.
    image_size : (width, height), optional
        Of the original image; the score map covers what the protocol's `view` covers of it.

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
    return sweep_components(score_map, gt_boxes, load_protocol(protocol).for_dataset(), image_size, COMPONENTS)


def sweep_components(
    score_map: object, gt_boxes: object, protocol: Protocol, image_size: tuple[int, int] | None, which: Collection[str]
) -> Sweep:
    """The same of `which` `COMPONENTS` alone."""
    values = checked_map(score_map, "score map")
    size = (values.shape[1], values.shape[0])
    if max(size) > LONGEST_SIDE:
        raise UserError(f"score map has shape {values.shape}: sides up to {LONGEST_SIDE} pixels are possible")
    gt_boxes = truth_boxes(checked_boxes(gt_boxes, image_size or size), protocol, image_size, size)
    WORKSPACE.reserve(size)
    cuts, bins = bin_pixels(values, protocol, WORKSPACE.bins)
    runs = sweep_bins(bins, size, cuts.first, gt_boxes, *_kernel_rules(protocol, size), WORKSPACE.scratch, which)
    return Sweep(cuts.thresholds, size, protocol, protocol.box_convention, runs)


@lru_cache(maxsize=256)
def _kernel_rules(protocol: Protocol, size: tuple[int, int]) -> tuple[IouRules, ComponentRules]:
    eight, contour, last_wins = protocol.connectivity == 8, protocol.area == "contour", protocol.tie == "last"
    return iou_rules(protocol, size), ComponentRules(eight, contour, last_wins, protocol.holes)


class Workspace(threading.local):
    """Scratch memory of one thread, reused from map to map: about six times a map of float64."""

    def __init__(self) -> None:
        self.pixels = 0
        self.reserve((1, 1))

    def reserve(self, size: tuple[int, int]) -> None:
        """Make sure that a map of that size fits."""
        pixels = (size[0] + 2) * (size[1] + 2)
        if pixels <= self.pixels:
            return
        self.pixels = pixels
        self.bins = np.empty(4 * pixels, np.uint8)
        # No two first pixels are neighbors, so at most every second pixel begins a component.
        components = pixels // 2 + 2
        labels, records, touched = (np.empty(n, np.uint32) for n in (pixels, components * COLUMNS, components))
        log = Log(np.empty(components, np.int64), np.empty(components, np.uint32))
        masks, order = np.empty(pixels, np.uint8), np.empty(pixels, np.uint32)
        self.scratch = Scratch(masks, order, Components(labels, records, touched), log)


WORKSPACE = Workspace()
