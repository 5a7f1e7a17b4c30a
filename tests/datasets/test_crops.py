"""Several pictures of one image: what they show, and how their heatmaps come together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from wsol import evaluate
from wsol.datasets import Shapes
from wsol.datasets.views import View, average_crops
from wsol.errors import UserError
from wsol.models import shapes_classifier


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["squash", "crop", "tencrop"])
def test_second_half_is_the_first_mirrored(name: str) -> None:
    pixels, _ = View(name, (28, 28), flip=True).apply(picture())
    half = len(pixels) // 2
    assert half == (5 if name == "tencrop" else 1)
    assert torch.equal(pixels[half:], pixels[:half].flip(2))


def test_ten_crops_are_parts_of_the_canvas() -> None:
    view = View("tencrop", (28, 56))
    pixels, rectangle = view.apply(picture())
    assert view.canvas == (32, 64)
    assert rectangle == (0, 0, 70, 50)
    whole, _ = View("squash", view.canvas).apply(picture())
    corners = [(0, 0), (0, 8), (4, 0), (4, 8), (2, 4)]
    for found, (top, left) in zip(pixels[:5], corners, strict=True):
        assert torch.equal(found, whole[0, top : top + 28, left : left + 56])


@pytest.mark.parametrize("name", ["squash", "tencrop"])
def test_what_does_not_depend_on_the_crop_stays(name: str) -> None:
    view = View(name, (28, 28), flip=True)
    merged = average_crops(torch.full((2, len(view.crops), 3, 7, 7), 5.0), view)
    size = (7, 7) if name == "squash" else view.canvas
    torch.testing.assert_close(merged, torch.full((2, 3, *size), 5.0))


def test_maps_are_turned_back() -> None:
    view = View("squash", (28, 28), flip=True)
    heatmap = torch.rand(1, 7, 7)
    assert torch.equal(average_crops(torch.stack([heatmap, heatmap.flip(-1)], 1), view), heatmap)


def test_ten_crop_is_the_mean_over_the_crops_that_cover_a_pixel() -> None:
    view = View("tencrop", (28, 28))
    maps = torch.rand(1, 10, 7, 7, dtype=torch.float64)
    merged, total, count = average_crops(maps, view), np.zeros((32, 32)), np.zeros((32, 32))
    for crop, heatmap in zip(view.crops, maps[0], strict=True):
        large = functional.interpolate(heatmap[None, None], (28, 28), mode="bilinear")[0, 0].numpy()
        total[crop.top : crop.top + 28, crop.left : crop.left + 28] += large[:, ::-1] if crop.flipped else large
        count[crop.top : crop.top + 28, crop.left : crop.left + 28] += 1
    np.testing.assert_allclose(merged[0].numpy(), total / count, atol=1e-12)


@pytest.mark.parametrize(("view", "flip", "shown"), [("squash", True, "squash+flip"), ("tencrop", False, "tencrop")])
def test_evaluation_says_its_view(view: str, flip: bool, shown: str) -> None:
    results = evaluate(
        Shapes(length=4), shapes_classifier(), ("cam", "center"), ("choe2020",), view=view, flip=flip, progress=False
    )
    assert set(results.summary["view"]) == {shown}
    plain = evaluate(Shapes(length=4), shapes_classifier(), ("cam",), ("choe2020",), progress=False)
    assert results.samples["top5_probability"].iloc[0][0] != plain.samples["top5_probability"].iloc[0][0]


def test_unknown_view() -> None:
    with pytest.raises(UserError, match="unknown view 'zoom': there are squash, crop, tencrop"):
        View("zoom", (28, 28))
