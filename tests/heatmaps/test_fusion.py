"""Maps of several layers fused into one: the formula, written plainly in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wsol.heatmaps import HeatmapExtractor, make_method
from wsol.heatmaps.extractor import fuse
from wsol.models import gapnet


def between(size: int, of: int) -> np.ndarray:
    """Linear interpolation between the centers of pixels, as a matrix (size, of); none goes on beyond the border."""
    matrix = np.zeros((size, of))
    for row in range(size):
        place = min(max((row + 0.5) * of / size - 0.5, 0), of - 1)
        low = math.floor(place)
        matrix[row, low] += 1 - (place - low)
        matrix[row, min(low + 1, of - 1)] += place - low
    return matrix


def resized(heatmap: np.ndarray, height: int, width: int) -> np.ndarray:
    return between(height, heatmap.shape[0]) @ heatmap @ between(width, heatmap.shape[1]).T


@pytest.mark.parametrize("how", ["max", "mean"])
def test_each_layer_is_scaled_by_tanh_then_fused(how: str) -> None:
    generator = np.random.default_rng(0)
    maps = [generator.normal(size=(2, *size)) for size in ((3, 4), (6, 8), (5, 5))]
    maps[2][1] = -1  # nothing of it is positive
    wanted = np.zeros((2, 6, 8))
    for image in range(2):
        scaled = []
        for heatmap in maps:
            positive = np.maximum(heatmap[image], 0)
            highest = positive.max()
            scaled.append(resized(np.tanh(2 * positive / highest) if highest else positive, 6, 8))
        wanted[image] = np.max(scaled, 0) if how == "max" else np.mean(scaled, 0)
    found = fuse([torch.from_numpy(heatmap) for heatmap in maps], how)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("how", ["max", "mean"])
def test_a_fused_method_fuses_its_own_layers(how: str) -> None:
    layers = ("features.1", "features.4")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    methods = {str(i): make_method("layercam", layer=layer) for i, layer in enumerate(layers)}
    methods["fused"] = make_method("layercam", layer=layers, fuse=how)
    with HeatmapExtractor(gapnet(7, seed=0), methods) as extractor:
        maps = extractor(images, torch.tensor([1, 2])).maps
    assert maps["0"].shape != maps["1"].shape
    torch.testing.assert_close(maps["fused"], fuse([maps["0"], maps["1"]], how))
