"""The sweep again, slow and obvious: one labelling per threshold with scikit-image."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_fill_holes
from skimage.measure import label, regionprops

from wsol.localization import Protocol


def slow_thresholds(score_map: np.ndarray, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds, and the value that pixels are compared with at each of them."""
    values = score_map if protocol.levels is None else quantized(score_map, protocol.levels)
    top = values.max()
    if protocol.thresholds == "levels":
        cuts = sorted({0, *values.ravel().tolist()})
        cuts = np.array([cut for cut in cuts if protocol.pixel_comparison == ">=" or cut < top] if top > 0 else [0])
        return cuts / max(top, 1e-300), cuts
    taus = protocol.grid()
    if protocol.levels is None:
        return taus, np.array([tau * top for tau in taus])
    return taus, np.array([int(tau * top) for tau in taus])


def quantized(score_map: np.ndarray, levels: int) -> np.ndarray:
    return (score_map * (levels - 1)).astype(np.int64)


def outline_area(component: np.ndarray) -> int:
    """Twice the area of the polygon around one component, holes filled."""
    filled = np.pad(binary_fill_holes(component), 1).astype(int)
    windows = filled[:-1, :-1] + filled[1:, :-1] + filled[:-1, 1:] + filled[1:, 1:]
    return 2 * int((windows == 4).sum()) + int((windows == 3).sum())


def slow_boxes(mask: np.ndarray, protocol: Protocol) -> tuple[list[int] | None, list[list[int]]]:
    """Inclusive box of the largest component, and those of all components and holes."""
    labels = label(mask, connectivity=2 if protocol.connectivity == 8 else 1)
    best, best_key, boxes = None, None, []
    for region in regionprops(labels):
        y0, x0, y1, x1 = region.bbox
        box = [x0, y0, x1 - 1, y1 - 1]
        component = labels == region.label
        area = int(component.sum()) if protocol.area == "pixels" else outline_area(component)
        first = int(np.flatnonzero(component)[0])
        key = (area, first if protocol.tie == "last" else -first)
        if best_key is None or key > best_key:
            best, best_key = box, key
        boxes.append(box)
    if protocol.holes:
        background = label(np.pad(~mask, 1, constant_values=True), connectivity=1 if protocol.connectivity == 8 else 2)
        for region in regionprops(background):
            if region.label != background[0, 0]:
                y0, x0, y1, x1 = region.bbox  # of the padded image
                boxes.append([x0 - 2, y0 - 2, x1 - 1, y1 - 1])
    return best, boxes


def in_convention(box: list[int] | None, protocol: Protocol, shape: tuple[int, int]) -> list[float]:
    if box is None:
        return (
            list(protocol.empty_box)
            if protocol.empty_box
            else ([0, 0, -1, -1] if protocol.box_convention == "inclusive" else [0] * 4)
        )
    late = protocol.box_convention != "inclusive"
    x0, y0, x1, y1 = box[0], box[1], box[2] + late, box[3] + late
    if protocol.box_convention == "half_open_clipped":
        x1, y1 = min(x1, shape[1] - 1), min(y1, shape[0] - 1)
    return [x0, y0, x1, y1]


def slow_truth(
    gt_boxes: np.ndarray, protocol: Protocol, image_size: tuple[int, int], shape: tuple[int, int]
) -> list[list[float]]:
    height, width = shape
    scaled = []
    for x0, y0, x1, y1 in np.asarray(gt_boxes, float):
        if protocol.iou_convention == "continuous":
            x1, y1 = min(x1 + 1, image_size[0]), min(y1 + 1, image_size[1])
        box = [
            x0 * width / image_size[0],
            y0 * height / image_size[1],
            x1 * width / image_size[0],
            y1 * height / image_size[1],
        ]
        if protocol.truth_rounding == "truncate":
            box = [float(int(value)) for value in box]
        if protocol.truth_clipped:
            box = [min(value, (width, height)[k % 2] - 1) for k, value in enumerate(box)]
        scaled.append(box)
    return scaled


def overlap(box: list[float], truth: list[float], protocol: Protocol) -> float:
    plus = protocol.iou_convention == "inclusive"
    if not plus and protocol.box_convention == "inclusive":
        box = [box[0], box[1], box[2] + 1, box[3] + 1]
    w = max(0, min(box[2], truth[2]) - max(box[0], truth[0]) + plus)
    h = max(0, min(box[3], truth[3]) - max(box[1], truth[1]) + plus)
    union = sum((b[2] - b[0] + plus) * (b[3] - b[1] + plus) for b in (box, truth)) - w * h
    return w * h / union if union > 0 else 0.0


def slow_sweep(
    score_map: np.ndarray, gt_boxes: np.ndarray, protocol: Protocol, image_size: tuple[int, int] | None = None
) -> dict[str, np.ndarray]:
    """What `sweep_thresholds` says, one threshold at a time."""
    shape = score_map.shape
    truth = slow_truth(gt_boxes, protocol, image_size or (shape[1], shape[0]), shape)
    values = score_map if protocol.levels is None else quantized(score_map, protocol.levels)
    taus, cuts = slow_thresholds(score_map, protocol)
    outcomes: dict[bytes, tuple[list[float], float, list[float], float]] = {}
    rows = []
    for cut in cuts:
        mask = values > cut if protocol.pixel_comparison == ">" else values >= cut
        if values.max() == 0:
            mask = np.zeros(shape, bool)
        if mask.tobytes() not in outcomes:
            largest, boxes = slow_boxes(mask, protocol)
            box = in_convention(largest, protocol, shape)
            iou = max(overlap(box, t, protocol) for t in truth)
            if largest is None and protocol.empty_box is None:
                iou = 0.0
            best_box, best_iou = box, iou
            for candidate in sorted(boxes):
                candidate = in_convention(candidate, protocol, shape)
                candidate_iou = max(overlap(candidate, t, protocol) for t in truth)
                if candidate_iou > best_iou:
                    best_box, best_iou = candidate, candidate_iou
            outcomes[mask.tobytes()] = (box, iou, best_box, best_iou)
        rows.append(outcomes[mask.tobytes()])
    columns = list(zip(*rows, strict=True))
    names = ("boxes_largest", "iou_largest", "boxes_any", "iou_any")
    return {"thresholds": taus, **{name: np.array(column, float) for name, column in zip(names, columns, strict=True)}}
