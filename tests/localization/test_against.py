"""A baseline's sweep, once made, gives for other true boxes what the whole sweep gives: to the last bit."""

import numpy as np
import pytest

import wsol
from wsol.heatmaps.store import center, full
from wsol.localization import Protocol
from wsol.localization.protocol import protocol_names


@pytest.mark.parametrize("name", protocol_names())
@pytest.mark.parametrize("size", [(224, 224), (37, 50), (1, 9)])
def test_against_equals_a_sweep_of_its_own(name: str, size: tuple[int, int]) -> None:
    rules, random = wsol.load_protocol(name), np.random.default_rng(0)
    if size == (1, 9):
        rules = Protocol.from_mapping({**rules.__dict__, "connectivity": 4, "box_convention": "inclusive"})
    image_size = (160, 120)
    for score_map in (wsol.score_map(center(size), Protocol(size=size)), full(size)):
        template = wsol.sweep_thresholds(score_map, [0, 0, size[0] - 1, size[1] - 1], rules)
        for count in (1, 3):
            low = np.stack([random.integers(0, 80, count), random.integers(0, 60, count)], axis=1)
            boxes = np.concatenate([low, low + random.integers(0, 60, (count, 2))], axis=1)
            sweep = template.against(boxes, image_size)
            expected = wsol.sweep_thresholds(score_map, boxes, rules, image_size)
            for part in ("iou_largest", "iou_any", "boxes_largest", "boxes_any"):
                assert np.array_equal(getattr(sweep, part), getattr(expected, part)), part


def test_an_empty_map_has_the_empty_box() -> None:
    for rules in (Protocol(), Protocol(empty_box=None), Protocol(empty_box=(0, 0, 1, 1))):
        empty = np.zeros((9, 9))
        sweep = wsol.sweep_thresholds(empty, [0, 0, 8, 8], rules).against([0, 0, 3, 3])
        assert np.array_equal(sweep.iou_largest, wsol.sweep_thresholds(empty, [0, 0, 3, 3], rules).iou_largest)
        assert sweep.boxes_largest.shape == (1000, 4)
