"""What became of each sample at one threshold, counted per class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torchmetrics import Metric

from wsol.localization import Sweep
from wsol.localization.boxes import to_image
from wsol.metrics.accumulators import FIXED_POINT, compare
from wsol.metrics.errors import ERROR_KINDS, error_kind
from wsol.metrics.scoring import ProtocolScores

__all__ = ["COUNTED", "OutcomeCounts", "outcomes_at"]

COUNTED = ("top1_cls", "top5_cls", "top1_loc", "top5_loc", "gt_known_loc", *ERROR_KINDS)


class OutcomeCounts(Metric):
    """Accuracies and error kinds at one threshold, per class and overall.

    Parameters
    ----------
    num_classes : int

    Examples
    --------
    >>> metric = OutcomeCounts(2)
    >>> metric.update(labels=[0, 1], ranks=[0, 2], gt_known=[True, True], topk=[True, True], ious=[0.6, 0.7],
    ...               kinds=["right", "wrong_class"])
    >>> float(metric.compute()["top1_loc"]), metric.compute()["class_top1_loc"].tolist()
    (0.5, [1.0, 0.0])
    """

    full_state_update = False
    counts: torch.Tensor
    iou_sum: torch.Tensor
    total: torch.Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(len(COUNTED), num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("iou_sum", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        labels: Sequence[int] | np.ndarray,
        ranks: Sequence[int] | np.ndarray,
        gt_known: Sequence[bool] | np.ndarray,
        topk: Sequence[bool] | np.ndarray,
        ious: Sequence[float] | np.ndarray,
        kinds: Sequence[str] | np.ndarray,
    ) -> None:
        """Count samples, all (B,).

        Parameters
        ----------
        labels, ranks : int
            True class; its rank, 0 is the best, -1 without a prediction.
        gt_known, topk : bool
            Whether the box is right by the rule for GT-known, and by the rule for Top-k.
        ious : float in [0, 1]
        kinds : str
            See `wsol.metrics.errors`.
        """
        device = self.total.device
        label, rank = torch.from_numpy(np.array(labels, np.int64)).to(device), np.asarray(ranks)
        top1, top5 = rank == 0, (rank >= 0) & (rank < 5)
        right = np.asarray(topk, bool)
        rows = [top1, top5, top1 & right, top5 & right, np.asarray(gt_known, bool)]
        rows += [np.asarray(kinds) == kind for kind in ERROR_KINDS]
        for number, row in enumerate(rows):
            self.counts[number].index_add_(0, label, torch.from_numpy(row.astype(np.int64)).to(device))
        fixed = np.rint(np.asarray(ious, np.float64) * FIXED_POINT).astype(np.int64)
        self.iou_sum.index_add_(0, label, torch.from_numpy(fixed).to(device))
        self.total.index_add_(0, label, torch.ones_like(label))

    def compute(self) -> dict[str, torch.Tensor]:
        """Return fractions merged over processes: overall, and per class (C,) under `class_…`, NaN without samples."""
        sums = {name: self.counts[number].double() for number, name in enumerate(COUNTED)}
        sums["mean_iou"] = self.iou_sum.double() / FIXED_POINT
        overall = {name: values.sum() / self.total.sum().clamp(min=1) for name, values in sums.items()}
        return overall | {f"class_{name}": values / self.total for name, values in sums.items()}


def outcomes_at(
    scores: ProtocolScores,
    threshold: float,
    boxes: Sequence[np.ndarray] | None,
    image_sizes: Sequence[tuple[int, int]],
    ranks: np.ndarray,
) -> pd.DataFrame:
    """Say what became of each sample at one threshold and IoU 0.5.

    Parameters
    ----------
    scores : ProtocolScores
    threshold : float
        τ, on the protocol's grid.
    boxes : sequence of arrays (G, 4), optional
        True boxes per sample, inclusive, original pixels; None: nothing is right.
    image_sizes : sequence of (width, height)
    ranks : int array (N,)
        Rank of the true class, -1 without a prediction.

    Returns
    -------
    DataFrame (N rows)
        x0, y0, x1, y1: the box in original pixels, inclusive (NaN: no box); iou; gt_known_loc, top1_loc, top5_loc;
        right (by the rule for
        Top-k, whatever the class); error_kind.
    """
    protocol, index = scores.protocol, scores.protocol.threshold_index(threshold)
    rows = []
    for number, sweep in enumerate(scores.sweeps):
        box, iou = _box_at(sweep, protocol.component, index, image_sizes[number])
        rank = int(ranks[number])
        gt_known = bool(compare(iou, 0.5, protocol.iou_comparison))
        right = bool(compare(iou, 0.5, protocol.topk_iou_comparison))
        truth = np.zeros((0, 4)) if boxes is None else boxes[number]
        kind = error_kind(rank, right, box, truth)
        rows.append((*box, iou, gt_known, right and rank == 0, right and 0 <= rank < 5, right, kind))
    columns = ["x0", "y0", "x1", "y1", "iou", "gt_known_loc", "top1_loc", "top5_loc", "right", "error_kind"]
    table = pd.DataFrame(rows, columns=columns)
    table.loc[table["x1"] < table["x0"], ["x0", "y0", "x1", "y1"]] = np.nan
    return table


def _box_at(sweep: Sweep | None, component: str, index: int, image_size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Return the inclusive box in original pixels, x1 < x0 where there is none, and its IoU."""
    if sweep is None:
        return np.array([0.0, 0.0, -1.0, -1.0]), 0.0
    box, iou = sweep.to_inclusive().at(index, component)
    if box[2] < box[0] or box[3] < box[1]:
        return np.array([0.0, 0.0, -1.0, -1.0]), iou
    return to_image(box[None], sweep.size, image_size)[0], iou
