"""Sweeps of one map, of many, at one threshold and against other ground truth: always the same boxes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsol import load_protocol, score_map, sweep_thresholds
from wsol.heatmaps.store import center, full
from wsol.localization import Protocol
from wsol.localization.protocol import protocol_names
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


@pytest.mark.parametrize("name", protocol_names())
@pytest.mark.parametrize("size", [(224, 224), (37, 50), (1, 9)])
def test_against_equals_a_sweep_of_its_own(name: str, size: tuple[int, int]) -> None:
    rules, random = load_protocol(name), np.random.default_rng(0)
    if size == (1, 9):
        rules = Protocol.from_mapping({**rules.__dict__, "connectivity": 4, "box_convention": "inclusive"})
    image_size = (160, 120)
    for values in (score_map(center(size), Protocol(size=size)), full(size)):
        template = sweep_thresholds(values, [0, 0, size[0] - 1, size[1] - 1], rules)
        for count in (1, 3):
            low = np.stack([random.integers(0, 80, count), random.integers(0, 60, count)], axis=1)
            boxes = np.concatenate([low, low + random.integers(0, 60, (count, 2))], axis=1)
            sweep = template.against(boxes, image_size)
            expected = sweep_thresholds(values, boxes, rules, image_size)
            for part in ("iou_largest", "iou_any", "boxes_largest", "boxes_any"):
                assert np.array_equal(getattr(sweep, part), getattr(expected, part)), part


def test_an_empty_map_has_the_empty_box() -> None:
    for rules in (Protocol(), Protocol(empty_box=None), Protocol(empty_box=(0, 0, 1, 1))):
        empty = np.zeros((9, 9))
        sweep = sweep_thresholds(empty, [0, 0, 8, 8], rules).against([0, 0, 3, 3])
        assert np.array_equal(sweep.iou_largest, sweep_thresholds(empty, [0, 0, 3, 3], rules).iou_largest)
        assert sweep.boxes_largest.shape == (1000, 4)


def test_a_sweep_shows_itself() -> None:
    heatmap = np.zeros((20, 30))
    heatmap[5:10, 10:20], heatmap[6:8, 12:16] = 0.5, 1.0
    sweep = sweep_thresholds(heatmap, [12, 6, 15, 7], "exact")
    assert len(repr(sweep)) < 160 and "30 x 20" in repr(sweep) and "1.000 at τ 0.5" in repr(sweep)
    for path in re.findall(r'd="(M.*?)"', sweep._repr_html_()):
        assert path.endswith("V0.0H300.0") and path.count("H") == len(sweep.runs("largest").first)
