"""How a layer's output lies in memory: maps, channels-last maps or tokens, and how each becomes maps (B, K, h, w)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torchvision import models
from torchvision.models.maxvit import PartitionAttentionLayer
from torchvision.ops.misc import Permute

from wsol.errors import UserError
from wsol.models import find_layer, unwrap

__all__ = ["Layout", "layout_of", "token_grid"]


@dataclass(frozen=True)
class Layout:
    """Where a layer's output has its channels and its places.

    Parameters
    ----------
    channels_last : bool
        (B, h, w, K), as Swin's blocks yield it; else (B, K, h, w).
    grid : (h, w), optional
        For tokens (B, skipped + h·w, K).
    skipped : int
        Tokens that stand for no place (class, distillation), in front.
    """

    channels_last: bool = False
    grid: tuple[int, int] | None = None
    skipped: int = 0

    @property
    def channel_axis(self) -> int:
        """Axis of the channels in the layer's own output."""
        return -1 if self.channels_last or self.grid else 1

    def as_map(self, tensor: torch.Tensor) -> torch.Tensor:
        """Lay the layer's output, or its gradient, out as (B, K, h, w).

        Examples
        --------
        >>> Layout(grid=(14, 14), skipped=1).as_map(torch.zeros(2, 197, 8)).shape
        torch.Size([2, 8, 14, 14])
        """
        if self.grid:
            return tensor[:, self.skipped :].transpose(1, 2).unflatten(2, self.grid)
        return tensor.permute(0, 3, 1, 2) if self.channels_last else tensor


def layout_of(model: nn.Module, layer: str, tensor: torch.Tensor, image_size: tuple[int, int]) -> Layout:
    """Tell how a layer's output lies.

    Parameters
    ----------
    model : nn.Module
    layer : str
        Dotted name.
    tensor : tensor
        The layer's output.
    image_size : (height, width)
        Of the network's input; tokens have its aspect.

    Raises
    ------
    UserError
        If the output has no spatial layout.
    """
    windows = _window_around(unwrap(model), layer)
    if windows is not None:
        raise UserError(f"layer {layer} sees windows, not the image: choose {windows}, which puts them together again")
    module = find_layer(model, layer)
    if any(_is_batch_second(part) for part in (module, *_around(unwrap(model), layer))):
        raise UserError(f"layer {layer} yields (places, B, K): build its transformer with batch_first=True")
    if tensor.ndim == 4:
        layout = Layout(channels_last=_is_channels_last(model, layer, tensor, image_size))
        if layout.as_map(tensor).shape[2:].numel() == 1 and max(image_size) > 1:
            raise UserError(
                f"layer {layer} yields shape {tuple(tensor.shape)}, one value for the whole image; choose a layer "
                f"before the pooling, or show the network larger images"
            )
        return layout
    if tensor.ndim == 3 and (isinstance(module, nn.Flatten) or type(module).__name__.endswith("1d")):
        raise UserError(
            f"layer {layer} ({type(module).__name__}) yields shape {tuple(tensor.shape)}, channels before places in a "
            f"row; wanted (B, K, h, w), or (B, 1 + h*w, K) tokens; choose another layer"
        )
    if tensor.ndim == 3:
        for skipped in (1, 0, 2):
            grid = token_grid(tensor.shape[1] - skipped, image_size)
            if grid is not None:
                return Layout(grid=grid, skipped=skipped)
    raise UserError(
        f"layer {layer} yields shape {tuple(tensor.shape)}, which has no spatial layout; wanted (B, K, h, w), "
        f"or (B, 1 + h*w, K) tokens; choose a layer before the pooling"
    )


def token_grid(count: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of a number of tokens that cover an image with square patches; None if they can't.

    Examples
    --------
    >>> token_grid(196, (224, 224)), token_grid(14 * 7, (224, 112)), token_grid(197, (224, 224))
    ((14, 14), (14, 7), None)
    """
    height, width = image_size
    rows = round((count * height / width) ** 0.5) if count > 1 else 0
    if rows and count % rows == 0 and rows * width == count // rows * height:
        return rows, count // rows
    return None


def _is_channels_last(model: nn.Module, layer: str, tensor: torch.Tensor, image_size: tuple[int, int]) -> bool:
    """Tell (B, h, w, K) from (B, K, h, w): by the image's aspect where only one of them has it, else by the layer."""
    last, first = (_pixels_off(sides, image_size) for sides in (tensor.shape[1:3], tensor.shape[2:4]))
    for most in (0, 1):
        if (last <= most) != (first <= most):
            return last <= most
    return _is_known_as_channels_last(model, layer)


def _around(network: nn.Module, layer: str) -> list[nn.Module]:
    """The modules that a layer stands in."""
    parts = layer.split(".")
    return [network.get_submodule(".".join(parts[:end])) for end in range(len(parts))]


def _is_batch_second(module: nn.Module) -> bool:
    if isinstance(module, nn.TransformerEncoder) and len(module.layers):
        module = module.layers[0]
    return isinstance(module, nn.TransformerEncoderLayer) and not module.self_attn.batch_first


def _pixels_off(sides: torch.Size, image_size: tuple[int, int]) -> float:
    """By how many pixels a map's height and width miss the image's aspect."""
    (height, width), (image_height, image_width) = sides, image_size
    return abs(height * image_width - width * image_height) / max(image_height, image_width)


def _is_known_as_channels_last(model: nn.Module, layer: str) -> bool:
    """Swin's stages, and what works on the last axis by its nature, yield (B, h, w, K)."""
    module, network = find_layer(model, layer), unwrap(model)
    turned = _turned(network, layer)
    if turned is not None:
        return turned
    if isinstance(network, models.SwinTransformer) and layer.split(".")[0] in ("features", "norm"):
        return layer != "features.0.0"  # the convolution that makes the patches
    if isinstance(module, nn.LayerNorm):
        return len(module.normalized_shape) == 1 and not type(module).__name__.endswith("2d")
    return isinstance(module, nn.Linear)


def _turned(network: nn.Module, layer: str) -> bool | None:
    """Whether a layer's maps are channels-last in a Sequential that turns them (ConvNeXt); None: it turns none."""
    parent, _, own = layer.rpartition(".")
    container = network.get_submodule(parent)
    if not isinstance(container, nn.Sequential):
        return None
    names = list(container._modules)
    before = [container._modules[name] for name in names[: names.index(own) + 1]]
    turns = [list(module.dims) for module in before if isinstance(module, Permute)]
    return turns[-1] == [0, 2, 3, 1] if turns else None


def _window_around(network: nn.Module, layer: str) -> str | None:
    """Name of the layer that cuts maps into windows for its own layers, among them this one (MaxViT)."""
    parts = layer.split(".")
    above = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((name for name in above if isinstance(network.get_submodule(name), PartitionAttentionLayer)), None)
