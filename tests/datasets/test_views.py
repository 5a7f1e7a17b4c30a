"""How an image becomes the network's input, and that the rectangle says truly what the input shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from wsol.datasets.views import apply_view
from wsol.errors import UserError

SIZES = [(60, 90), (97, 61), (33, 200), (20, 20), (7, 5), (1, 1)]  # (height, width), some smaller than the input


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("view", ["squash", "crop"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_shape_type_and_rectangle_inside(view: str, size: tuple[int, int], interpolation: str) -> None:
    pixels, (x0, y0, x1, y1) = apply_view(noise(*size), view, (24, 40), interpolation)
    assert pixels.shape == (24, 40, 3)
    assert pixels.dtype == torch.uint8
    assert 0 <= x0 < x1 <= size[1] + 1e-9
    assert 0 <= y0 < y1 <= size[0] + 1e-9


@pytest.mark.parametrize("size", SIZES)
def test_squash_shows_the_whole_image(size: tuple[int, int]) -> None:
    assert apply_view(noise(*size), "squash", (24, 24))[1] == (0, 0, size[1], size[0])


def test_image_of_the_input_size_stays_as_it_is() -> None:
    image = noise(24, 40)
    assert np.array_equal(apply_view(image, "squash", (24, 40))[0].numpy(), image)


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
    wanted = twin(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).int()
    found = apply_view(image, "crop", (56, 56), interpolation)[0].int()
    assert (found - wanted).abs().max() <= 1


def test_crop_keeps_the_aspect_and_the_center() -> None:
    x0, y0, x1, y1 = apply_view(noise(200, 100), "crop", (56, 56))[1]
    assert x1 - x0 == pytest.approx(87.5)
    assert y1 - y0 == pytest.approx(87.5)
    assert (x0 + x1) / 2 == pytest.approx(50)
    assert (y0 + y1) / 2 == pytest.approx(100)


def test_read_only_and_strided_images_are_left_alone() -> None:
    image = noise(30, 50)[::-1, ::2]
    image.setflags(write=False)
    before = image.copy()
    first, _ = apply_view(image, "squash", (16, 16))
    assert torch.equal(first, apply_view(before, "squash", (16, 16))[0])
    assert np.array_equal(image, before)


def test_unknown_view_names_the_views() -> None:
    with pytest.raises(UserError, match="unknown view 'stretch': there are squash, crop"):
        apply_view(noise(4, 4), "stretch", (4, 4))
