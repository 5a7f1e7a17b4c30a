"""The sweep against the reference evaluator's figures: every box, every IoU, every count."""

import csv
from pathlib import Path

import numpy as np
import pytest

import wsol

GOLDEN = Path(__file__).parents[1] / "golden"


def test_every_box_and_iou_at_every_threshold() -> None:
    golden = np.load(GOLDEN / "threshold_sweep.npz")
    largest, best = [], []
    for number in range(int(golden["count"])):
        sweep = wsol.sweep_thresholds(golden[f"heatmap_{number}"], golden[f"gt_boxes_{number}"], protocol="choe2020")
        assert np.array_equal(sweep.thresholds, np.arange(0, 1, 0.001))
        assert np.array_equal(sweep.boxes_largest, golden[f"boxes_{number}"]), number
        assert np.abs(sweep.iou_largest - golden[f"iou_largest_{number}"]).max() <= 1e-12, number
        assert np.abs(sweep.iou_any - golden[f"iou_any_{number}"]).max() <= 1e-12, number
        largest.append(sweep.iou_largest)
        best.append(sweep.iou_any)
    for index, delta in enumerate((0.3, 0.5, 0.7)):
        for ious, total in ((largest, "max_box_acc"), (best, "max_box_acc_any")):
            accuracy = (np.array(ious) >= delta).mean(axis=0).max()
            assert 100 * accuracy == pytest.approx(golden[total][index], abs=1e-9)


def test_every_count_on_a_hundred_images_of_cub() -> None:
    golden = np.load(GOLDEN / "cub_val_100.npz")
    with (GOLDEN / "cub_val_100.csv").open() as file:
        rows = list(csv.DictReader(file))
    own: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        own.setdefault(row["image_id"], []).append(row)
    boxes = [[[float(r[k]) for k in ("x0", "y0", "x1", "y1")] for r in own[i]] for i in golden["image_ids"]]
    sizes = [(int(own[i][0]["width"]), int(own[i][0]["height"])) for i in golden["image_ids"]]
    maps = (levels / 255.0 for levels in golden["heatmaps_uint8"])
    sweeps = [wsol.sweep_thresholds(*inputs) for inputs in zip(maps, boxes, ["choe2020"] * 100, sizes, strict=True)]
    for kind, total in (("largest", "max_box_acc"), ("any", "max_box_acc_v2")):
        ious = np.stack([getattr(sweep, f"iou_{kind}") for sweep in sweeps])
        for index, delta in enumerate((0.3, 0.5, 0.7)):
            counts = (ious >= delta).sum(0)
            assert np.array_equal(counts, golden[f"curve_{kind}"][index]), (kind, delta)
            assert 100 * counts.max() / len(ious) == pytest.approx(golden[total][index])
