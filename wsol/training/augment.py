"""The usual augmentations, drawn from a generator per image so that threads and resumed runs see the same pictures.

- crop: a random part of 0.35 to 1 of the area, aspect 3:4 to 4:3;
- shift: up to 1/8 of the side;
- flip: left to right, every second time;
- turn: by 0, 90, 180 or 270 degrees, where the input is square;
- color: brightness, contrast and saturation by up to 0.3.

torchvision's random transforms draw from the global generator, which threads share.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal

import numpy as np
import torch
from torchvision.transforms.v2 import functional

from wsol.datasets.views import apply_view

Augmentation = Literal["crop", "shift", "flip", "turn", "color"]


def augment(
    image: np.ndarray,
    kinds: Collection[Augmentation],
    input_size: tuple[int, int],
    interpolation: str,
    generator: np.random.Generator,
) -> torch.Tensor:
    """Change an image uint8 (H, W, 3) at random and bring it to the input size: uint8 (height, width, 3)."""
    if "crop" in kinds:
        image = _random_part(image, generator)
    pixels = apply_view(image, "squash", input_size, interpolation)[0].permute(2, 0, 1)  # (3, h, w)
    if "shift" in kinds:
        pixels = _shift(pixels, generator)
    if "flip" in kinds and generator.random() < 0.5:
        pixels = pixels.flip(2)
    if "turn" in kinds and input_size[0] == input_size[1]:
        pixels = torch.rot90(pixels, int(generator.integers(4)), (1, 2))
    if "color" in kinds:
        for adjust in (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation):
            pixels = adjust(pixels, generator.uniform(0.7, 1.3))
    return pixels.permute(1, 2, 0).contiguous()


def _random_part(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    for _ in range(10):
        area = generator.uniform(0.35, 1.0) * height * width
        aspect = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = generator.integers(height - rows + 1), generator.integers(width - columns + 1)
            return np.ascontiguousarray(image[top : top + rows, left : left + columns])
    return image


def _shift(pixels: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    _, height, width = pixels.shape
    down, across = height // 8, width // 8
    padded = functional.pad(pixels, [across, down], padding_mode="reflect")
    top, left = int(generator.integers(2 * down + 1)), int(generator.integers(2 * across + 1))
    return padded[:, top : top + height, left : left + width]
