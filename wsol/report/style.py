"""How methods, metrics and kinds of error are called and colored, on pages and in figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wsol.heatmaps.method import BASELINES, method_cards
from wsol.metrics.localization import ERROR_KINDS

METRIC_NAMES = {
    "top1_cls": "Top-1 classification", "top5_cls": "Top-5 classification", "top1_loc": "Top-1 localization",
    "top5_loc": "Top-5 localization", "gt_known_loc": "GT-known localization", "mean_iou": "mean IoU",
    "max_box_acc_30": "MaxBoxAcc at IoU 30", "max_box_acc_50": "MaxBoxAcc at IoU 50",
    "max_box_acc_70": "MaxBoxAcc at IoU 70", "max_box_acc": "MaxBoxAcc", "max_box_acc_v2": "MaxBoxAccV2",
    "pxap": "PxAP",
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


def method_name(method: str) -> str:
    """Name a method as its paper does, "Grad-CAM at layer3" for "gradcam@layer3"; others keep their name."""
    name, at, layer = method.partition("@")
    cards = method_cards()
    return (cards[name].title if name in cards else name) + (f" at {layer}" if at else "")


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
