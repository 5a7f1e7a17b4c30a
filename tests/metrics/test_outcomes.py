"""Error kinds, each by an example, and the counts per class."""

import numpy as np
import pytest
import torch

from wsol.metrics import ERROR_KINDS, OutcomeCounts, error_kind

ONE = np.array([[10.0, 10, 29, 29]])  # 400 pixels
TWO = np.array([[0.0, 0, 9, 9], [20, 0, 29, 9]])


@pytest.mark.parametrize(
    ("rank", "right", "box", "truth", "kind"),
    [
        (3, True, [10, 10, 29, 29], ONE, "wrong_class"),
        (0, True, [10, 10, 29, 29], ONE, "right"),
        (-1, True, [10, 10, 29, 29], ONE, "right"),  # without a prediction no class is wrong
        (0, False, [0, 0, 29, 9], TWO, "several"),
        (0, False, [12, 12, 17, 17], ONE, "part"),
        (0, False, [0, 0, 59, 59], ONE, "too_much"),
        (0, False, [40, 40, 49, 49], ONE, "elsewhere"),
        (0, False, [25, 25, 60, 60], ONE, "elsewhere"),
        (0, False, [0, 0, -1, -1], ONE, "elsewhere"),  # no box at all
    ],
)
def test_each_kind(rank: int, right: bool, box: list[int], truth: np.ndarray, kind: str) -> None:
    assert error_kind(rank, right, np.array(box, float), truth) == kind


def test_limits_of_the_kinds() -> None:
    # Exactly half of the box inside is not "part"; 0.7 of the truth covered is "too much".
    half = np.array([20.0, 10, 39, 29])
    assert error_kind(0, False, half, ONE) == "elsewhere"
    seven_tenths = np.array([10.0, 16, 49, 99])
    assert error_kind(0, False, seven_tenths, ONE) == "too_much"


def test_counts_per_class_and_overall() -> None:
    metric = OutcomeCounts(3)
    metric.update([0, 0, 2], [0, 7, 4], [True, True, False], [True, True, False], [0.5, 1.0, 0.0],
                  ["right", "wrong_class", "wrong_class"])  # fmt: skip
    overall = metric.compute()
    assert float(overall["top1_cls"]) == pytest.approx(1 / 3)
    assert float(overall["top5_cls"]) == pytest.approx(2 / 3)
    assert float(overall["gt_known_loc"]) == pytest.approx(2 / 3)
    assert float(overall["top1_loc"]) == float(overall["right"]) == pytest.approx(1 / 3)
    assert float(overall["mean_iou"]) == pytest.approx(0.5)
    assert sum(float(overall[kind]) for kind in ERROR_KINDS) == pytest.approx(1)
    assert overall["class_gt_known_loc"][0] == 1
    assert torch.isnan(overall["class_gt_known_loc"][1])
    assert overall["class_mean_iou"][2] == 0
