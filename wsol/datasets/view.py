"""How an image becomes the network's input, and which part of the image that input shows."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from wsol.errors import UserError

__all__ = ["VIEWS", "look"]

VIEWS = ("squash", "crop")
CROP_SHARE = 0.875  # 224 of 256, the share that classifiers are usually tested with


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
    if view not in VIEWS:
        raise UserError(f"unknown view {view!r}: there are {', '.join(VIEWS)}")
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
