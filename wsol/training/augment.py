"""The usual augmentations, drawn from a generator per image so that threads and resumed runs see the same pictures."""

from __future__ import annotations

import math

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from wsol.datasets.views import apply_view
from wsol.errors import UserError

__all__ = ["AUGMENTATIONS", "augment"]

AUGMENTATIONS = ("crop", "shift", "flip", "turn", "color")


def augment(
    image: np.ndarray,
    kinds: tuple[str, ...],
    input_size: tuple[int, int],
    interpolation: str,
    generator: np.random.Generator,
) -> torch.Tensor:
    """Change an image at random and bring it to the input size.

    Parameters
    ----------
    image : array of uint8 (H, W, 3)
    kinds : tuple of str
        Any of "crop" (a random part of 0.35 to 1 of the area, aspect 3:4 to 4:3), "shift" (up to 1/8 of the side),
        "flip" (left to right), "turn" (by 0, 90, 180 or 270 degrees), "color" (brightness, contrast and
        saturation by up to 0.3).
    input_size : (height, width)
    interpolation : "bilinear" or "bicubic"
    generator : numpy Generator

    Returns
    -------
    uint8 tensor (height, width, 3)

    Raises
    ------
    UserError
        If a kind is unknown.

    Examples
    --------
    >>> white = np.full((8, 8, 3), 255, np.uint8)
    >>> augment(white, ("crop", "flip"), (4, 4), "bilinear", np.random.default_rng(0)).shape
    torch.Size([4, 4, 3])
    """
    for kind in kinds:
        if kind not in AUGMENTATIONS:
            raise UserError(f"training.augment: unknown {kind!r}; there are {', '.join(AUGMENTATIONS)}")
    if "crop" in kinds:
        top, left, height, width = _random_part(image.shape[0], image.shape[1], generator)
        image = np.ascontiguousarray(image[top : top + height, left : left + width])
    pixels, _ = apply_view(image, "squash", input_size, interpolation)
    if "shift" in kinds:
        pixels = _shift(pixels, generator)
    if "flip" in kinds and generator.random() < 0.5:
        pixels = pixels.flip(1)
    if "turn" in kinds and input_size[0] == input_size[1]:
        pixels = torch.rot90(pixels, int(generator.integers(4)))
    if "color" in kinds:
        pixels = _color(pixels, generator)
    return pixels.contiguous()


def _random_part(height: int, width: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = generator.uniform(0.35, 1.0) * height * width
        aspect = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = generator.integers(height - rows + 1), generator.integers(width - columns + 1)
            return int(top), int(left), rows, columns
    return 0, 0, height, width


def _shift(pixels: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    height, width = pixels.shape[:2]
    down, across = height // 8, width // 8
    padded = F.pad(pixels.permute(2, 0, 1), [across, down], padding_mode="reflect")
    top, left = int(generator.integers(2 * down + 1)), int(generator.integers(2 * across + 1))
    return padded[:, top : top + height, left : left + width].permute(1, 2, 0)


def _color(pixels: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    picture = pixels.permute(2, 0, 1)
    picture = F.adjust_brightness(picture, generator.uniform(0.7, 1.3))
    picture = F.adjust_contrast(picture, generator.uniform(0.7, 1.3))
    picture = F.adjust_saturation(picture, generator.uniform(0.7, 1.3))
    return picture.permute(1, 2, 0)
