"""What a run's charts show, as plain numbers, and in which colors: the page draws them, `figures` for a paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wsol.heatmaps.method import BASELINES, method_cards
from wsol.metrics.localization import ERROR_KINDS, strata
from wsol.report.run import Run

METRIC_NAMES = {
    "top1_cls": "Top-1 classification", "top5_cls": "Top-5 classification", "top1_loc": "Top-1 localization",
    "top5_loc": "Top-5 localization", "gt_known_loc": "GT-known localization", "mean_iou": "mean IoU",
    "max_box_acc_30": "MaxBoxAcc at IoU 30", "max_box_acc_50": "MaxBoxAcc at IoU 50",
    "max_box_acc_70": "MaxBoxAcc at IoU 70", "max_box_acc": "MaxBoxAcc", "max_box_acc_v2": "MaxBoxAccV2",
    "pxap": "PxAP", "deletion": "deletion", "insertion": "insertion", "average_drop": "average drop",
    "increase": "increase", "gain": "gain", "road_most": "ROAD, most", "road_least": "ROAD, least", "road": "ROAD",
}  # fmt: skip
KINDS = [ERROR_KINDS[key] for key in ("right", "part", "too_much", "several", "elsewhere", "wrong_class")]
# Of Okabe and Ito and, the last, of Tol; the same as --s0 … --s5 of the style sheet on light paper.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#332288")
GRAY = "#767c85"
DASHES = ("", "7 3", "2 2.5")
BASELINE_DASHES = ("5 3", "1.5 3", "9 3")


@dataclass(frozen=True)
class Style:
    """How a series is drawn: its color on white paper, the style sheet's variable for it, dashes as SVG has them."""

    color: str
    variable: str
    dash: str


def format_number(value: float, digits: int = 1) -> str:
    """Write points with a real minus sign, and none before zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def method_name(method: str) -> str:
    """Name a method as its paper does, "Grad-CAM at layer3" for "gradcam@layer3"; others keep their name."""
    name, at, layer = method.partition("@")
    cards = method_cards()
    return (cards[name].title if name in cards else name) + (f" at {layer}" if at else "")


def method_names(methods: Iterable[str]) -> dict[str, str]:
    """Name methods as `method_name` does; those of one name, as `cam` and somebody's heatmaps `CAM`, keep their own."""
    names = {method: method_name(method) for method in methods}
    counts = Counter(names.values())
    return {method: name if counts[name] == 1 else method for method, name in names.items()}


def series_styles(names: Sequence[str], functions: Mapping[str, str] | None = None) -> dict[str, Style]:
    """Give every series a color and, from the seventh on, a dash; baselines are gray.

    `functions` says which heatmap function a name stands for: `center` under another name is a baseline as well.
    """
    baselines = [name for name in names if (functions or {}).get(name, name) in BASELINES]
    colored = [name for name in names if name not in baselines]
    styles = {}
    for name in names:
        if name in baselines:
            dash = BASELINE_DASHES[baselines.index(name) % len(BASELINE_DASHES)]
            styles[name] = Style(GRAY, "var(--baseline)", dash)
        else:
            turn, number = divmod(colored.index(name), len(SERIES))
            styles[name] = Style(SERIES[number], f"var(--s{number})", DASHES[turn % len(DASHES)])
    return styles


CLASS_METRICS = ("gt_known_loc", "top1_loc", "max_box_acc_50", "mean_iou", "pxap", "top1_cls")
IOU_STEPS = np.arange(101) / 100


def chart_data(run: Run, protocol: str) -> dict[str, Any]:
    """Collect what the charts of one protocol show, as `templates/report.js` reads it; empty where there is nothing.

    `curves` are samples GT-known right at each τ of `grid`, by IoU threshold and method; the rest is percent: `shares`
    of samples whose IoU is at least `IOU_STEPS`, GT-known localization by object `sizes` and number of `instances`,
    `errors` by kind, all at the summary's τ, `costs` the points of Top-1 localization that each kind costs, and
    `classes` by metric.
    """
    rows = run.summary[(run.summary["protocol"] == protocol) & run.summary["gt_known_loc"].notna()]
    metrics, methods = run.metrics[run.metrics["protocol"] == protocol], list(rows["method"])
    per_image = {method: run.per_image(method, protocol, ["iou", "gt_known_loc", "error_kind"]) for method in methods}
    right = pd.DataFrame({method: table["gt_known_loc"].astype(float) for method, table in per_image.items()})
    count = int(run.summary["n_samples"].iloc[0])
    return {
        "count": count,
        "grid": run.protocols[protocol].grid(),
        "thresholds": rows.set_index("method")["threshold"].dropna().to_dict(),
        "curves": _curves(run.curves[run.curves["protocol"] == protocol], count) if len(run.curves) else {},
        "shares": {method: share_at_least(table["iou"].to_numpy()).round(2) for method, table in per_image.items()},
        "sizes": by_stratum("size", run.samples, right) if methods else None,
        "instances": by_stratum("instances", run.samples, right) if methods else None,
        "errors": _errors(metrics, methods),
        "costs": {method: error_costs(table) for method, table in per_image.items()},
        "classes": _class_values(metrics),
    }


def error_costs(per_image: pd.DataFrame) -> dict[str, float]:
    """Points of Top-1 localization to gain if all samples of one kind were fixed, by the kind's label.

    A wrong class alone is fixed where the box is right; elsewhere the box would be wrong still.
    """
    fixed = (per_image["error_kind"] != "wrong_class") | per_image["gt_known_loc"]
    kinds = per_image["error_kind"].where(fixed)
    return {kind.label: 100 * float((kinds == kind.key).mean()) for kind in KINDS if kind.key != "right"}


def share_at_least(ious: np.ndarray) -> np.ndarray:
    """Percent of samples whose IoU is at least each of `IOU_STEPS`: float64 (101,)."""
    return 100 * (1 - np.searchsorted(np.sort(ious), IOU_STEPS, side="left") / len(ious))


def _curves(curves: pd.DataFrame, count: int) -> dict[str, dict[str, np.ndarray]]:
    curves = curves.assign(right=np.rint(curves["gt_known_loc"] / 100 * count).astype(int))
    return {
        f"{delta:g}": {str(method): part.to_numpy() for method, part in rows.groupby("method", sort=False)["right"]}
        for delta, rows in curves.groupby("iou_threshold", sort=False)
    }


def by_stratum(kind: str, samples: pd.DataFrame, right: pd.DataFrame) -> dict[str, Any] | None:
    """GT-known localization by "size" or "instances", as far as there are samples: "4–9 %" or "2"."""
    boxes = [np.reshape(corners, (-1, 4)) for corners in samples["true_boxes"]]  # inclusive
    members = strata(boxes, samples[["width", "height"]].to_numpy())
    chosen = {name.removeprefix(f"{kind}_"): rows for name, rows in members.items() if name.startswith(kind)}
    if kind == "instances" and len(chosen) < 2:
        return None  # all images have one object, say
    names = [f"{name.replace('_', '–')} %" if kind == "size" else name.replace("_", " ") for name in chosen]
    values = {method: [100 * right[method][rows].mean() for rows in chosen.values()] for method in right}
    return {"bins": names, "counts": [int(rows.sum()) for rows in chosen.values()], "values": values}


def _errors(metrics: pd.DataFrame, methods: list[str]) -> dict[Hashable, list[float]]:
    rows = metrics[(metrics["class"] == "") & metrics["metric"].str.startswith("error_")]
    shares = rows.pivot(index="metric", columns="method", values="value")
    return shares.reindex([f"error_{kind.key}" for kind in KINDS], columns=methods).fillna(0.0).to_dict("list")


def _class_values(metrics: pd.DataFrame) -> dict[str, Any]:
    rows = metrics[metrics["class"] != ""]
    at_50 = (rows["metric"] == "max_box_acc") & np.isclose(rows["iou_threshold"], 0.5)
    rows = rows.assign(metric=rows["metric"].where(~at_50, "max_box_acc_50"))
    # Two classes may have the same name: the number tells them apart.
    rows["number"] = rows.groupby(["metric", "iou_threshold", "method", "class"], dropna=False).cumcount()
    tables = {}
    for metric in (name for name in CLASS_METRICS if name in set(rows["metric"])):
        part = rows[rows["metric"] == metric]
        table = part.pivot_table("value", ["class", "number"], "method", sort=False, aggfunc="first")
        values = {method: table[method].to_numpy().round(2) for method in table}
        tables[metric] = {"names": list(table.index.get_level_values("class")), "values": values}
    return tables
