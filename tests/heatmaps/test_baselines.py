"""Baselines: exact values, and noise that depends on the sample and the seed alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from wsol.heatmaps import HeatmapExtractor
from wsol.heatmaps.store import center, random
from wsol.models import gapnet


@pytest.mark.parametrize("size", [(224, 224), (5, 8), (1, 1), (2, 7)])
def test_center_is_a_gaussian_of_a_quarter_of_the_size(size: tuple[int, int]) -> None:
    width, height = size
    result = center(size)
    assert result.shape == (height, width)
    assert result.dtype == np.float64
    for y, x in {(0, 0), (height - 1, 0), (height // 2, width // 2), (height // 3, width - 1)}:
        dx, dy = (x - (width - 1) / 2) / (width / 4), (y - (height - 1) / 2) / (height / 4)
        assert result[y, x] == pytest.approx(math.exp(-(dx * dx + dy * dy) / 2), rel=1e-12)


def test_random_is_uniform_and_depends_on_sample_and_seed_alone() -> None:
    result = random((9, 5), "val/7", seed=3)
    assert result.shape == (5, 9)
    assert np.array_equal(result, random((9, 5), "val/7", seed=3))
    assert not np.array_equal(result, random((9, 5), "val/8", seed=3))
    assert not np.array_equal(result, random((9, 5), "val/7", seed=4))
    values = np.concatenate([random((7, 7), str(i)).ravel() for i in range(400)])
    counts = np.histogram(values, 10, (0, 1))[0] / len(values)
    assert np.abs(counts - 0.1).max() < 0.01
    # Tables of old runs can be made again.
    assert random((2, 1), "a").ravel().tolist() == pytest.approx([0.518844208218716, 0.07436808519495652])


@pytest.fixture
def model() -> nn.Module:
    return gapnet(5, widths=(4,), strides=(4,), seed=0)


def test_random_through_the_extractor_is_independent_of_batch_and_order(model: nn.Module) -> None:
    names, pictures = [f"s{i}" for i in range(6)], torch.rand(6, 3, 32, 32)
    with HeatmapExtractor(model, ("random",), seed=5) as extractor:
        together = extractor(pictures, None, names).maps["random"]
    order = [4, 1, 5, 0, 3, 2]
    with HeatmapExtractor(model, ("random",), seed=5) as extractor:
        for start in (0, 2, 4):
            part = order[start : start + 2]
            result = extractor(pictures[part], None, [names[i] for i in part]).maps["random"]
            assert torch.equal(result, together[part])
    assert together.shape == (6, 8, 8)
    assert np.allclose(together[2], random((8, 8), "s2", 5))
    with HeatmapExtractor(model, ("random",)) as extractor:
        extractor(pictures[:2])
        assert np.allclose(extractor(pictures).maps["random"][1], random((8, 8), "3")), (
            "without names images are counted"
        )


def test_center_and_full_are_as_large_as_the_input(model: nn.Module) -> None:
    with HeatmapExtractor(model, ("center", "full")) as extractor:
        result = extractor(torch.rand(2, 3, 20, 32)).maps
    assert np.allclose(result["center"], center((32, 20)))
    assert torch.equal(result["full"], torch.ones(2, 20, 32))
