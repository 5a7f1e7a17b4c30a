"""What the sweeps say: curves against a plain loop, the five-heatmap way, parts that add up; error kinds."""

from __future__ import annotations

import numpy as np
import pytest

from wsol import Protocol
from wsol.metrics import ERROR_KINDS, OUTCOMES, Sweeps, error_kind, outcomes_of
from wsol.metrics.localization import mean_by_class

ONE = np.array([[10.0, 10, 29, 29]])  # 400 pixels
TWO = np.array([[0.0, 0, 9, 9], [20, 0, 29, 9]])
RIGHT = {">=": lambda iou, delta: iou >= delta, ">": lambda iou, delta: iou > delta}


def coded(ious: np.ndarray, grid: np.ndarray | None = None) -> Sweeps:
    """Run-length code dense IoUs (N, T)."""
    new = np.hstack([np.ones((len(ious), 1), bool), np.diff(ious) != 0])
    sample, first = np.nonzero(new)
    return Sweeps(sample, first, ious[new], len(ious), np.arange(ious.shape[1]) / 20 if grid is None else grid)


def draw(seed: int, samples: int = 40, taus: int = 11) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    ious = generator.integers(0, 11, (samples, taus)) / 10  # ties with the IoU thresholds, and runs
    return ious, generator.integers(-1, 8, samples)


@pytest.mark.parametrize(("gt_rule", "topk_rule"), [(">=", ">="), (">=", ">"), (">", ">=")])
def test_curves_and_outcomes_equal_a_plain_loop(gt_rule: str, topk_rule: str) -> None:
    ious, ranks = draw(0)
    sweeps, taus = coded(ious), np.arange(11) / 20
    protocol = Protocol(
        iou_comparison=gt_rule, topk_iou_comparison=topk_rule, thresholds=tuple(taus), iou_thresholds=(0.3, 0.5)
    )
    among = {"gt_known_loc": ranks >= -1, "top1_loc": ranks == 0, "top5_loc": (ranks >= 0) & (ranks < 5)}
    for index, tau in enumerate(taus):
        at_tau = outcomes_of(sweeps, ranks, protocol, float(tau))
        assert (at_tau.values["mean_iou"] == ious[:, index]).all()
        for name in OUTCOMES:
            rule = gt_rule if name == "gt_known_loc" else topk_rule
            for delta in (0.3, 0.5):
                right = sum(
                    bool(RIGHT[rule](iou, delta) and one) for iou, one in zip(ious[:, index], among[name], strict=True)
                )
                assert sweeps.right(delta, rule, among[name])[index] == right
            assert at_tau.values[name].sum() == right
    assert np.allclose(sweeps.mean_iou(), ious.mean(0), atol=1e-11)
    assert (at_tau.values["top5_cls"] == [rank in range(5) for rank in ranks]).all()


def test_best_threshold_is_the_smallest_of_the_best() -> None:
    protocol = Protocol(thresholds=(0.1, 0.2, 0.3, 0.4), component="any")
    outcomes = outcomes_of(coded(np.array([[0.2, 0.6, 0.6, 0.1]]), protocol.grid()), np.array([0]), protocol)
    assert outcomes.thresholds["gt_known_loc"] == outcomes.thresholds["max_box_acc_50"] == 0.2
    assert outcomes.mean("max_box_acc_70") == 0.0
    assert outcomes.mean("max_box_acc_v2") == pytest.approx((1 + 1 + 0) / 3)
    assert {"gt_known_loc", "max_box_acc_30"} <= outcomes.oracle
    fixed = outcomes_of(coded(np.array([[0.2, 0.6, 0.6, 0.1]]), protocol.grid()), np.array([0]), protocol, 0.4)
    assert fixed.mean("gt_known_loc") == 0
    assert fixed.oracle == {"max_box_acc_30", "max_box_acc_50", "max_box_acc_70", "max_box_acc", "max_box_acc_v2"}


def test_topk_from_the_true_class_alone_equals_the_naive_five_heatmap_way() -> None:
    generator = np.random.default_rng(3)
    images, classes, taus = 60, 9, 5
    iou_of_class = generator.random((images, classes, taus))  # IoU of the box from each class's own heatmap
    logits, labels = generator.random((images, classes)), generator.integers(0, classes, images)
    naive = np.zeros(taus)
    for image in range(images):
        for guess in np.argsort(-logits[image])[:5]:  # five guesses of class and box; right if both are
            naive += (guess == labels[image]) & (iou_of_class[image, guess] >= 0.5)
    ranks = (np.argsort(-logits, 1) == labels[:, None]).argmax(1)
    assert np.array_equal(coded(iou_of_class[np.arange(images), labels]).right(0.5, ">=", ranks < 5), naive)


def test_each_class_has_its_own_best_threshold() -> None:
    sweeps, labels = coded(np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.9]])), np.array([0, 1, 1])
    assert sweeps.right(0.5, ">=").max() == 2
    assert sweeps.right_by_class(0.5, ">=", labels, 3).tolist() == [[1, 0], [0, 2], [0, 0]]


def test_parts_of_a_dataset_add_up_in_any_order() -> None:
    generator = np.random.default_rng(11)
    ious, labels = generator.random((500, 11)), generator.integers(0, 4, 500)
    whole, order = coded(ious), generator.permutation(500)
    parts = [(coded(ious[part]), labels[part]) for part in np.array_split(order, 7)]
    by_class = sum(part.right_by_class(0.5, ">", own, 5) for part, own in parts)
    assert np.array_equal(by_class, whole.right_by_class(0.5, ">", labels, 5))
    assert np.array_equal(coded(ious[order]).mean_iou(), whole.mean_iou())
    assert mean_by_class(ious[order, 3], labels[order], 4)[0] == mean_by_class(ious[:, 3], labels, 4)[0]


def test_a_sample_without_runs_is_wrong_everywhere() -> None:
    sweeps = Sweeps(np.array([1, 1]), np.array([0, 2]), np.array([0.4, 1.0]), 3, np.array([0.0, 0.2, 0.4]))
    assert sweeps.right(0.5, ">=").tolist() == [0, 0, 1]
    assert sweeps.iou_at(1).tolist() == [0, 0.4, 0]
    nothing = Sweeps(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), 2, np.array([0.0, 0.5]))
    assert nothing.right(0.3, ">").tolist() == nothing.mean_iou().tolist() == [0, 0]


def test_means_overall_and_by_class() -> None:
    overall, by_class = mean_by_class(np.array([True, True, False, False]), np.array([0, 0, 2, 2]), 4)
    assert overall == 0.5
    assert by_class.tolist()[:1] + by_class.tolist()[2:3] == [1, 0]
    assert np.isnan(by_class[[1, 3]]).all()
    assert mean_by_class(np.array([0.5, 1.0, 0.0]), np.array([0, 0, 1]), 2) == (0.5, pytest.approx([0.75, 0]))


@pytest.mark.parametrize(
    ("rank", "right", "box", "gt_boxes", "kind"),
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
        (0, False, [20, 10, 39, 29], ONE, "elsewhere"),  # exactly half of the box inside is not "part"
        (0, False, [10, 16, 49, 99], ONE, "too_much"),  # 0.7 of the ground truth covered is
    ],
)
def test_each_kind(rank: int, right: bool, box: list[int], gt_boxes: np.ndarray, kind: str) -> None:
    assert error_kind(rank, right, np.array(box, float), gt_boxes) == kind
    assert ERROR_KINDS[kind].key == kind
