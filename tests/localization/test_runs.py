"""Runs of one sweep, of many, and at one threshold: always the same boxes."""

from __future__ import annotations

import numpy as np
import pytest

from wsol import load_protocol, sweep_thresholds
from wsol.localization.sweep import PackedSweeps


@pytest.mark.parametrize("protocol", ["choe2020", "zhou2016", "exact"])
@pytest.mark.parametrize("sizes", [[(9, 12), (9, 12)], [(9, 12), (5, 7), (9, 12)]], ids=["one size", "several sizes"])
def test_many_sweeps_and_one_threshold(protocol: str, sizes: list[tuple[int, int]]) -> None:
    generator = np.random.default_rng(0)
    sweeps = [sweep_thresholds(generator.random(size), [0, 0, 3, 3], protocol) for size in sizes]
    for which in ("largest", "any"):
        alone = [sweep.runs(which) for sweep in sweeps]
        joined = PackedSweeps.pack([None, *sweeps], which)
        assert joined.first.tolist() == np.concatenate([runs.first for runs in alone]).tolist()
        assert joined.sample.tolist() == [number + 1 for number, runs in enumerate(alone) for _ in runs.first]
        rules, shapes = load_protocol(protocol), np.array([(9, 9), *((width, height) for height, width in sizes)])
        ious = joined.ious([np.array([[0.0, 0, 3, 3]])] * len(shapes), shapes, rules)
        assert np.array_equal(ious, np.concatenate([runs.iou for runs in alone]))
        corners = joined.corners(rules, rules.box_convention)
        assert np.array_equal(corners, np.concatenate([runs.boxes for runs in alone]))
        for sweep in (*sweeps, sweeps[0].to_inclusive()):
            for index in range(0, len(sweep.thresholds), 37):
                box, iou = sweep.at(index, which)
                assert np.array_equal(box, getattr(sweep, f"boxes_{which}")[index])
                assert iou == getattr(sweep, f"iou_{which}")[index]


def test_no_sweeps_have_no_runs() -> None:
    joined = PackedSweeps.pack([None], "largest")
    assert (len(joined.first), len(joined.ious([], np.zeros((0, 2)), load_protocol("exact")))) == (0, 0)
