"""What a run's charts show, as plain numbers: the page draws them in the browser, `figures` for a paper."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pandas as pd

from wsol.report.run import Run
from wsol.report.style import KINDS

SIZE_EDGES = (0, 5, 10, 20, 30, 50, 100)  # object's share of the image in percent
CLASS_METRICS = ("gt_known_loc", "top1_loc", "max_box_acc_50", "mean_iou", "pxap", "top1_cls")
IOU_STEPS = np.arange(101) / 100


def chart_data(run: Run, protocol: str) -> dict[str, Any]:
    """Collect what the charts of one protocol show, as `templates/report.js` reads it; empty where there is nothing.

    `curves` are samples GT-known right at each τ of `grid`, by IoU threshold and method; the rest is percent: `shares`
    of samples whose IoU is at least `IOU_STEPS`, GT-known localization by object `sizes` (None: no ground truth was
    kept), `errors` by kind, all at the summary's τ, and `classes` by metric.
    """
    rows = run.summary[(run.summary["protocol"] == protocol) & run.summary["threshold"].notna()]
    metrics = run.metrics[run.metrics["protocol"] == protocol]
    methods = list(rows["method"]) if run.boxed else []
    per_image = {method: run.per_image(method, protocol, ["iou", "gt_known_loc"]) for method in methods}
    right = {method: table["gt_known_loc"].to_numpy(np.float64) for method, table in per_image.items()}
    count = int(run.summary["n_samples"].iloc[0])
    return {
        "count": count,
        "grid": run.protocols[protocol].grid(),
        "thresholds": dict(zip(rows["method"], rows["threshold"].astype(float), strict=True)),
        "curves": _curves(run.curves[run.curves["protocol"] == protocol], count) if methods else {},
        "shares": {method: share_at_least(table["iou"].to_numpy()).round(2) for method, table in per_image.items()},
        "sizes": _by_size(object_sizes(run.samples), right) if methods and "true_boxes" in run.samples else None,
        "errors": _errors(metrics, methods),
        "classes": _class_values(metrics),
    }


def share_at_least(ious: np.ndarray) -> np.ndarray:
    """Percent of samples whose IoU is at least each of `IOU_STEPS`: float64 (101,)."""
    return 100 * (1 - np.searchsorted(np.sort(ious), IOU_STEPS, side="left") / max(len(ious), 1))


def object_sizes(samples: pd.DataFrame) -> np.ndarray:
    """Share of each image that its largest ground-truth box takes, in percent: float64 (N,)."""
    sizes = np.zeros(len(samples))
    rows = zip(samples["true_boxes"], samples["width"], samples["height"], strict=True)
    for number, (corners, width, height) in enumerate(rows):
        boxes = np.asarray(corners, np.float64).reshape(-1, 4)  # inclusive
        areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
        sizes[number] = 100 * areas.max(initial=0.0) / max(width * height, 1)
    return sizes


def _curves(curves: pd.DataFrame, count: int) -> dict[str, dict[str, np.ndarray]]:
    counts: dict[str, dict[str, np.ndarray]] = {}
    for row, part in curves.groupby(["iou_threshold", "method"], sort=False)["gt_known_loc"]:
        delta, method = cast(tuple[float, str], row)
        counts.setdefault(f"{delta:g}", {})[method] = np.rint(part.to_numpy() / 100 * count).astype(int)
    return counts


def _by_size(sizes: np.ndarray, right: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """GT-known localization by ranges of object sizes, as far as there are samples: "5–10 %"."""
    names = [f"{low}–{high} %" for low, high in pairwise(SIZE_EDGES)]
    bins = np.digitize(sizes, SIZE_EDGES[1:-1])
    present, counts = np.unique(bins, return_counts=True)
    values = {name: [100 * float(matches[bins == one].mean()) for one in present] for name, matches in right.items()}
    return {"bins": [names[one] for one in present], "counts": counts, "values": values}


def _errors(metrics: pd.DataFrame, methods: list[str]) -> dict[str, list[float]]:
    rows = metrics[(metrics["class"] == "") & metrics["metric"].str.startswith("error_")]
    values = dict(zip(zip(rows["method"], rows["metric"], strict=True), rows["value"], strict=True))
    return {method: [values.get((method, f"error_{kind.key}"), 0.0) for kind in KINDS] for method in methods}


def _class_values(metrics: pd.DataFrame) -> dict[str, Any]:
    rows = metrics[metrics["class"] != ""]
    at_50 = (rows["metric"] == "max_box_acc") & np.isclose(rows["iou_threshold"].astype(float), 0.5)
    rows = rows.assign(metric=rows["metric"].where(~at_50, "max_box_acc_50"))
    # Two classes may have the same name: the number tells them apart.
    rows["number"] = rows.groupby(["metric", "iou_threshold", "method", "class"], dropna=False).cumcount()
    tables = {}
    for metric in (name for name in CLASS_METRICS if name in set(rows["metric"])):
        part = rows[rows["metric"] == metric]
        table = part.pivot_table("value", ["class", "number"], "method", sort=False, aggfunc="first")
        values = {method: table[method].to_numpy(np.float64).round(2) for method in dict.fromkeys(part["method"])}
        tables[metric] = {"names": [str(name) for name, _ in table.index], "values": values}
    return tables
