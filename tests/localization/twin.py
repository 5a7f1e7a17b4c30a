"""The sweep again, slow and obvious: one labelling per threshold with scikit-image."""

from __future__ import annotations

import numpy as np
import torch
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
        full = (protocol.levels - 1 if protocol.levels else 1) if protocol.cut_of == "absolute" else top
        return cuts / max(full, 1e-300), cuts
    taus, full = protocol.grid(), top
    if protocol.cut_of == "absolute":
        full = 1 if protocol.levels is None else protocol.levels - 1
    elif protocol.cut_of != "max":
        full = np.percentile(values, protocol.cut_of)
    if protocol.levels is None:
        return taus, np.array([tau * full for tau in taus])
    return taus, np.array([int(tau * full) for tau in taus])


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
    inclusive, (height, width) = protocol.box_convention == "inclusive", shape
    if box is None and protocol.empty_box == "image":
        return in_convention([0, 0, width - 1, height - 1], protocol, shape)
    if box is None:
        return list(protocol.empty_box) if protocol.empty_box else ([0, 0, -1, -1] if inclusive else [0] * 4)
    x0, y0, x1, y1 = box if inclusive else (box[0], box[1], box[2] + 1, box[3] + 1)
    if protocol.box_convention == "half_open_clipped":
        x1, y1 = min(x1, width - 1), min(y1, height - 1)
    return [x0, y0, x1, y1]


def slow_truth(
    gt_boxes: np.ndarray, protocol: Protocol, image_size: tuple[int, int] | None, shape: tuple[int, int]
) -> list[list[float]]:
    """Ground truth one rule after the other, as section 2 of the rules lists them; without image_size in the view."""
    gt_boxes = np.asarray(gt_boxes, float).tolist()
    counted = {"best": gt_boxes, "first": gt_boxes[:1], "last": gt_boxes[-1:]}[protocol.truths]
    return [one_truth(box, protocol, image_size, (shape[1], shape[0])) for box in counted]


def one_truth(
    box: list[float], protocol: Protocol, image_size: tuple[int, int] | None, size: tuple[int, int]
) -> list[float]:
    x0, y0, x1, y1 = box
    if image_size is not None:
        if protocol.truth_origin == 1:
            x0, y0, x1, y1 = x0 - 1, y0 - 1, x1 - 1, y1 - 1
        if protocol.truth_end == "last_pixel":
            x1, y1 = x1 - 1, y1 - 1
        if protocol.truth_integers == "corners":
            x0, y0, x1, y1 = int(x0), int(y0), int(x1), int(y1)
        elif protocol.truth_integers == "sides":
            w, h = int(round(x1 - x0, 6)), int(round(y1 - y0, 6))
            x0, y0, x1, y1 = int(x0), int(y0), int(x0) + w, int(y0) + h
    if protocol.iou_convention == "continuous":
        x1, y1 = min(x1 + 1, (image_size or size)[0]), min(y1 + 1, (image_size or size)[1])
    x0, x1 = (seen(x, 0, protocol, image_size, size) for x in (x0, x1))
    y0, y1 = (seen(y, 1, protocol, image_size, size) for y in (y0, y1))
    if protocol.truth_rounding == "truncate":
        x0, y0, x1, y1 = float(int(x0)), float(int(y0)), float(int(x1)), float(int(y1))
    width, height = (side - protocol.truth_clipped.endswith("last_pixel") for side in size)
    if protocol.truth_clipped.startswith("one_sided"):
        return [max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)]
    if protocol.truth_clipped.startswith("both"):
        return [*np.clip([x0, y0], 0, [width, height]).tolist(), *np.clip([x1, y1], 0, [width, height]).tolist()]
    return [x0, y0, x1, y1]


def seen(
    value: float, axis: int, protocol: Protocol, image_size: tuple[int, int] | None, size: tuple[int, int]
) -> float:
    """Where one coordinate of the image lies in the view."""
    if image_size is None:
        return value
    old, view, shift = image_size[axis], size[axis], 0.0
    if protocol.view == "square_crop":
        whole = view / protocol.view_share if protocol.size == "heatmap" else round(view / protocol.view_share)
        shift, view = (whole - view) / 2, whole
    elif protocol.view == "short_side":
        old, view = min(image_size), min(size)
    elif protocol.view == "short_side_crop":
        whole = round(view / protocol.view_share)
        shift = round((image_size[axis] * whole / min(image_size) - view + 1) / 2)
        old, view = min(image_size), whole
    return (value / old * view if protocol.truth_scaling == "divide_first" else value * view / old) - shift


def overlap(box: list[float], truth: list[float], protocol: Protocol) -> float:
    plus = protocol.iou_convention == "inclusive"
    if protocol.iou_convention == "continuous" and protocol.box_convention == "inclusive":
        box = [box[0], box[1], box[2] + 1, box[3] + 1]
    w, h = min(box[2], truth[2]) - max(box[0], truth[0]) + plus, min(box[3], truth[3]) - max(box[1], truth[1]) + plus
    if protocol.iou_clamped:
        w, h = max(0, w), max(0, h)
    union = sum((b[2] - b[0] + plus) * (b[3] - b[1] + plus) for b in (box, truth)) - w * h
    if protocol.iou_clamped:
        return w * h / union if union > 0 and w > 0 and h > 0 else 0.0
    return w * h / union if union != 0 else 0.0


def slow_sweep(
    score_map: np.ndarray, gt_boxes: np.ndarray, protocol: Protocol, image_size: tuple[int, int] | None = None
) -> dict[str, np.ndarray]:
    """What `sweep_thresholds` says, one threshold at a time."""
    shape = score_map.shape
    truth = slow_truth(gt_boxes, protocol, image_size, shape)
    values = score_map if protocol.levels is None else quantized(score_map, protocol.levels)
    taus, cuts = slow_thresholds(score_map, protocol)
    outcomes: dict[bytes, tuple[list[float], float, list[float], float, list[float], float]] = {}
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
                if candidate_iou > max(best_iou, 0):
                    best_box, best_iou = candidate, candidate_iou
            union_box, union_iou = box, iou
            if mask.any():
                rows_of, columns_of = np.nonzero(mask)
                union_box = [columns_of.min(), rows_of.min(), columns_of.max(), rows_of.max()]
                union_box = in_convention([int(side) for side in union_box], protocol, shape)
                union_iou = max(overlap(union_box, t, protocol) for t in truth)
            outcomes[mask.tobytes()] = (box, iou, best_box, best_iou, union_box, union_iou)
        rows.append(outcomes[mask.tobytes()])
    columns = list(zip(*rows, strict=True))
    names = ("boxes_largest", "iou_largest", "boxes_any", "iou_any", "boxes_union", "iou_union")
    return {"thresholds": taus, **{name: np.array(column, float) for name, column in zip(names, columns, strict=True)}}


def slow_score_map(
    heatmap: np.ndarray,
    protocol: Protocol,
    image_size: tuple[int, int],
    rectangle: tuple[float, float, float, float] | None,
) -> np.ndarray:
    """What `score_map` says: torch enlarges the map, and each pixel of the view is looked up in it."""
    width, height = protocol.evaluation_size(image_size, heatmap.shape[::-1])
    if rectangle is None and protocol.view == "short_side":
        x0, y0, x1, y1 = 0, 0, width, height
    else:
        edges = [
            seen(value, k % 2, protocol, image_size, (width, height))
            for k, value in enumerate(rectangle or (0, 0, *image_size))
        ]
        x0, y0, x1, y1 = (int(np.floor(round(edge, 9) + 0.5)) for edge in edges)
        x0, y0 = min(x0, width - 1), min(y0, height - 1)
        x1, y1 = max(x1, x0 + 1, 1), max(y1, y0 + 1, 1)
    result = np.zeros((height, width))
    if heatmap.min() == heatmap.max() and protocol.normalization != "none":
        return result
    first = protocol.normalization_order == "before_resizing"
    values = slow_normalization(heatmap, protocol) if first else heatmap
    mode = {"mode": protocol.interpolation}
    mode |= {"align_corners": False} if protocol.interpolation != "nearest" else {}
    enlarged = torch.nn.functional.interpolate(torch.from_numpy(values)[None, None], (y1 - y0, x1 - x0), **mode)
    values = values if values.shape == (y1 - y0, x1 - x0) else enlarged[0, 0].numpy()
    kept = values[max(-y0, 0) : height - y0, max(-x0, 0) : width - x0]
    rounded = kept.shape != values.shape and kept.max() - kept.min() <= 1e-12 * np.abs(heatmap).max()
    values = np.zeros(kept.shape) if rounded and not first and protocol.normalization != "none" else kept
    values = (
        np.clip(values, 0, 1) if first or protocol.normalization == "none" else slow_normalization(values, protocol)
    )
    result[max(y0, 0) : y1, max(x0, 0) : x1] = values
    return result


def slow_normalization(values: np.ndarray, protocol: Protocol) -> np.ndarray:
    ordered, kind = sorted(values.ravel().tolist()), protocol.normalization
    if kind == "none":
        return values
    low, high = ordered[0], ordered[-1]
    if kind == "percentile":
        low, high = (ordered[min(int(len(ordered) * p), len(ordered) - 1)] for p in protocol.normalization_percentiles)
    elif kind != "minmax":
        values, low, high = np.maximum(values, 0), max(low, 0) if kind == "relu_minmax" else 0, max(high, 0)
    span = high - low + protocol.normalization_epsilon
    return np.clip(values - low, 0, high - low) / span if span > 0 else np.zeros_like(values)
