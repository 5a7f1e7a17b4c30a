"""What became of each sample, and of all together: curves, thresholds, accuracies, error kinds, all from the sweeps.

A box is *GT-known* right where its IoU with a ground-truth box reaches an IoU threshold, *Top-k* right where the true
class is among the k best as well. Whatever is summed over samples is a whole number, so parts of a dataset add up
exactly, in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import pandas as pd

from wsol.localization import Protocol

Threshold = float | Mapping[str, float] | None  # τ, or one for each metric; None: the best on the samples themselves
OUTCOMES = ("gt_known_loc", "top1_loc", "top5_loc")
RIGHT_OR_WRONG = (
    "top1_cls", "top5_cls", "top1_loc", "top5_loc", "gt_known_loc",
    "max_box_acc_30", "max_box_acc_50", "max_box_acc_70", "max_box_acc",
)  # fmt: skip
METRICS = (*RIGHT_OR_WRONG[:5], "mean_iou", *RIGHT_OR_WRONG[5:], "max_box_acc_v2", "pxap")
AT_THE_SUMMARYS_THRESHOLD = ("top1_loc", "top5_loc", "gt_known_loc", "mean_iou")
FIXED_POINT = 2**40  # fractions are summed as whole multiples of 1 / FIXED_POINT: exact in any order
NO_THRESHOLD = np.array([np.nan])  # the grid of boxes that were given
READY = ("boxes", "masks")  # what a summary's `threshold_source` says of them
SIZE_EDGES = tuple(root**2 for root in range(11))  # percent of the image
MOST_INSTANCES = 4  # of which that and more are one stratum
SAME_THRESHOLD = 1e-9  # as in `Protocol.threshold_index`


@dataclass(frozen=True)
class ErrorKind:
    """Why a sample counts as right or wrong: how tables call it, what people read, and how it is drawn."""

    key: str
    label: str
    definition: str
    color: str  # a fill, of Okabe and Ito; gray for what is no error of the heatmap
    ink: str  # what can be read on it


# The first that applies is a sample's kind.
ERROR_KINDS = {kind[0]: ErrorKind(*kind) for kind in (
    ("wrong_class", "wrong class", "the predicted class is another", "#9aa0a8", "#17191c"),
    ("right", "right", "the box overlaps a ground-truth box enough", "#009e73", "#04231a"),
    ("several", "several objects", "the box covers more than 0.3 of each of at least two ground-truth boxes",
     "#f0e442", "#2b2905"),
    ("part", "only a part", "more than half of the box lies in the ground-truth box that it matches best",
     "#56b4e9", "#10202b"),
    ("too_much", "too much", "it covers at least 0.7 of that box", "#e69f00", "#2b1f05"),
    ("elsewhere", "elsewhere", "all else", "#d55e00", "#2b1200"),
)}  # fmt: skip


def error_kind(rank: int, right: bool, box: np.ndarray, truth: np.ndarray) -> str:
    """Name the kind of a sample's error at one threshold and IoU 0.5: the first key of `ERROR_KINDS` that applies.

    With the intersection of the box (4,) and a ground-truth box (G, 4), all inclusive, over the latter's area (IoG) and
    over the box's own (IoP): *several* is IoG > 0.3 for two, *part* IoP > 0.5, *too much* IoG >= 0.7, both with the
    best match. The limits are this program's own. A rank of -1 (no prediction) is no wrong class; an empty box has x1 <
    x0.

    >>> error_kind(0, False, np.array([0, 0, 3, 3]), np.array([[0, 0, 9, 9]]))
    'part'
    """
    if rank > 0:
        return "wrong_class"
    if right:
        return "right"
    of_box, of_gt, iou = coverage(box, truth)
    if (of_gt > 0.3).sum() >= 2:
        return "several"
    best = int(np.argmax(iou))
    if of_box[best] > 0.5:
        return "part"
    return "too_much" if of_gt[best] >= 0.7 else "elsewhere"


def coverage(box: np.ndarray, gt_boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of a box in each ground-truth box, share of each that it covers, and IoU: arrays (G,), inclusive pixels."""
    low, high = np.maximum(box[:2], gt_boxes[:, :2]), np.minimum(box[2:], gt_boxes[:, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(1)
    area = np.clip(box[2:] - box[:2] + 1, 0, None).prod()
    gt_area = np.clip(gt_boxes[:, 2:] - gt_boxes[:, :2] + 1, 0, None).prod(1)
    tiny = np.finfo(np.float64).tiny
    union = area + gt_area - shared
    return shared / max(area, tiny), shared / np.maximum(gt_area, tiny), shared / np.maximum(union, tiny)


def is_oracle(threshold_source: str) -> bool:
    """Whether τ is the best on the samples themselves; for want of a published one, say."""
    return str(threshold_source).startswith("oracle")


def compare(iou: np.ndarray | float, delta: np.ndarray | float, comparison: str) -> np.ndarray:
    """Compare IoUs with an IoU threshold as a protocol says: ">=" or ">"."""
    return np.asarray(iou) >= delta if comparison == ">=" else np.asarray(iou) > delta


@dataclass(frozen=True, eq=False)
class ScoredBoxes:
    """The box that counts of each of N samples, where somebody gave boxes or masks: no threshold changes it."""

    iou: np.ndarray  # (N,); 0 without a box
    boxes: np.ndarray  # (N, 4) inclusive, in original pixels; x1 < x0 where there is none

    def sweeps(self) -> Sweeps:
        """The same IoUs as sweeps over one threshold, which is NaN."""
        count = len(self.iou)
        return Sweeps(np.arange(count), np.zeros(count, np.int64), self.iou, count, NO_THRESHOLD)


@dataclass(frozen=True, eq=False)
class Sweeps:
    """IoU of N samples at every threshold, run-length coded: the third table, of one method under one protocol.

    A run says that a sample has this IoU from threshold `first` up to, not including, `end`. A sample without runs,
    whose heatmap is missing, has IoU 0 everywhere. R runs in all, T thresholds.

    Examples
    --------
    >>> table = pd.DataFrame({"sample_id": ["a", "a", "b"], "threshold": [0.0, 0.2, 0.0], "iou": [0.3, 0.6, 0.5]})
    >>> sweeps = Sweeps.from_table(table, ["b", "c", "a"], np.array([0.0, 0.1, 0.2]))
    >>> sweeps.iou_at(1).tolist(), sweeps.right(0.5, ">=").tolist()
    ([0.5, 0.0, 0.3], [1, 1, 2])
    """

    sample: np.ndarray  # (R,) of each run; those of one sample follow each other
    first: np.ndarray  # (R,) index of the run's first threshold; 0 where a sample begins
    iou: np.ndarray  # (R,) float64
    count: int  # N
    grid: np.ndarray  # (T,) τ

    @cached_property
    def starts(self) -> np.ndarray:
        """Number of the run with which each sample begins."""
        return np.flatnonzero(np.diff(self.sample, prepend=-1))

    @cached_property
    def end(self) -> np.ndarray:
        """Index of the threshold behind each run: int64 (R,)."""
        following = np.append(self.first[1:], 0)[: len(self.first)]
        return np.where(following > 0, following, len(self.grid))

    @classmethod
    def from_table(cls, table: pd.DataFrame, sample_ids: Sequence[str] | pd.Series, grid: np.ndarray) -> Sweeps:
        """Read the rows of these samples, in their order, back from `sample_id`, `threshold`, `iou` of a table."""
        named = table["sample_id"].astype("category")
        positions = pd.Index(sample_ids).get_indexer(pd.Index(named.cat.categories))
        sample = positions[named.cat.codes.to_numpy()]
        listed = sample >= 0
        first = np.searchsorted(grid, table["threshold"].to_numpy()[listed] - SAME_THRESHOLD)
        return cls(sample[listed], first, table["iou"].to_numpy()[listed], len(sample_ids), grid)

    def at(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples that have a run at one threshold, and the number of that run: int64 (n,) each."""
        passed = np.add.reduceat((self.first <= index).astype(np.int64), self.starts) if len(self.starts) else 0
        return self.sample[self.starts], self.starts + passed - 1

    def iou_at(self, index: int) -> np.ndarray:
        """IoU of each sample at one threshold: float64 (N,)."""
        iou = np.zeros(self.count)
        samples, runs = self.at(index)
        iou[samples] = self.iou[runs]
        return iou

    def right(self, delta: float, comparison: str, among: np.ndarray | None = None) -> np.ndarray:
        """How many samples (`among` these: bool (N,)) are right at each threshold: int64 (T,)."""
        labels = np.zeros(self.count, np.int64) if among is None else np.where(among, 0, -1)
        return self.right_by_class(delta, comparison, labels, 1)[0]

    def accuracy(
        self, delta: float, comparison: str, among: np.ndarray | None = None, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """Share of samples that are right (`among` these) at each threshold (T,); with labels the mean over classes."""
        if labels is None:
            return self.right(delta, comparison, among) / max(self.count, 1)
        counts = np.bincount(labels)
        counted = labels if among is None else np.where(among, labels, -1)
        right = self.right_by_class(delta, comparison, counted, len(counts))[counts > 0]
        return (right / counts[counts > 0, None]).mean(axis=0).round(12)  # equal but for the last bits is equal

    def right_by_class(self, delta: float, comparison: str, labels: np.ndarray, classes: int) -> np.ndarray:
        """How many samples of each class are right at each threshold: int64 (C, T); label -1 counts nowhere."""
        label = labels[self.sample]
        counted = compare(self.iou, delta, comparison) & (label >= 0)
        width = len(self.grid) + 1
        begin, end = (np.bincount(label[counted] * width + at[counted], minlength=classes * width)
                      for at in (self.first, self.end))  # fmt: skip
        return (begin - end).reshape(classes, width).cumsum(1)[:, :-1]

    def mean_iou(self) -> np.ndarray:
        """Mean IoU over the samples at each threshold: float64 (T,)."""
        steps, fixed = np.zeros(len(self.grid) + 1, np.int64), _fixed(self.iou)
        np.add.at(steps, self.first, fixed)
        np.subtract.at(steps, self.end, fixed)
        return steps.cumsum()[:-1] / FIXED_POINT / max(self.count, 1)


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Per metric one value per sample, whose mean is the metric, a fraction; PxAP, which has none, as it was drawn."""

    values: dict[str, np.ndarray]  # (N,) right or not, the IoU; for MaxBoxAccV2: at which share of the IoU thresholds
    thresholds: dict[str, float]  # τ; NaN where there is none, or several; in the order of `METRICS`
    oracle: frozenset[str]  # metrics whose τ is the best on these very samples
    curves: dict[float, np.ndarray]  # (T,) by IoU threshold: GT-known localization at each τ of the grid, fractions
    pxap: tuple[float, np.ndarray] | None = None  # a fraction, and what it is in each of R resamples of the images
    labels: np.ndarray | None = None  # (N,) where metrics are means over classes of their means

    def mean(self, metric: str) -> float:
        """Return the metric: a fraction."""
        if metric == "pxap" and self.pxap is not None:
            return self.pxap[0]
        if self.labels is not None:
            return float(np.nanmean(mean_by_class(self.values[metric], self.labels, self.labels.max() + 1)[1]))
        return float(np.mean(self.values[metric], dtype=np.float64))

    def only(self, metrics: Sequence[str], pxap: tuple[float, np.ndarray] | None = None) -> Outcomes:
        """Keep these metrics, in the order of `METRICS`, with PxAP where it is passed."""
        values = {metric: self.values[metric] for metric in METRICS if metric in metrics and metric != "pxap"}
        thresholds = {metric: self.thresholds[metric] for metric in values} | ({} if pxap is None else {"pxap": np.nan})
        return replace(self, values=values, thresholds=thresholds, oracle=self.oracle & set(values), pxap=pxap)


def in_top(ranks: np.ndarray) -> dict[str, np.ndarray]:
    """Whether the true class, of that rank (N,), is the best, or among the five best."""
    return {"top1": ranks == 0, "top5": (ranks >= 0) & (ranks < 5)}


def outcomes_of(
    sweeps: Sweeps | None,
    ranks: np.ndarray,
    protocol: Protocol,
    threshold: Threshold = None,
    labels: np.ndarray | None = None,
) -> Outcomes:
    """What became of each sample, by every metric that has a value per sample: formulas in `wsol.metrics`.

    Of sweeps on a grid that all maps share (None where the dataset has masks only: classification is all there is then)
    and ranks (N,) of the true class, 0 the best, -1 without a prediction. `threshold` is τ of the summary, or one for
    each of its metrics; by default the oracle's: the smallest that is the best for what the protocol's `threshold_of`
    names. Labels (N,) are needed where the protocol averages over classes.

    >>> sweeps = Sweeps(np.array([0, 0]), np.array([0, 2]), np.array([0.4, 0.6]), 1, np.array([0.0, 0.1, 0.2]))
    >>> outcomes = outcomes_of(sweeps, np.array([3]), Protocol(thresholds=(0.0, 0.1, 0.2)))
    >>> outcomes.thresholds["gt_known_loc"], outcomes.mean("gt_known_loc"), outcomes.mean("top1_loc")
    (0.2, 1.0, 0.0)
    """
    correct, group = in_top(ranks), labels if protocol.average == "classes" else None
    values: dict[str, np.ndarray] = {f"{top}_cls": among for top, among in correct.items()}
    thresholds = dict.fromkeys(values, np.nan)
    if sweeps is None:
        return Outcomes(values, thresholds, frozenset(), {}, labels=group)
    deltas = sorted({*protocol.iou_thresholds, 0.5})
    curves = {delta: sweeps.accuracy(delta, protocol.iou_comparison, None, group) for delta in deltas}
    taus = _taus(sweeps, protocol, threshold, curves[0.5], correct, group)
    thresholds |= taus
    iou = {metric: sweeps.iou_at(_index(protocol, tau)) for metric, tau in taus.items()}
    for name, among in correct.items():
        values[f"{name}_loc"] = among & compare(iou[f"{name}_loc"], 0.5, protocol.topk_iou_comparison)
    values["gt_known_loc"] = compare(iou["gt_known_loc"], 0.5, protocol.iou_comparison)
    values["mean_iou"] = iou["mean_iou"]
    counted, shared = np.zeros(sweeps.count), protocol.v2_threshold == "shared"
    for delta in protocol.iou_thresholds:
        best = taus["gt_known_loc"] if shared else float(sweeps.grid[curves[delta].argmax()])
        metric = f"max_box_acc_{round(100 * delta)}"
        values[metric] = compare(sweeps.iou_at(_index(protocol, best)), delta, protocol.iou_comparison)
        thresholds[metric] = best
        counted += values[metric]
    if "max_box_acc_50" in values:
        values["max_box_acc"], thresholds["max_box_acc"] = values["max_box_acc_50"], thresholds["max_box_acc_50"]
    values["max_box_acc_v2"] = counted / len(protocol.iou_thresholds)
    thresholds["max_box_acc_v2"] = taus["gt_known_loc"] if shared else np.nan
    found_here = set(AT_THE_SUMMARYS_THRESHOLD) if threshold is None else set()
    if threshold is None or not shared:
        found_here |= {metric for metric in values if metric.startswith("max_box_acc")}
    oracle = frozenset() if np.isnan(taus["gt_known_loc"]) else frozenset(found_here)
    return Outcomes(values, thresholds, oracle, curves, labels=group)


def _taus(
    sweeps: Sweeps, protocol: Protocol, threshold: Threshold, located: np.ndarray,
    correct: Mapping[str, np.ndarray], group: np.ndarray | None,
) -> dict[str, float]:  # fmt: skip
    """τ of each metric of the summary: those given, or the best for what `threshold_of` names, the smallest first."""
    if isinstance(threshold, Mapping):
        return {metric: threshold[metric] for metric in AT_THE_SUMMARYS_THRESHOLD}
    if threshold is not None:
        return dict.fromkeys(AT_THE_SUMMARYS_THRESHOLD, threshold)
    right = {top: sweeps.accuracy(0.5, protocol.topk_iou_comparison, among, group) for top, among in correct.items()
             if protocol.threshold_of != "gt_known"}  # fmt: skip
    if protocol.threshold_of == "sum":
        located = (located + right["top1"]).round(12)  # what is equal but for its last bits is equal
    taus = dict.fromkeys(AT_THE_SUMMARYS_THRESHOLD, float(sweeps.grid[located.argmax()]))
    if protocol.threshold_of == "each":
        taus |= {f"{top}_loc": float(sweeps.grid[curve.argmax()]) for top, curve in right.items()}
    return taus


def _index(protocol: Protocol, tau: float) -> int:
    return 0 if np.isnan(tau) else protocol.threshold_index(tau)  # boxes that were given have no threshold


def sample_outcomes(
    row: pd.Series, sweep: pd.DataFrame, samples: pd.DataFrame, protocol: Protocol, pxap: np.ndarray | None = None,
    taus: Mapping[str, float] | None = None,
) -> Outcomes:  # fmt: skip
    """Outcomes of a run's samples, or of some of them, from its tables; an oracle's τ is the best on these.

    `row` is the summary's, whose metrics are kept; `sweep` has the rows of its method and protocol; `pxap` (R,) is
    PxAP in resamples of the images, where the row's PxAP is of these very samples; `taus` are those of metrics whose τ
    is not the summary's.
    """
    boxed, ready_boxes = pd.notna(row["gt_known_loc"]), row["threshold_source"] in READY
    grid = NO_THRESHOLD if ready_boxes else protocol.grid()
    sweeps = Sweeps.from_table(sweep, samples["sample_id"], grid) if boxed else None
    fixed = boxed and not ready_boxes and not is_oracle(row["threshold_source"])
    threshold = dict.fromkeys(AT_THE_SUMMARYS_THRESHOLD, float(row["threshold"])) | dict(taus or {}) if fixed else None
    outcomes = outcomes_of(
        sweeps, samples["rank"].to_numpy(), protocol, threshold, samples["label"].to_numpy()
    )  # fmt: skip
    drawn = None if pxap is None or pd.isna(row["pxap"]) else (float(row["pxap"]) / 100, pxap)
    return outcomes.only([metric for metric in METRICS if pd.notna(row[metric])], drawn)


def strata(gt_boxes: Sequence[np.ndarray], image_sizes: np.ndarray) -> dict[str, np.ndarray]:
    """Samples (N,) of each stratum that has some: by the largest box's share of the image (N, 2), by number of boxes.

    Examples
    --------
    >>> list(strata([np.array([[0, 0, 9, 9], [20, 20, 59, 69]])], np.array([[100, 100]])))
    ['size_16_25', 'instances_2']
    """
    areas = [(boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1).max(initial=0.0) for boxes in gt_boxes]  # inclusive
    bins = np.digitize(100 * np.array(areas) / np.maximum(image_sizes.prod(axis=1), 1), SIZE_EDGES[1:-1])
    counts = np.minimum([len(boxes) for boxes in gt_boxes], MOST_INSTANCES)
    members = {f"size_{low}_{high}": bins == number for number, (low, high) in enumerate(pairwise(SIZE_EDGES))}
    for count in range(1, MOST_INSTANCES + 1):
        members[f"instances_{count}" + ("_or_more" if count == MOST_INSTANCES else "")] = counts == count
    return {name: samples for name, samples in members.items() if samples.any()}


def mean_by_class(values: np.ndarray, labels: np.ndarray, classes: int) -> tuple[float, np.ndarray]:
    """Mean of values (N,), bools or fractions, over all samples, and over those of each class (C,): NaN without any."""
    sums, counts = np.zeros(classes, np.int64), np.bincount(labels, minlength=classes)
    np.add.at(sums, labels, _fixed(values))
    with np.errstate(invalid="ignore"):
        return float(np.float64(sums.sum()) / FIXED_POINT / counts.sum()), sums / FIXED_POINT / counts


def _fixed(fractions: np.ndarray) -> np.ndarray:
    """Whole multiples of 1 / FIXED_POINT: int64."""
    return np.rint(np.asarray(fractions, np.float64) * FIXED_POINT).astype(np.int64)
