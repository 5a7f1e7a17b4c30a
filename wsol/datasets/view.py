"""How an image becomes the network's input, and which part of the image that input shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from wsol.errors import UserError

__all__ = ["VIEWS", "Crop", "View", "look"]

VIEWS = ("squash", "crop", "tencrop")
CROP_SHARE = 0.875  # 224 of 256, the share that classifiers are usually tested with


@dataclass(frozen=True)
class Crop:
    """One of the pictures that a view shows: where its corner lies on the canvas, and whether it is mirrored."""

    top: int
    left: int
    flipped: bool


@dataclass(frozen=True)
class View:
    """All pictures of an image that the network is shown; their heatmaps are merged, their logits averaged.

    Parameters
    ----------
    name : "squash", "crop" or "tencrop"
        Ten-crop: the whole image resized to input size / 0.875 without regard to its aspect, and of that the four
        corners and the center, each also mirrored, as in Zhou et al., CVPR 2016.
    input_size : (height, width)
    flip : bool
        Show every picture mirrored as well; ten-crop does so anyway.

    Raises
    ------
    UserError
        If the view is unknown.

    Examples
    --------
    >>> view = View("tencrop", (224, 224))
    >>> view.canvas, len(view.crops)
    ((256, 256), 10)
    >>> pixels, rectangle = view.show(np.zeros((60, 120, 3), np.uint8))
    >>> pixels.shape, rectangle
    (torch.Size([10, 224, 224, 3]), (0.0, 0.0, 120.0, 60.0))
    """

    name: str
    input_size: tuple[int, int]
    flip: bool = False

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
        """The pictures, in the order in which `show` returns them."""
        down, right = self.canvas[0] - self.input_size[0], self.canvas[1] - self.input_size[1]
        corners = [(0, 0)]
        if self.name == "tencrop":
            corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
        mirrored = (False, True) if self.flip or self.name == "tencrop" else (False,)
        return tuple(Crop(top, left, flipped) for flipped in mirrored for top, left in corners)

    def show(
        self, image: np.ndarray, interpolation: str = "bilinear"
    ) -> tuple[torch.Tensor, tuple[float, float, float, float]]:
        """Make the pictures uint8 (V, height, width, 3) of an image (H, W, 3), and the rectangle that they cover."""
        base = "squash" if self.name == "tencrop" else self.name
        pixels, rectangle = look(image, base, self.canvas, interpolation)
        height, width = self.input_size
        pictures = [pixels[crop.top : crop.top + height, crop.left : crop.left + width] for crop in self.crops]
        pairs = zip(self.crops, pictures, strict=True)
        return torch.stack([picture.flip(1) if crop.flipped else picture for crop, picture in pairs]), rectangle


def look(
    image: np.ndarray, view: str, input_size: tuple[int, int], interpolation: str = "bilinear"
) -> tuple[torch.Tensor, tuple[float, float, float, float]]:
    """Bring an image to the network's input size.

    Parameters
    ----------
    image : array of uint8 (H, W, 3)
    view : "squash" or "crop"
        The whole image resized without regard to its aspect; or its shorter side resized to input size / 0.875
        and the center cut out.
    input_size : (height, width)
    interpolation : "bilinear" or "bicubic"
        Always with antialiasing.

    Returns
    -------
    pixels : uint8 tensor (height, width, 3)
    rectangle : (x0, y0, x1, y1)
        The part of the image that is shown: original pixels, half-open.

    Raises
    ------
    UserError
        If the view is unknown.

    Examples
    --------
    >>> pixels, rectangle = look(np.zeros((60, 120, 3), np.uint8), "crop", (56, 56))
    >>> pixels.shape, rectangle
    (torch.Size([56, 56, 3]), (33.75, 3.75, 86.25, 56.25))
    """
    if view not in ("squash", "crop"):
        raise UserError(f"unknown view {view!r}: there are squash, crop, and for several pictures `View`")
    height, width = image.shape[:2]
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)  # (3, H, W)
    if view == "squash":
        return _resize(pixels, input_size, interpolation), (0.0, 0.0, float(width), float(height))
    scale = max(input_size[0] / height, input_size[1] / width) / CROP_SHARE
    resized = (max(round(height * scale), input_size[0]), max(round(width * scale), input_size[1]))
    top, left = (resized[0] - input_size[0]) // 2, (resized[1] - input_size[1]) // 2
    pixels = _resize(pixels, resized, interpolation)[top : top + input_size[0], left : left + input_size[1]]
    across, down = width / resized[1], height / resized[0]  # original pixels per resized pixel
    return pixels, (
        left * across,
        top * down,
        (left + input_size[1]) * across,
        (top + input_size[0]) * down,
    )


def _resize(pixels: torch.Tensor, size: tuple[int, int], interpolation: str) -> torch.Tensor:
    if tuple(pixels.shape[1:]) != tuple(size):
        pixels = F.resize(pixels, list(size), F.InterpolationMode(interpolation), antialias=True)
    return pixels.permute(1, 2, 0)  # (height, width, 3)
