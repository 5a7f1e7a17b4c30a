"""What the tests of heatmaps share: small networks, images of noise, one recording, maps in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision import models

from wsol.heatmaps import HeatmapExtractor, Method, Recording, make_method
from wsol.heatmaps.recording import record
from wsol.models import gapnet

TARGETS = torch.tensor([3, 1, 4])


def images(count: int = 3, side: int = 16, channels: int = 3, width: int | None = None) -> torch.Tensor:
    """Noise, float64."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, side, width or side, generator=generator, dtype=torch.float64)


def lively(model: nn.Module) -> nn.Module:
    """In float64, frozen, with biases and running statistics that are none of them 0 or 1."""
    torch.manual_seed(0)
    model = model.double().eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.bias.normal_(0, 0.3)
    return model


def gap(strides: tuple[int, int] = (2, 2), classes: int = 5, scale: float = 1.0) -> nn.Module:
    """Two convolutions with maps of 8 channels, pooling, and a head whose logits lie farther apart by that factor."""
    model = lively(gapnet(classes, widths=(6, 8), strides=strides, seed=0))
    model.classifier.weight *= scale
    return model


def resnet() -> nn.Module:
    return models.resnet18(num_classes=5)


def densenet(blocks: int = 4) -> nn.Module:
    return models.DenseNet(growth_rate=4, block_config=(2,) * blocks, num_init_features=8, num_classes=5)


def swin() -> nn.Module:
    return models.SwinTransformer([4, 4], 8, depths=[1, 1], num_heads=[1, 2], window_size=[2, 2], num_classes=5)


def vit(side: int = 32, blocks: int = 2) -> nn.Module:
    """Of patches of 8 pixels, in float64; torchvision's head starts at zero, which has no heatmap."""
    torch.manual_seed(0)
    model = models.VisionTransformer(side, 8, blocks, 2, 16, 24, num_classes=5).double().eval()
    nn.init.normal_(model.heads.head.weight)
    return model


def recorded(
    model: nn.Module,
    layer: str,
    pictures: torch.Tensor,
    targets: torch.Tensor = TARGETS,
    chunk: int = 5,
    **settings: Any,
) -> Recording:
    """One pass, on the first classes of `targets`; no layer where that is empty."""
    return record(model, [layer] if layer else [], pictures, targets[: len(pictures)], chunk=chunk, **settings)


def maps_of(
    model: Any, methods: str | Mapping[str, Any], pictures: torch.Tensor | None = None,
    targets: Any = TARGETS, layer: Any = None, **settings: Any,
) -> Any:  # fmt: skip
    """Maps by method of a name, of options by name, or of methods; the map itself where one name is asked for."""
    pictures = images() if pictures is None else pictures
    named = {methods: methods} if isinstance(methods, str) else methods
    made = {name: m if isinstance(m, Method) else make_method(**{"function": name} | m) if isinstance(m, dict) else
            make_method(m) for name, m in named.items()}  # fmt: skip
    if isinstance(targets, torch.Tensor) and targets is TARGETS:
        targets = targets[: len(pictures)]
    with HeatmapExtractor(model, made, layer, **settings) as extractor:
        maps = extractor(pictures, targets).maps
    return maps[methods] if isinstance(methods, str) else maps


def derivative(model: nn.Module, pictures: torch.Tensor, targets: torch.Tensor = TARGETS) -> torch.Tensor:
    """∂y_c/∂X by autograd alone."""
    leaf = pictures.clone().requires_grad_()
    return torch.autograd.grad(model(leaf)[range(len(leaf)), targets[: len(leaf)]].sum(), leaf)[0]


def between(size: int, of: int) -> np.ndarray:
    """Linear interpolation between the centers of pixels, as a matrix (size, of); none goes on beyond the border."""
    matrix = np.zeros((size, of))
    for row in range(size):
        place = min(max((row + 0.5) * of / size - 0.5, 0), of - 1)
        low = int(place)
        matrix[row, low] += 1 - (place - low)
        matrix[row, min(low + 1, of - 1)] += place - low
    return matrix


def enlarged(heatmap: np.ndarray, height: int, width: int) -> np.ndarray:
    return between(height, heatmap.shape[0]) @ heatmap @ between(width, heatmap.shape[1]).T
