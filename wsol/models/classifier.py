"""A classifier with all that is needed to show it an image and to read its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import nn

from wsol.settings import settings


@settings(frozen=False)
class Classifier:
    """A network and how to use it; a value that is not of its kind is refused with a `UserError`.

    Parameters
    ----------
    name : str
        Its name in the tables: "resnet50".
    module : nn.Module
        Normalized images (B, 3, H, W) → logits (B, C).
    layer : str
        Dotted name of the default target layer.
    input_size : (height, width)
        Pixels of the network's input.
    mean, std : (red, green, blue)
        Normalization on the 0…1 scale; ImageNet's by default.
    interpolation : "bilinear" or "bicubic"
        How images are resized to the input size.
    classes, class_ids : tuple of str, optional
        Names, and WordNet ids or the like, in the order of the logits; None where unknown.
    weights : str
        What was loaded, for people: "IMAGENET1K_V2", a file, "random".
    knobs : mapping
        What the training data was generated with (Shapes); empty elsewhere.
    """

    name: str
    module: nn.Module
    layer: str
    input_size: tuple[PositiveInt, PositiveInt] = (224, 224)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    classes: tuple[str, ...] | None = None
    class_ids: tuple[str, ...] | None = None
    weights: str = "as passed"
    knobs: Mapping[str, object] = field(default_factory=dict)

    def prepare(self, pixels: torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
        """Normalize a batch, uint8 (B, h, w, 3), on its device: float32 (B, 3, h, w) in channels-last memory."""
        device = torch.device(device)
        if device.type == "cuda":
            pixels = pixels.pin_memory()
        pixels = pixels.to(device, non_blocking=True).float().permute(0, 3, 1, 2)  # (B, 3, h, w)
        mean = torch.tensor(self.mean, device=device).mul(255).view(3, 1, 1)
        scale = torch.tensor(self.std, device=device).mul(255).reciprocal().view(3, 1, 1)
        return pixels.sub_(mean).mul_(scale)
