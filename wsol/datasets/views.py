"""How an image becomes the network's input, which part of it that shows, and how heatmaps of crops are merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wsol.errors import UserError

if TYPE_CHECKING:  # scoring starts without torch
    from torch import Tensor

VIEWS = ("squash", "crop", "tencrop")
CROP_SHARE = 0.875  # 224 of 256, the share that classifiers are usually tested with
Rectangle = tuple[float, float, float, float]  # x0, y0, x1, y1 in original pixels, half-open


class Crop(NamedTuple):
    """One of the pictures that a view makes: where its corner lies on the canvas, and whether it is mirrored."""

    top: int
    left: int
    flipped: bool


@dataclass(frozen=True)
class View:
    """All pictures of an image that the network sees; their heatmaps are merged, their logits averaged.

    "squash" is the whole image resized without regard to its aspect; "crop" its shorter side resized to input size /
    0.875 and the center cut out; "tencrop" the whole image resized to input size / 0.875, and of that the four corners
    and the center, each also mirrored, as in Zhou et al., CVPR 2016.
    """

    name: str
    input_size: tuple[int, int]  # height, width
    flip: bool = False  # every picture is mirrored as well

    def __post_init__(self) -> None:
        if self.name not in VIEWS:
            raise UserError(f"unknown view {self.name!r}: there are {', '.join(VIEWS)}")

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of what the crops are cut from."""
        if self.name != "tencrop":
            return self.input_size
        return round(self.input_size[0] / CROP_SHARE), round(self.input_size[1] / CROP_SHARE)

    @property
    def crops(self) -> tuple[Crop, ...]:
        """The pictures, in the order in which `apply` returns them."""
        down, right = self.canvas[0] - self.input_size[0], self.canvas[1] - self.input_size[1]
        corners = [(0, 0)]
        if self.name == "tencrop":
            corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
        mirrored = (False, True) if self.flip or self.name == "tencrop" else (False,)
        return tuple(Crop(top, left, flipped) for flipped in mirrored for top, left in corners)

    def apply(self, image: np.ndarray, interpolation: str = "bilinear") -> tuple[Tensor, Rectangle]:
        """Make the pictures uint8 (V, height, width, 3) of an image (H, W, 3), and the rectangle that they cover."""
        import torch

        pixels, rectangle = apply_view(image, self.name, self.canvas, interpolation)
        height, width = self.input_size
        pictures = [pixels[crop.top : crop.top + height, crop.left : crop.left + width] for crop in self.crops]
        pairs = zip(self.crops, pictures, strict=True)
        return torch.stack([picture.flip(1) if crop.flipped else picture for crop, picture in pairs]), rectangle


def apply_view(
    image: np.ndarray, view: str, input_size: tuple[int, int], interpolation: str = "bilinear"
) -> tuple[Tensor, Rectangle]:
    """Bring an image (H, W, 3) to a size, whole unless `view` is "crop": uint8 (height, width, 3), and what it covers.

    Resizing ("bilinear" or "bicubic") is always antialiased.
    """
    import torch

    height, width = image.shape[:2]
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)  # (3, H, W)
    if view != "crop":
        return _resize(pixels, input_size, interpolation), (0.0, 0.0, float(width), float(height))
    scale = max(input_size[0] / height, input_size[1] / width) / CROP_SHARE
    resized = (max(round(height * scale), input_size[0]), max(round(width * scale), input_size[1]))
    top, left = (resized[0] - input_size[0]) // 2, (resized[1] - input_size[1]) // 2
    bottom, right = top + input_size[0], left + input_size[1]
    across, down = width / resized[1], height / resized[0]  # original pixels per resized pixel
    pixels = _resize(pixels, resized, interpolation)[top:bottom, left:right]
    return pixels, (left * across, top * down, right * across, bottom * down)


def _resize(pixels: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """(3, H, W) → (height, width, 3)."""
    if tuple(pixels.shape[1:]) != tuple(size):
        from torchvision.transforms.v2 import functional

        mode = functional.InterpolationMode(interpolation)
        pixels = functional.resize(pixels, list(size), mode, antialias=True)
    return pixels.permute(1, 2, 0)


def average_crops(maps: Tensor, view: View) -> Tensor:
    """Turn mirrored heatmaps back and average them where they lie on the image: (B, V, …, h, w) → (B, …, h, w).

    Ten-crop's are enlarged to the crops (bilinear), laid on the canvas, and each pixel is the mean of the crops that
    cover it, as Zhou et al. (CVPR 2016) merge them: (B, …, H, W), the size of the canvas.
    """
    import torch

    crops = view.crops
    turned = [maps[:, i].flip(-1) if crop.flipped else maps[:, i] for i, crop in enumerate(crops)]
    if view.canvas == view.input_size:
        return torch.stack(turned).mean(0)
    height, width = view.input_size
    total = maps.new_zeros(*turned[0].shape[:-2], *view.canvas)
    count = maps.new_zeros(view.canvas)
    for heatmap, crop in zip(turned, crops, strict=True):
        place = (..., slice(crop.top, crop.top + height), slice(crop.left, crop.left + width))
        flat = heatmap.reshape(-1, 1, *heatmap.shape[-2:])
        enlarged = torch.nn.functional.interpolate(flat, view.input_size, mode="bilinear")
        total[place] += enlarged.reshape(*heatmap.shape[:-2], height, width)
        count[place] += 1
    return total / count
