"""What a run's charts show, as plain numbers: the page draws them in the browser, `figures` for a paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from wsol.report.run import Run

__all__ = ["KIND_NAMES", "Charts", "SizeShares", "charts_of", "share_at_least", "sizes_of_objects"]

KIND_NAMES = {
    "right": "right",
    "part": "only a part",
    "too_much": "too much",
    "several": "several objects",
    "elsewhere": "elsewhere",
    "wrong_class": "wrong class",
}
SIZE_EDGES = (0, 5, 10, 20, 30, 50, 100)  # object's share of the image in percent
CLASS_METRICS = ("gt_known_loc", "top1_loc", "max_box_acc_50", "mean_iou", "pxap", "top1_cls")
STEPS = 100

Curve = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class SizeShares:
    """GT-known localization by the size of the object.

    Parameters
    ----------
    bins : list of str
        Shares of the image that some sample has: "5–10 %".
    counts : list of int
        Samples in each.
    values : dict of method to list of float
        Percent.
    """

    bins: list[str]
    counts: list[int]
    values: dict[str, list[float]]


@dataclass(frozen=True)
class Charts:
    """The charts of one protocol; empty where the run has nothing to show.

    Parameters
    ----------
    thresholds : dict of method to float
        τ of the summary.
    curves : dict of IoU threshold to dict of method to (τ, GT-known localization in percent)
    shares : dict of method to (IoU, percent of samples whose IoU is at least that, at the summary's τ)
    sizes : SizeShares, optional
        None where the run kept no true boxes.
    errors : dict of method to dict of error kind to percent, at the summary's τ
    classes : dict of metric to DataFrame
        Percent: a row per class, a column per method.
    """

    thresholds: dict[str, float]
    curves: dict[float, dict[str, Curve]]
    shares: dict[str, Curve]
    sizes: SizeShares | None
    errors: dict[str, dict[str, float]]
    classes: dict[str, pd.DataFrame]


def charts_of(run: Run, protocol: str) -> Charts:
    """Collect what the charts of one protocol show.

    Parameters
    ----------
    run : Run
    protocol : str
        One of the summary's.
    """
    rows = run.summary[(run.summary["protocol"] == protocol) & run.summary["threshold"].notna()]
    metrics = run.metrics[run.metrics["protocol"] == protocol]
    thresholds = dict(zip(rows["method"], rows["threshold"].astype(float), strict=True))
    if not run.boxed:
        return Charts(thresholds, {}, {}, None, {}, _class_values(metrics))
    per_image = {method: run.per_image(method, protocol, ["iou", "gt_known_loc"]) for method in rows["method"]}
    sizes = None
    if "true_boxes" in run.samples:
        right = {method: table["gt_known_loc"].to_numpy(np.float64) for method, table in per_image.items()}
        sizes = _by_size(sizes_of_objects(run.samples), right)
    shares = {method: share_at_least(table["iou"].to_numpy()) for method, table in per_image.items()}
    return Charts(thresholds, _curves(run.curves, protocol), shares, sizes, _errors(metrics), _class_values(metrics))


def share_at_least(ious: np.ndarray) -> Curve:
    """Share of samples whose IoU is at least x.

    Returns
    -------
    x (101,), percent (101,)

    Examples
    --------
    >>> at, shares = share_at_least(np.array([0.25, 0.75]))
    >>> shares[[0, 25, 26, 75, 76]].tolist()
    [100.0, 100.0, 50.0, 50.0, 0.0]
    """
    at = np.arange(STEPS + 1) / STEPS
    return at, 100 * (1 - np.searchsorted(np.sort(ious), at, side="left") / max(len(ious), 1))


def sizes_of_objects(samples: pd.DataFrame) -> np.ndarray:
    """Share of each image that its largest true box takes, in percent (N,).

    Parameters
    ----------
    samples : DataFrame
        With `true_boxes` (corners inclusive), `width` and `height`.

    Examples
    --------
    >>> sizes_of_objects(pd.DataFrame({"true_boxes": [[0, 0, 4, 9]], "width": [10], "height": [10]}))
    array([50.])
    """
    found = np.zeros(len(samples))
    rows = zip(samples["true_boxes"], samples["width"], samples["height"], strict=True)
    for number, (flat, width, height) in enumerate(rows):
        boxes = np.asarray(flat, np.float64).reshape(-1, 4)
        areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
        found[number] = 100 * areas.max(initial=0.0) / max(width * height, 1)
    return found


def _by_size(sizes: np.ndarray, right: Mapping[str, np.ndarray]) -> SizeShares:
    last = SIZE_EDGES[-1]
    spans = [(low, high, (sizes >= low) & ((sizes < high) | (high == last))) for low, high in pairwise(SIZE_EDGES)]
    kept = [(f"{low}–{high} %", inside) for low, high, inside in spans if inside.any()]
    values = {method: [100 * float(outcome[inside].mean()) for _, inside in kept] for method, outcome in right.items()}
    return SizeShares([name for name, _ in kept], [int(inside.sum()) for _, inside in kept], values)


def _curves(curves: pd.DataFrame, protocol: str) -> dict[float, dict[str, Curve]]:
    found: dict[float, dict[str, Curve]] = {}
    chosen = curves[curves["protocol"] == protocol]
    for delta in chosen["iou_threshold"].unique().tolist():
        for method, part in chosen[chosen["iou_threshold"] == delta].groupby("method", sort=False):
            curve = part["threshold"].to_numpy(), part["gt_known_loc"].to_numpy()
            found.setdefault(delta, {})[str(method)] = curve
    return found


def _errors(metrics: pd.DataFrame) -> dict[str, dict[str, float]]:
    overall = metrics[metrics["class"] == ""]
    found: dict[str, dict[str, float]] = {}
    for kind in KIND_NAMES:
        rows = overall[overall["metric"] == f"error_{kind}"]
        for method, value in zip(rows["method"], rows["value"], strict=True):
            found.setdefault(str(method), {})[kind] = float(value)
    return found


def _class_values(metrics: pd.DataFrame) -> dict[str, pd.DataFrame]:
    rows = metrics[metrics["class"] != ""]
    at_50 = (rows["metric"] == "max_box_acc") & np.isclose(rows["iou_threshold"].astype(float), 0.5)
    rows = rows.assign(metric=rows["metric"].where(~at_50, "max_box_acc_50"))
    rows["number"] = rows.groupby(["metric", "iou_threshold", "method", "class"], dropna=False).cumcount()
    found = {}
    for metric in CLASS_METRICS:
        part = rows[rows["metric"] == metric]
        if len(part):  # two classes may have the same name: the number tells them apart
            table = part.pivot_table("value", ["class", "number"], "method", sort=False, aggfunc="first")
            found[metric] = table.droplevel("number")[list(dict.fromkeys(part["method"]))]
    return found
