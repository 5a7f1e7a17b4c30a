"""The sweeps table gives what the accumulators count, to the last bit; gone with them."""

import numpy as np
import pandas as pd
import pytest

from wsol import Protocol, sweep_thresholds
from wsol.metrics import ERROR_KINDS
from wsol.metrics.accumulators import LocalizationAccuracy
from wsol.metrics.localization import OUTCOMES, Sweeps, mean_by_class, outcomes_of, per_image_outcomes
from wsol.metrics.outcomes import OutcomeCounts, outcomes_at
from wsol.metrics.pixels import PxAP
from wsol.metrics.scoring import ProtocolScores

GRID = tuple(round(0.05 * step, 2) for step in range(20))


@pytest.mark.parametrize("component", ["largest", "any"])
@pytest.mark.parametrize("rules", [{}, {"iou_comparison": ">", "topk_iou_comparison": ">="}, {"threshold": 0.33}])
def test_queries_of_the_sweeps_are_what_the_accumulators_count(component: str, rules: dict) -> None:
    protocol = Protocol(size=(24, 16), component=component, thresholds=GRID, **rules)
    generator, grid = np.random.default_rng(0), protocol.grid()
    count, classes = 60, 5
    labels, ranks = generator.integers(0, classes - 1, count), generator.integers(-1, 8, count)
    gt_boxes = [np.hstack([low, low + generator.integers(1, 9, low.shape)]).astype(float)
                for low in (generator.integers(0, 7, (1 + number % 3, 2)) for number in range(count))]  # fmt: skip
    maps = [np.kron(generator.random((4, 4)), np.ones((4, 6))) for _ in range(count)]
    sweeps = [None if number % 13 == 5 else sweep_thresholds(scores, boxes, protocol, (24, 16))
              for number, (scores, boxes) in enumerate(zip(maps, gt_boxes, strict=True))]  # fmt: skip
    accuracy = LocalizationAccuracy(
        grid, (0.3, 0.5, 0.7), protocol.iou_comparison, protocol.topk_iou_comparison, classes
    )
    dense = [np.zeros(len(grid)) if sweep is None else getattr(sweep, f"iou_{component}") for sweep in sweeps]
    accuracy.update(np.stack(dense), ranks, labels)
    coded = Sweeps.join(sweeps, component, grid)
    among = {"gt_known_loc": ranks >= -1, "top1_loc": ranks == 0, "top5_loc": (ranks >= 0) & (ranks < 5)}
    for delta in (0.3, 0.5, 0.7):
        for name in OUTCOMES:
            rule = protocol.iou_comparison if name == "gt_known_loc" else protocol.topk_iou_comparison
            counted = coded.right(delta, rule, among[name]) / count
            assert (counted == accuracy.curve(name, delta)).all()
        by_class = coded.right_by_class(delta, protocol.iou_comparison, labels, classes)
        with np.errstate(invalid="ignore"):
            best = by_class.max(1) / np.bincount(labels, minlength=classes)
        assert np.array_equal(best, accuracy.class_max_box_acc(delta), equal_nan=True)
    assert (coded.mean_iou() == accuracy.compute()["mean_iou"].numpy()).all()
    outcomes = outcomes_of(coded, ranks, protocol, protocol.threshold)
    tau = outcomes.thresholds["gt_known_loc"]
    assert tau == (accuracy.best_threshold(0.5) if protocol.threshold is None else 0.33)
    sizes = [(24, 16)] * count
    part = ProtocolScores(protocol, accuracy, PxAP(), sweeps)
    wanted = outcomes_at(part, tau, gt_boxes, sizes, ranks)
    table = per_image_outcomes(outcomes, sweeps, protocol, ranks, gt_boxes, sizes)
    pd.testing.assert_frame_equal(table, wanted.drop(columns="right"), check_exact=True)
    counts = OutcomeCounts(classes)
    counts.update(labels, ranks, *(wanted[name].to_numpy() for name in ("gt_known_loc", "right", "iou", "error_kind")))
    shares = counts.compute()
    values = outcomes.values | {kind: (table["error_kind"] == kind).to_numpy() for kind in ERROR_KINDS}
    for name in ("top1_cls", "top5_cls", *OUTCOMES, "mean_iou", *ERROR_KINDS):
        overall, per_class = mean_by_class(values[name], labels, classes)
        assert overall == float(shares[name])
        assert np.array_equal(per_class, shares[f"class_{name}"].numpy(), equal_nan=True)
