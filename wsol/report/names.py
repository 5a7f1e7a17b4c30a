"""How methods and metrics are called in sentences and on pages."""

from __future__ import annotations

__all__ = ["METHOD_NAMES", "METRIC_NAMES", "method_name"]

METHOD_NAMES = {
    "cam": "CAM",
    "gradcam": "Grad-CAM",
    "gradcampp": "Grad-CAM++",
    "gradcamelementwise": "element-wise Grad-CAM",
    "xgradcam": "XGrad-CAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "eigencam": "Eigen-CAM",
    "eigengradcam": "EigenGrad-CAM",
    "kpcacam": "KPCA-CAM",
    "finercam": "Finer-CAM",
    "fem": "FEM",
    "shapleycam": "ShapleyCAM",
    "scorecam": "Score-CAM",
    "sscam": "SS-CAM",
    "iscam": "IS-CAM",
    "ablationcam": "Ablation-CAM",
    "smoothgradcampp": "Smooth Grad-CAM++",
    "fullgrad": "FullGrad",
    "rise": "RISE",
    "occlusion": "Occlusion",
    "saliency": "Saliency",
    "guidedbackprop": "Guided Backpropagation",
    "deconvnet": "Deconvnet",
    "guidedgradcam": "Guided Grad-CAM",
    "smoothgrad": "SmoothGrad",
    "integratedgradients": "Integrated Gradients",
    "rollout": "Attention Rollout",
    "legrad": "LeGrad",
    "center": "the center baseline",
    "random": "the random baseline",
    "full": "the full-image baseline",
}
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
    return METHOD_NAMES.get(name, name) + (f" at {layer}" if at else "")
