"""How an image becomes the network's input, what its rectangle says, and how heatmaps of crops come together."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.transforms import v2

from wsol import evaluate
from wsol.datasets import Shapes
from wsol.datasets.views import View, apply_view, average_crops
from wsol.errors import UserError
from wsol.models import shapes_classifier


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_image_of_the_input_size_stays_as_it_is() -> None:
    image = noise(24, 40)
    pixels, rectangle = apply_view(image, "squash", (24, 40))
    assert np.array_equal(pixels.numpy(), image) and rectangle == (0, 0, 40, 24)


@pytest.mark.parametrize("view", ["squash", "crop"])
@pytest.mark.parametrize("size", [(120, 90), (61, 97), (40, 200), (150, 31), (48, 48)])
def test_rectangle_says_where_the_pixels_come_from(view: str, size: tuple[int, int]) -> None:
    """On a ramp the color is the place: red is x, green is y."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.uint8)
    pixels, (x0, y0, x1, y1) = apply_view(np.stack([x, y, x], -1), view, (32, 48))
    across = x0 + (np.arange(48) + 0.5) * (x1 - x0) / 48 - 0.5
    down = y0 + (np.arange(32) + 0.5) * (y1 - y0) / 32 - 0.5
    inner = slice(3, -3)  # at the image's edge there is nothing left to average with
    assert np.abs(pixels[:, inner, 0].numpy() - across[inner]).max() <= 1
    assert np.abs(pixels[inner, :, 1].numpy() - down[inner, None]).max() <= 1


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (128, 128), (48, 64), (30, 30), (301, 64)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_is_resize_and_center_crop(size: tuple[int, int], interpolation: str) -> None:
    image = noise(*size)
    twin = v2.Compose([v2.Resize(64, v2.InterpolationMode(interpolation), antialias=True), v2.CenterCrop(56)])
    expected = twin(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).int()
    cropped = apply_view(image, "crop", (56, 56), interpolation)[0].int()
    assert (cropped - expected).abs().max() <= 1


def test_read_only_and_strided_images_are_left_alone() -> None:
    image = noise(30, 50)[::-1, ::2]
    image.setflags(write=False)
    before = image.copy()
    first, _ = apply_view(image, "squash", (16, 16))
    assert torch.equal(first, apply_view(before, "squash", (16, 16))[0])
    assert np.array_equal(image, before)


@pytest.mark.parametrize("name", ["squash", "crop", "tencrop"])
def test_second_half_is_the_first_mirrored(name: str) -> None:
    pixels, _ = View(name, (28, 28), flip=True).apply(noise(50, 70))
    half = len(pixels) // 2
    assert half == (5 if name == "tencrop" else 1)
    assert torch.equal(pixels[half:], pixels[:half].flip(2))


def test_ten_crops_are_parts_of_the_canvas() -> None:
    view = View("tencrop", (28, 56))
    pixels, rectangle = view.apply(noise(50, 70))
    assert view.canvas == (32, 64)
    assert rectangle == (0, 0, 70, 50)
    whole, _ = View("squash", view.canvas).apply(noise(50, 70))
    corners = [(0, 0), (0, 8), (4, 0), (4, 8), (2, 4)]
    for crop, (top, left) in zip(pixels[:5], corners, strict=True):
        assert torch.equal(crop, whole[0, top : top + 28, left : left + 56])


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


@pytest.mark.parametrize(("view", "flip", "name"), [("squash", True, "squash+flip"), ("tencrop", False, "tencrop")])
def test_evaluation_says_its_view(view: str, flip: bool, name: str) -> None:
    run = partial(evaluate, Shapes(length=4), shapes_classifier(), ("cam",), ("choe2020",), progress=False)
    results, plain = run(view=view, flip=flip), run()
    assert set(results.summary["view"]) == {name}
    assert results.samples["top5_probability"].iloc[0][0] != plain.samples["top5_probability"].iloc[0][0]


def test_unknown_views_are_named() -> None:
    with pytest.raises(UserError, match="zoom"):
        View("zoom", (28, 28))
