"""What became of each sample, for every metric of a summary: rebuilt from the sweeps, so that samples can be drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wsol.localization import Protocol
from wsol.metrics.localization import compare

__all__ = ["METRICS", "RIGHT_OR_WRONG", "Coded", "Outcomes", "sample_outcomes"]

RIGHT_OR_WRONG = (
    "top1_cls", "top5_cls", "top1_loc", "top5_loc", "gt_known_loc", "max_box_acc_30", "max_box_acc_50",
    "max_box_acc_70", "max_box_acc",
)  # fmt: skip
PER_SAMPLE = (
    "top1_cls", "top5_cls", "top1_loc", "top5_loc", "gt_known_loc", "mean_iou", "max_box_acc_30", "max_box_acc_50",
    "max_box_acc_70", "max_box_acc", "max_box_acc_v2",
)  # fmt: skip
METRICS = (*PER_SAMPLE, "pxap")
NEAR = 1e-9  # as `Protocol.threshold_index`


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Per metric one value per sample, whose mean is the metric as a fraction; PxAP, which has none, as it was drawn.

    Parameters
    ----------
    values : dict of metric to array (N,)
        Whether the sample is right (bool), its IoU, or, for `max_box_acc_v2`, at how many of the IoU thresholds.
    thresholds : dict of metric to float
        τ; NaN where there is none, or several. In the order of `METRICS`.
    oracle : frozenset of str
        Metrics whose τ is the best on these very samples.
    curves : dict of IoU threshold to int array (T,)
        How many samples are right at each τ of the protocol's grid.
    pxap : (float, float64 array (R,)), optional
        PxAP, a fraction, and what it is in each of R resamples of the images.
    """

    values: dict[str, np.ndarray]
    thresholds: dict[str, float]
    oracle: frozenset[str]
    curves: dict[float, np.ndarray]
    pxap: tuple[float, np.ndarray] | None = None

    def matrix(self) -> np.ndarray:
        """All values per sample side by side: float64 (N, K)."""
        return np.stack([np.asarray(column, np.float64) for column in self.values.values()], axis=1)

    def mean(self, metric: str) -> float:
        """Return the metric: a fraction."""
        if metric == "pxap" and self.pxap is not None:
            return self.pxap[0]
        return float(np.mean(self.values[metric], dtype=np.float64))


class Coded:
    """The run-length coded IoUs of many samples.

    Parameters
    ----------
    sweep : DataFrame
        `sample_id`, `threshold`, `iou`: a row holds until the next one of its sample.
    sample_ids : sequence of str
        The samples wanted, in their order; one without rows has IoU 0 everywhere.
    grid : float64 array (T,)
        τ.

    Examples
    --------
    >>> sweep = pd.DataFrame({"sample_id": ["a", "a", "b"], "threshold": [0.0, 0.2, 0.0], "iou": [0.3, 0.6, 0.5]})
    >>> coded = Coded(sweep, ["b", "c", "a"], np.array([0.0, 0.1, 0.2]))
    >>> coded.iou_at(0.1).tolist(), coded.counts(0.5, ">=").tolist(), coded.best_threshold(coded.counts(0.5, ">"))
    ([0.5, 0.0, 0.3], [1, 1, 2], 0.2)
    """

    def __init__(self, sweep: pd.DataFrame, sample_ids: pd.Series | list[str], grid: np.ndarray) -> None:
        self.count, self.grid = len(sample_ids), grid
        named = sweep["sample_id"].astype("category")
        positions = pd.Index(sample_ids).get_indexer(pd.Index(named.cat.categories))
        sample = positions[named.cat.codes.to_numpy()]
        wanted = sample >= 0
        self.iou = sweep["iou"].to_numpy()[wanted]
        self.threshold = sweep["threshold"].to_numpy()[wanted]
        sample = sample[wanted]
        new = np.flatnonzero(np.diff(sample, prepend=-1))
        self.starts, self.owners = new, sample[new]

    def iou_at(self, threshold: float) -> np.ndarray:
        """IoU of each sample at one τ: float64 (N,)."""
        found = np.zeros(self.count)
        if len(self.starts):
            passed = np.add.reduceat((self.threshold <= threshold + NEAR).astype(np.int64), self.starts)
            found[self.owners] = self.iou[self.starts + np.maximum(passed, 1) - 1]
        return found

    def counts(self, delta: float, comparison: str) -> np.ndarray:
        """How many samples are right at each τ: int64 (T,)."""
        first = np.searchsorted(self.grid, self.threshold - NEAR)
        end = np.full(len(first), len(self.grid))
        end[:-1] = first[1:]
        end[self.starts[1:] - 1] = len(self.grid)
        right = compare(self.iou, delta, comparison)
        steps = np.bincount(first[right], minlength=len(self.grid) + 1)
        steps -= np.bincount(end[right], minlength=len(self.grid) + 1)
        return steps.cumsum()[:-1]

    def best_threshold(self, counts: np.ndarray) -> float:
        """Return the smallest τ at which most samples are right."""
        return float(self.grid[int(counts.argmax())])


def sample_outcomes(
    row: Mapping[str, Any] | pd.Series,
    sweep: pd.DataFrame,
    samples: pd.DataFrame,
    protocol: Protocol,
    pxap: np.ndarray | None = None,
) -> Outcomes:
    """Rebuild what became of each sample under one protocol.

    Parameters
    ----------
    row : mapping
        The summary's row: which metrics apply, τ and where it comes from.
    sweep : DataFrame
        Of the same method and protocol: `sample_id`, `threshold`, `iou`.
    samples : DataFrame
        `sample_id` and `rank` of the samples wanted: all of the run's, or some. An oracle's τ is the best on these.
    protocol : Protocol
        With a grid that all maps share.
    pxap : array (R,), optional
        PxAP in resamples of the images, where the row's PxAP is of these very samples.

    Returns
    -------
    Outcomes
        Of all metrics that the row has, in the order of `METRICS`; of PxAP only if `pxap` is given.
    """
    applies = [metric for metric in PER_SAMPLE if pd.notna(row[metric])]
    rank = samples["rank"].to_numpy()
    top = {"top1": rank == 0, "top5": (rank >= 0) & (rank < 5)}
    found: dict[str, tuple[np.ndarray, float]] = {f"{k}_cls": (right, np.nan) for k, right in top.items()}
    oracle: set[str] = set()
    curves: dict[float, np.ndarray] = {}
    if pd.notna(row["gt_known_loc"]):
        coded, rules = Coded(sweep, samples["sample_id"], protocol.grid()), protocol.iou_comparison
        curves = {delta: coded.counts(delta, rules) for delta in sorted({*protocol.iou_thresholds, 0.5})}
        is_oracle = row["threshold_source"] == "oracle"
        tau = coded.best_threshold(curves[0.5]) if is_oracle else float(row["threshold"])
        iou = coded.iou_at(tau)
        topk = compare(iou, 0.5, protocol.topk_iou_comparison)
        found |= {f"{k}_loc": (right & topk, tau) for k, right in top.items()}
        found |= {"gt_known_loc": (compare(iou, 0.5, rules), tau), "mean_iou": (iou, tau)}
        oracle |= {"top1_loc", "top5_loc", "gt_known_loc", "mean_iou"} if is_oracle else set()
        found |= _best_boxes(coded, protocol, curves)
        oracle |= {metric for metric in found if metric.startswith("max_box_acc")}
    chosen = {metric: found[metric] for metric in applies}
    thresholds = {metric: threshold for metric, (_, threshold) in chosen.items()}
    drawn = None if pxap is None or pd.isna(row["pxap"]) else (float(row["pxap"]) / 100, pxap)
    return Outcomes(
        {metric: values for metric, (values, _) in chosen.items()},
        thresholds if drawn is None else thresholds | {"pxap": np.nan},
        frozenset(oracle & set(applies)),
        curves,
        drawn,
    )


def _best_boxes(
    coded: Coded, protocol: Protocol, curves: Mapping[float, np.ndarray]
) -> dict[str, tuple[np.ndarray, float]]:
    """MaxBoxAcc at each of the protocol's IoU thresholds, each at its own best τ, and their mean."""
    found: dict[str, tuple[np.ndarray, float]] = {}
    total = np.zeros(coded.count)
    for delta in protocol.iou_thresholds:
        tau = coded.best_threshold(curves[delta])
        right = compare(coded.iou_at(tau), delta, protocol.iou_comparison)
        found[f"max_box_acc_{round(100 * delta)}"] = right, tau
        total += right
    if "max_box_acc_50" in found:
        found["max_box_acc"] = found["max_box_acc_50"]
    return found | {"max_box_acc_v2": (total / len(protocol.iou_thresholds), np.nan)}
