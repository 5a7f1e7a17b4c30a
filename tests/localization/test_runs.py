"""Runs of one sweep, of many, and at one threshold: always the same boxes."""

from __future__ import annotations

import numpy as np
import pytest

from wsol import sweep_thresholds
from wsol.localization.sweep import join_runs


@pytest.mark.parametrize("protocol", ["choe2020", "zhou2016", "exact"])
@pytest.mark.parametrize("sizes", [[(9, 12), (9, 12)], [(9, 12), (5, 7), (9, 12)]], ids=["one size", "several sizes"])
def test_many_sweeps_and_one_threshold(protocol: str, sizes: list[tuple[int, int]]) -> None:
    generator = np.random.default_rng(0)
    sweeps = [sweep_thresholds(generator.random(size), [0, 0, 3, 3], protocol) for size in sizes]
    for which in ("largest", "any"):
        alone = [sweep.runs(which) for sweep in sweeps]
        joined = join_runs(sweeps, which)
        for name in ("first", "boxes", "iou"):
            assert np.array_equal(getattr(joined, name), np.concatenate([getattr(runs, name) for runs in alone]))
        for sweep in (*sweeps, sweeps[0].to_inclusive()):
            for index in range(0, len(sweep.thresholds), 37):
                box, iou = sweep.at(index, which)
                assert np.array_equal(box, getattr(sweep, f"boxes_{which}")[index])
                assert iou == getattr(sweep, f"iou_{which}")[index]


def test_no_sweeps_have_no_runs() -> None:
    joined = join_runs([], "largest")
    assert (len(joined.first), joined.boxes.shape, len(joined.iou)) == (0, (0, 4), 0)
