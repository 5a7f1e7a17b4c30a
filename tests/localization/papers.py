"""Each paper's scoring again, plain and obvious, with OpenCV and scikit-image; nothing here comes from wsol.

A truth function gets the annotation, `x y width height` on CUB and corners on ILSVRC, and the image's width and height;
a box function a heatmap of the view and τ; an IoU function two boxes. Files and lines are the papers' repositories'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from skimage.measure import label, regionprops

Box = list[float]
CUB = "cub"


class Paper(NamedTuple):
    truth: Callable[[str, list[Box], int, int], list[Box]]
    box: Callable[[np.ndarray, float], Box | list[Box]]  # all of them where the best one counts
    iou: Callable[[Box, Box], float]
    thresholds: tuple[float, float]


# Ground truth


def corners(dataset: str, boxes: list[Box]) -> list[Box]:
    return [[x, y, x + w, y + h] for x, y, w, h in boxes] if dataset == CUB else boxes


def choe_truth(dataset: str, boxes: list[Box], width: int, height: int) -> list[Box]:
    """clovaai/wsolevaluation data_loaders.py get_bounding_boxes, util.py resize_bbox; metadata have integers."""
    return [[int(v * 224 / (width, height)[k % 2]) for k, v in enumerate(box)] for box in corners(dataset, boxes)]


def gao_truth(
    dataset: str, boxes: list[Box], width: int, height: int, side: int = 224, whole: bool = True
) -> list[Box]:
    """vasgaowei/TS-CAM lib/datasets/cub.py:98-117, imagenet.py:116-142; callsys/GenPromp datasets/base.py:305-313."""
    if dataset == CUB and whole:
        boxes = [[int(value) for value in box] for box in boxes]
    seen = []
    for x0, y0, x1, y1 in corners(dataset, boxes):
        begin = int(max(x0 / width * side, 0)), int(max(y0 / height * side, 0))
        seen.append([*begin, int(min(x1 / width * side, side - 1)), int(min(y1 / height * side, side - 1))])
    return seen


def genpromp_truth(dataset: str, boxes: list[Box], width: int, height: int) -> list[Box]:
    """callsys/GenPromp datasets/base.py:305-313, 549-553."""
    return gao_truth(dataset, boxes, width, height, side=512, whole=False)


def one_sided(boxes: list[Box], width: int, height: int, last: int) -> list[Box]:
    """256 square, center 224: left and top raised to 0, right and bottom lowered."""
    seen = []
    for x0, y0, x1, y1 in boxes:
        begin = max(x0 / width * 256 - 16, 0), max(y0 / height * 256 - 16, 0)
        seen.append([*begin, min(x1 / width * 256 - 16, last), min(y1 / height * 256 - 16, last)])
    return seen


def bas_truth(dataset: str, boxes: list[Box], width: int, height: int) -> list[Box]:
    """wpy1999/BAS CUB/BAS_inference.py:186-194, ILSVRC/BAS_inference.py:191-202."""
    return one_sided(corners(dataset, boxes), width, height, 224)


def psol_truth(dataset: str, boxes: list[Box], width: int, height: int) -> list[Box]:
    """tzzcl/PSOL utils/IoU.py:20-42; CVI-SZU/CCAM WSOL/PSOL/inference_CUB.py:104-107."""
    shift = 0 if dataset == CUB else 1
    return one_sided([[v - shift for v in box] for box in corners(dataset, boxes)], width, height, 224)


def cream_truth(dataset: str, boxes: list[Box], width: int, height: int) -> list[Box]:
    """Jazzcharles/CREAM loader/cub_loader.py:96."""
    return one_sided([[int(v) for v in box] for box in corners(dataset, boxes)], width, height, 224)


def sat_truth(dataset: str, boxes: list[Box], width: int, height: int) -> list[Box]:
    """wpy1999/SAT DataLoader/CUB_200_2011.py:23-26, ILSVRC.py:26-30."""
    return [[int(v) for v in box] for box in one_sided(corners(dataset, boxes), width, height, 223)]


def bae_truth(dataset: str, boxes: list[Box], width: int, height: int) -> list[Box]:
    """won-bae/rethinkingCAM src/core/datasets.py:47-58, 149-160."""
    late = 1 if dataset == CUB else 0
    x0, y0, x1, y1 = corners(dataset, boxes)[0]
    box = one_sided([[x0, y0, x1 - late, y1 - late]], width, height, 223)[0]
    return [[int(value) for value in box]]


def spa_truth(dataset: str, boxes: list[Box], width: int, height: int) -> list[Box]:
    """Panxjia/SPA_CVPR2021 exper/val_spa.py:163."""
    return [[x, y, x + w - 1, y + h - 1] for x, y, w, h in boxes] if dataset == CUB else boxes


def ccam_truth(dataset: str, boxes: list[Box], width: int, height: int) -> list[Box]:
    """CVI-SZU/CCAM WSOL/dataset/cub200.py:119-126, ilsvrc.py:24-48, 80-83."""
    return [[v / (width, height)[k % 2] * 480 - 16 for k, v in enumerate(box)] for box in corners(dataset, boxes)]


def tokencut_truth(dataset: str, boxes: list[Box], width: int, height: int) -> list[Box]:
    """YangtaoWANG95/TokenCut weakly_supvervised_detection/datasets.py:68-72, 222-226."""
    side, late = (224, 1) if dataset == CUB else (256, 0)
    x0, y0, x1, y1 = corners(dataset, boxes)[0]
    return [[int(v / min(width, height) * side) for v in (x0, y0, x1 - late, y1 - late)]]


def short_side(box: Box, width: int, height: int) -> Box:
    """LCTR datasets.py:85-104, 141-152: shorter side 256, center 224, all four clipped."""
    scale = 256 / min(width, height)
    left, top = (round((side * scale - 224 + 1) / 2) for side in (width, height))
    shifted = [box[0] * scale - left, box[1] * scale - top, box[2] * scale - left, box[3] * scale - top]
    return [min(max(value, 0), 224) for value in shifted]


def lctr_truth(dataset: str, boxes: list[Box], width: int, height: int) -> list[Box]:
    """LCTR datasets.py:38-70, 72-104: the last line of an image."""
    return [short_side(corners(dataset, boxes)[-1], width, height)]


def locloc_truth(dataset: str, boxes: list[Box], width: int, height: int) -> list[Box]:
    """LocLoc utils/cub_feat.py:104, 253."""
    return [short_side(corners(dataset, [[int(v) for v in boxes[0]]])[0], width, height)]


def ddt_truth(dataset: str, boxes: list[Box], width: int, height: int) -> list[Box]:
    """Its boxes are stored relative to the 448 square (tzzcl/PSOL generate_box_imagenet.py:99-126)."""
    return [[v / (width, height)[k % 2] * 448 for k, v in enumerate(box)] for box in corners(dataset, boxes)]


# Intersection over union


def overlap(a: Box, b: Box, plus: int, clamped: bool) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]) + plus, min(a[3], b[3]) - max(a[1], b[1]) + plus
    both = max(w, 0) * max(h, 0) if clamped else w * h
    union = (a[2] - a[0] + plus) * (a[3] - a[1] + plus) + (b[2] - b[0] + plus) * (b[3] - b[1] + plus) - both
    return both / union if union else 0.0


def inclusive(a: Box, b: Box) -> float:
    """E.g. TS-CAM lib/cams_deit.py:292-304, BAS, SAT utils/func.py:45-50, SPA utils/evaluate.py, C's box_iou."""
    return overlap(a, b, 1, True)


def unclamped_inclusive(a: Box, b: Box) -> float:
    """rethinkingCAM src/utils/metrics.py:69-84; TokenCut weakly_supvervised_detection/metrics.py."""
    return overlap(a, b, 1, False)


def corner_iou(a: Box, b: Box) -> float:
    """PSOL utils/IoU.py, LCTR and LocLoc utils.py, CCAM WSOL/utils.py."""
    return overlap(a, b, 0, True)


def unclamped_corner_iou(a: Box, b: Box) -> float:
    """CVI-SZU/CCAM WSOL/utils.py:133-150, on ILSVRC."""
    return overlap(a, b, 0, False)


# From a heatmap to a box


def enlarged(heatmap: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    return heatmap if heatmap.shape == size[::-1] else cv2.resize(heatmap, size, interpolation=interpolation)


def minmax(values: np.ndarray, epsilon: float = 0.0) -> np.ndarray:
    """A constant map divides 0 by 0, whose NaN becomes gray level 0, or passes no cut; some code asks before."""
    span = values.max() - values.min() + epsilon
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)


def contours(values: np.ndarray, tau: float, percentile: float = 100) -> list[Box]:
    """8 bits, above int(τ · maximum): x, y, x + w, y + h of every contour, the one of the largest area first."""
    levels = (values * 255).astype(np.uint8)
    above = (levels > int(tau * np.percentile(levels, percentile))).astype(np.uint8)
    lines = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    boxes = [cv2.boundingRect(line) for line in sorted(lines, key=cv2.contourArea, reverse=True)]
    return [[x, y, x + w, y + h] for x, y, w, h in boxes]


def most_pixels(above: np.ndarray) -> list[Box]:
    """Half-open box of the component with the most pixels, 8-connected, the first among equals."""
    regions = sorted(regionprops(label(above, connectivity=2)), key=lambda region: -region.area)
    return [[region.bbox[1], region.bbox[0], region.bbox[3], region.bbox[2]] for region in regions[:1]]


def within(boxes: list[Box], width: int, height: int) -> list[Box]:
    return [[x0, y0, min(x1, width - 1), min(y1, height - 1)] for x0, y0, x1, y1 in boxes]


def gao_box(heatmap: np.ndarray, tau: float, side: int = 224, empty: Box | None = None) -> Box:
    """TS-CAM lib/cams_deit.py:10-16, 37-53; GenPromp datasets/evaluation/cam.py; LCTR vis_tools.py:17-55."""
    values = minmax(enlarged(heatmap, (side, side), cv2.INTER_LINEAR))
    return [*contours(values, tau), empty or [0, 0, 1, 1]][0]


def genpromp_box(heatmap: np.ndarray, tau: float) -> Box:
    """GenPromp datasets/evaluation/cam.py:7-14."""
    return gao_box(heatmap, tau, side=512)


def lctr_box(heatmap: np.ndarray, tau: float) -> Box:
    """LCTR vis_tools.py:32."""
    return gao_box(heatmap, tau, empty=[0, 0, 224, 224])


def bae_box(heatmap: np.ndarray, tau: float, percentile: float = 100) -> Box:
    """rethinkingCAM src/utils/util.py:124-198."""
    values = minmax(enlarged(heatmap, (224, 224), cv2.INTER_CUBIC))
    return [*contours(values, tau, percentile), [0, 0, 224, 224]][0]


def pas_box(heatmap: np.ndarray, tau: float) -> Box:
    """rethinkingCAM src/utils/util.py:151-157, q = 90."""
    return bae_box(heatmap, tau, percentile=90)


def choe_boxes(heatmap: np.ndarray, tau: float) -> list[Box]:
    """wsolevaluation evaluation.py compute_bboxes_from_scoremaps, util.py; so in ViTOL, DA-WSOL and BagCAMs."""
    return within(contours(minmax(enlarged(heatmap, (224, 224), cv2.INTER_CUBIC)), tau), 224, 224) or [[0, 0, 0, 0]]


def choe_box(heatmap: np.ndarray, tau: float) -> Box:
    """The largest of those: multi_contour_eval is false."""
    return choe_boxes(heatmap, tau)[0]


def ivr_boxes(heatmap: np.ndarray, tau: float) -> list[Box]:
    """GenDisc/IVR inference.py:64-116 with p = 0.45 (config.py:209)."""
    values = enlarged(heatmap, (224, 224), cv2.INTER_CUBIC)
    values = np.maximum(values - sorted(values.ravel())[int(values.size * 0.45)], 0)
    return within(contours(values / (values.max() or 1), tau), 224, 224) or [[0, 0, 0, 0]]


def fcam_box(heatmap: np.ndarray, tau: float) -> Box:
    """sbelharbi/fcam-wsol dlib/learning/inference_wsol.py:183-228: no min-max."""
    values = enlarged(heatmap, (224, 224), cv2.INTER_LINEAR)
    return [*within(contours(values, tau), 224, 224), [0, 0, 0, 0]][0]


def ccam_box(heatmap: np.ndarray, tau: float) -> Box:
    """CVI-SZU/CCAM WSOL/utils.py:268-322: clipped in cells, then enlarged to 448."""
    height, width = heatmap.shape
    box = [*within(contours(heatmap, tau), width, height), [0, 0, 0, 0]][0]
    return [value * 448 / (width, height)[k % 2] for k, value in enumerate(box)]


def bas_box(heatmap: np.ndarray, tau: float, epsilon: float = 0.0) -> Box:
    """BAS CUB/BAS_inference.py:49-54, 147-164; SAT evaluator.py:59-72."""
    values = enlarged(minmax(heatmap, epsilon), (224, 224), cv2.INTER_LINEAR)
    return [*most_pixels(values > tau), [0, 0, 224, 224]][0]


def sat_box(heatmap: np.ndarray, tau: float) -> Box:
    """SAT evaluator.py:59-72: 1e-5 in the denominator."""
    return bas_box(heatmap, tau, epsilon=1e-5)


def spa_box(heatmap: np.ndarray, tau: float) -> Box:
    """SPA utils/localization.py:90-91, 254-262, in an image of 300 x 240."""
    values = enlarged(minmax(np.maximum(heatmap, 0)), (300, 240), cv2.INTER_LINEAR)
    rows, columns = np.nonzero(values >= tau)
    return [columns.min(), rows.min(), columns.max(), rows.max()] if len(rows) else [0, 0, 0, 0]


def ddt_box(heatmap: np.ndarray, tau: float) -> Box:
    """PSOL generate_box_imagenet.py:99-126: cells above 0, enlarged 448 / cells times."""
    scale = 448 // heatmap.shape[0]
    return [*most_pixels(np.kron(heatmap > tau, np.ones((scale, scale), bool))), [0, 0, 448, 448]][0]


PAPERS = {
    "choe2020": Paper(choe_truth, choe_box, inclusive, (0.2, 0.7)),
    "choe2020_v2": Paper(choe_truth, choe_boxes, inclusive, (0.2, 0.7)),
    "gao2021": Paper(gao_truth, gao_box, inclusive, (0.1, 0.7)),
    "zhao2023_genpromp": Paper(genpromp_truth, genpromp_box, inclusive, (0.23, 0.7)),
    "bae2020": Paper(bae_truth, bae_box, unclamped_inclusive, (0.2, 0.7)),
    "bae2020_pas": Paper(bae_truth, pas_box, unclamped_inclusive, (0.35, 0.7)),
    "kim2021_ivr": Paper(choe_truth, ivr_boxes, inclusive, (0.2, 0.7)),
    "chen2022_lctr": Paper(lctr_truth, lctr_box, corner_iou, (0.09, 0.7)),
    "cao2023_locloc": Paper(locloc_truth, gao_box, corner_iou, (0.45, 0.53)),
    "wu2022_bas": Paper(bas_truth, bas_box, inclusive, (0.15, 0.7)),
    "wu2023_sat": Paper(sat_truth, sat_box, inclusive, (0.3, 0.45)),
    "pan2021_spa": Paper(spa_truth, spa_box, inclusive, (0.1, 0.45)),
    "gupta2022_vitol": Paper(choe_truth, choe_boxes, inclusive, (0.208, 0.7)),
    "zhu2022_dawsol": Paper(choe_truth, choe_boxes, inclusive, (0.2, 0.7)),
    "zhu2022_bagcams": Paper(choe_truth, choe_boxes, inclusive, (0.2, 0.7)),
    "belharbi2022_fcam": Paper(choe_truth, fcam_box, inclusive, (0.3, 0.7)),
    "xie2022_ccam": Paper(ccam_truth, ccam_box, corner_iou, (0.3, 0.7)),
    "zhang2020_ddt": Paper(ddt_truth, ddt_box, corner_iou, (0.0, 0.0)),
}
READY = {  # boxes that a network predicts
    "zhang2020_psol": (psol_truth, corner_iou),
    "xu2022_cream": (cream_truth, corner_iou),
    "wang2022_tokencut": (tokencut_truth, unclamped_inclusive),
}
