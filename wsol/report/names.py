"""How methods and metrics are called in sentences and on pages."""

from __future__ import annotations

from wsol.heatmaps.method import method_cards

__all__ = ["METRIC_NAMES", "method_name"]

METRIC_NAMES = {
    "top1_cls": "Top-1 classification",
    "top5_cls": "Top-5 classification",
    "top1_loc": "Top-1 localization",
    "top5_loc": "Top-5 localization",
    "gt_known_loc": "GT-known localization",
    "mean_iou": "mean IoU",
    "max_box_acc_30": "MaxBoxAcc at IoU 30",
    "max_box_acc_50": "MaxBoxAcc at IoU 50",
    "max_box_acc_70": "MaxBoxAcc at IoU 70",
    "max_box_acc": "MaxBoxAcc",
    "max_box_acc_v2": "MaxBoxAccV2",
    "pxap": "PxAP",
}


def method_name(method: str) -> str:
    """Name a method as its paper does; one of the user's own keeps its name.

    Examples
    --------
    >>> method_name("layercam"), method_name("gradcam@layer3"), method_name("mine")
    ('LayerCAM', 'Grad-CAM at layer3', 'mine')
    """
    name, at, layer = method.partition("@")
    cards = method_cards()
    title = cards[name].title if name in cards else name
    return title + (f" at {layer}" if at else "")
