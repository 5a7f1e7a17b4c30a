"""Localization accuracy over threshold, as integer counts that add up over shards, workers and machines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics import Metric

from wsol.errors import UserError

__all__ = ["FIXED_POINT", "OUTCOMES", "LocalizationAccuracy", "compare"]

OUTCOMES = ("gt_known_loc", "top1_loc", "top5_loc")
FIXED_POINT = 2**40  # fractions are summed as whole multiples of 1 / FIXED_POINT: exact in any order


class LocalizationAccuracy(Metric):
    """GT-known, Top-1 and Top-5 localization accuracy at every threshold and IoU threshold.

    A sample is right at top-k when its true class is among the k best *and* the box from the true class's heatmap
    overlaps a true box enough; GT-known asks for the box only. From the GT-known curve come MaxBoxAcc (its maximum
    over τ) and MaxBoxAccV2 (the mean over IoU thresholds of their maxima, each at its own τ).

    Parameters
    ----------
    thresholds : sequence of float, (T,)
        Grid of τ.
    iou_thresholds : sequence of float, (D,)
        δ in [0, 1].
    iou_comparison, topk_iou_comparison : ">=" or ">"
        How IoU is compared with δ for GT-known, and for Top-1 and Top-5 (by default the same).
    num_classes : int
        Classes to count separately.

    References
    ----------
    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, the
    localization error;
    Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020, the definitions of BoxAcc,
    MaxBoxAcc and MaxBoxAccV2.

    Examples
    --------
    >>> metric = LocalizationAccuracy([0.0, 0.5], iou_thresholds=[0.5])
    >>> metric.update(ious=[[0.2, 0.6], [0.5, 0.5]], ranks=[0, 3])
    >>> metric.curve("gt_known_loc", 0.5).tolist(), metric.curve("top1_loc", 0.5).tolist()
    ([0.5, 1.0], [0.0, 0.5])
    >>> metric.best_threshold(), metric.max_box_acc(0.5)
    (0.5, 1.0)
    """

    full_state_update = False
    hits: torch.Tensor
    iou_sum: torch.Tensor
    count: torch.Tensor
    class_hits: torch.Tensor
    class_count: torch.Tensor

    def __init__(
        self,
        thresholds: Sequence[float] | np.ndarray,
        iou_thresholds: Sequence[float] = (0.3, 0.5, 0.7),
        iou_comparison: str = ">=",
        topk_iou_comparison: str | None = None,
        num_classes: int = 1,
    ) -> None:
        super().__init__()
        self.thresholds = np.asarray(thresholds, np.float64)
        self.iou_thresholds = tuple(float(delta) for delta in iou_thresholds)
        self.comparisons = (iou_comparison, topk_iou_comparison or iou_comparison)
        shape = (len(OUTCOMES), len(self.iou_thresholds), len(self.thresholds))
        self.add_state("hits", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("iou_sum", torch.zeros(len(self.thresholds), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        per_class = (num_classes, *shape[1:])
        self.add_state("class_hits", torch.zeros(per_class, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("class_count", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, ious: np.ndarray, ranks: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Count samples.

        Parameters
        ----------
        ious : array (B, T)
            IoU of the protocol's box with the best true box, at every threshold; 0 where there is no box.
        ranks : int array (B,)
            Rank of the true class among the logits, 0 is the best; -1 where there is no prediction.
        labels : int array (B,), optional
            True class; by default all are of class 0.
        """
        overlap = np.asarray(ious, np.float64)
        rank = np.asarray(ranks)
        label = torch.from_numpy(np.zeros(len(rank), np.int64) if labels is None else np.array(labels, np.int64))
        label = label.to(self.class_count.device)
        if overlap.ndim != 2 or overlap.shape != (len(rank), len(self.thresholds)):
            raise UserError(
                f"ious has shape {overlap.shape}; wanted ({len(rank)} samples, {len(self.thresholds)} thresholds)"
            )
        deltas = np.array(self.iou_thresholds)[:, None]
        right = compare(overlap[:, None], deltas, self.comparisons[0])  # (B, D, T)
        same = self.comparisons[0] == self.comparisons[1]
        right_topk = right if same else compare(overlap[:, None], deltas, self.comparisons[1])
        rows = (right, right_topk[rank == 0], right_topk[(rank >= 0) & (rank < 5)])
        self.hits += torch.from_numpy(np.stack([row.sum(0) for row in rows])).to(self.hits.device)
        self.class_hits.index_add_(0, label, torch.from_numpy(right.astype(np.int64)).to(self.class_hits.device))
        fixed = np.rint(overlap * FIXED_POINT).astype(np.int64).sum(0)
        self.iou_sum += torch.from_numpy(fixed).to(self.iou_sum.device)
        self.count += len(rank)
        self.class_count.index_add_(0, label, torch.ones_like(label))

    def compute(self) -> dict[str, torch.Tensor]:
        """Return all curves as fractions, merged over processes.

        Returns
        -------
        dict of str to tensor
            Each outcome (D, T); `mean_iou` (T,); `class_max_box_acc` (C, D), NaN for a class without samples.
        """
        total = max(int(self.count), 1)
        curves = {name: self.hits[number].double() / total for number, name in enumerate(OUTCOMES)}
        best = self.class_hits.amax(2).double() / self.class_count.double()[:, None]  # (C, D)
        return curves | {"mean_iou": self.iou_sum.double() / FIXED_POINT / total, "class_max_box_acc": best}

    def curve(self, outcome: str, delta: float) -> np.ndarray:
        """Return one accuracy (T,) over the thresholds, a fraction.

        Raises
        ------
        UserError
            If δ is not among the IoU thresholds.
        """
        # torchmetrics makes a scalar of whatever has one element only.
        shape = (len(self.iou_thresholds), len(self.thresholds))
        return self.compute()[outcome].reshape(shape)[self._index(delta)].cpu().numpy()

    def best_threshold(self, delta: float = 0.5) -> float:
        """Return the smallest τ at which GT-known localization is highest."""
        return float(self.thresholds[int(np.argmax(self.curve("gt_known_loc", delta)))])

    def max_box_acc(self, delta: float) -> float:
        """Return MaxBoxAcc at δ: GT-known localization at its best τ, a fraction."""
        return float(self.curve("gt_known_loc", delta).max())

    def max_box_acc_v2(self, deltas: Sequence[float] | None = None) -> float:
        """Return the mean of MaxBoxAcc over IoU thresholds (by default all that are counted), a fraction."""
        return float(np.mean([self.max_box_acc(delta) for delta in deltas or self.iou_thresholds]))

    def class_max_box_acc(self, delta: float) -> np.ndarray:
        """Return MaxBoxAcc at δ of each class (C,), each at its own best τ; NaN for a class without samples."""
        best = self.compute()["class_max_box_acc"].reshape(-1, len(self.iou_thresholds))
        return best[:, self._index(delta)].cpu().numpy()

    def _index(self, delta: float) -> int:
        for number, known in enumerate(self.iou_thresholds):
            if abs(known - delta) < 1e-9:
                return number
        raise UserError(f"IoU threshold {delta} was not counted; there are {self.iou_thresholds}")


def compare(iou: np.ndarray | float, limit: np.ndarray | float, comparison: str) -> np.ndarray:
    """Compare IoUs with an IoU threshold as a protocol says: ">=" or ">"."""
    return np.asarray(iou) >= limit if comparison == ">=" else np.asarray(iou) > limit
