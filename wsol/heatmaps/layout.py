"""How a layer's output lies in memory: maps, channels-last maps or tokens, and how each becomes maps (B, K, h, w)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torchvision import models
from torchvision.models.maxvit import PartitionAttentionLayer

from wsol.errors import UserError
from wsol.models import find_layer


@dataclass(frozen=True)
class Layout:
    """Where a layer's output has its channels and its places: (B, K, h, w) unless something else is said."""

    channels_last: bool = False  # (B, h, w, K), as Swin's blocks yield it
    grid: tuple[int, int] | None = None  # (h, w) of tokens (B, skipped + h·w, K)
    skipped: int = 0  # tokens that stand for no place (class, distillation), in front

    def as_map(self, tensor: torch.Tensor) -> torch.Tensor:
        """Lay the layer's output, or its gradient, out as (B, K, h, w); a view, not a copy."""
        if self.grid:
            return tensor[:, self.skipped :].transpose(1, 2).unflatten(2, self.grid)
        return tensor.permute(0, 3, 1, 2) if self.channels_last else tensor


def layout_of(model: nn.Module, layer: str, output: torch.Tensor, images: torch.Tensor) -> Layout:
    """Tell how a layer's output for images (B, 3, H, W) lies; tokens and maps have the aspect of the images."""
    image_size = images.shape[2], images.shape[3]
    if windows := _window_around(model, layer):
        raise UserError(f"layer {layer} sees windows, not the image: choose {windows}, which puts them together again")
    if len(output) == len(images) and output.ndim == 4:
        layout = Layout(channels_last=_is_channels_last(model, layer, output, image_size))
        if layout.as_map(output).shape[2:].numel() > 1:
            return layout
    for skipped in (1, 0, 2) if len(output) == len(images) and output.ndim == 3 else ():
        if grid := token_grid(output.shape[1] - skipped, image_size):
            return Layout(grid=grid, skipped=skipped)
    raise UserError(
        f"layer {layer} yields shape {tuple(output.shape)} for {len(images)} images, no maps; wanted (B, K, h, w), or "
        f"(B, 1 + h*w, K) tokens; choose a layer before the pooling, or show the network larger images"
    )


def token_grid(count: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of a number of tokens that cover an image with square patches; None if they can't."""
    height, width = image_size
    rows = round((count * height / width) ** 0.5) if count > 1 else 0
    if rows and count % rows == 0 and rows * width == count // rows * height:
        return rows, count // rows
    return None


def _is_channels_last(model: nn.Module, layer: str, output: torch.Tensor, image_size: tuple[int, int]) -> bool:
    """Tell (B, h, w, K) from (B, K, h, w): by the image's aspect where only one of them has it, else by the layer."""
    height, width = image_size
    sides = output.shape[1:3], output.shape[2:4]
    last, first = (abs(h * width - w * height) / max(image_size) for h, w in sides)  # pixels off the image's aspect
    for most in (0, 1):
        if (last <= most) != (first <= most):
            return last <= most
    module = find_layer(model, layer)
    if isinstance(model, models.SwinTransformer) and layer.split(".")[0] in ("features", "norm"):
        return layer != "features.0.0"  # the convolution that makes the patches
    if type(module) is nn.LayerNorm:
        return len(module.normalized_shape) == 1
    return isinstance(module, nn.Linear)


def _window_around(model: nn.Module, layer: str) -> str | None:
    """Name of the layer that cuts maps into windows for its own layers, among them this one (MaxViT)."""
    parts = layer.split(".")
    above = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((name for name in above if isinstance(model.get_submodule(name), PartitionAttentionLayer)), None)
