"""The linear layer behind global average pooling: found among the modules, proved on the batch at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from wsol.errors import UserError


@dataclass(frozen=True, eq=False)
class Head:
    """logits = mean over space of (weight · A) + bias, or the mean of its ReLU (SqueezeNet, Network in Network)."""

    weight: torch.Tensor  # (C, K), or (B, C, K) where a normalization behind the pooling was folded into it
    bias: torch.Tensor  # (C,), or (B, C)
    relu: bool = False  # whether a ReLU stands before the pooling

    def of_class(self, targets: torch.Tensor) -> torch.Tensor:
        """Weights (B, K) of one class per image, targets (B,)."""
        if self.weight.ndim == 2:
            return self.weight[targets]
        return self.weight[torch.arange(len(targets), device=targets.device), targets]

    def logits(self, activations: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) that follow from activations (B, K, h, w)."""
        if self.relu:
            maps = torch.einsum("ck,bkhw->bchw", self.weight, activations) + self.bias[:, None, None]
            return maps.relu().mean((2, 3))
        equation = "ck,bk->bc" if self.weight.ndim == 2 else "bck,bk->bc"
        return torch.einsum(equation, self.weight, activations.mean((2, 3))) + self.bias


def find_head(model: nn.Module, layer: str, activations: torch.Tensor, logits: torch.Tensor) -> Head:
    """Find the linear layer whose answer to the mean of activations (B, K, h, w) is the logits (B, C).

    Tried are linear layers and 1 × 1 convolutions of the right shape, the last first: behind the mean, also through a
    layer normalization (ConvNeXt); before a ReLU and the mean (SqueezeNet); and the activations themselves or their
    ReLU, where they have a channel for each class.
    """
    target, doubled = logits.double(), activations.double()
    half = torch.finfo(logits.dtype).bits < 32 or torch.finfo(activations.dtype).bits < 32
    rounding = 4 * torch.finfo(logits.dtype).eps * float(target.abs().max()) + 1e-12
    for head in _candidates(model, doubled, logits.shape[1]):
        # What the bias gives proves nothing; an untrained network may answer with little else, or half precision.
        spread = float((target if head.relu else target - head.bias).abs().max())
        tolerance = (3e-2 if half else 1e-3) * spread + rounding
        if not head.weight.any() or (half and rounding > 0.25 * spread):
            continue
        if float((head.logits(doubled) - target).abs().max()) <= tolerance:
            dtype = torch.promote_types(activations.dtype, torch.float32)
            return replace(head, weight=head.weight.to(dtype), bias=head.bias.to(dtype))
    raise UserError(
        f"cam needs global average pooling and one linear layer behind {layer}, and {type(model).__name__} has no such "
        f"head there (the mean activations don't give the logits, its weights are 0, or {logits.dtype} hides them); "
        f"use gradcam, which works for any network, or model=vgg16_gap, alexnet_gap or a ResNet"
    )


def _candidates(model: nn.Module, activations: torch.Tensor, classes: int) -> Iterator[Head]:
    """Heads of the right shape in float64, the likeliest first."""
    shape = (classes, activations.shape[1])
    modules: list[Any] = list(model.modules())
    norms = [m for m in modules if isinstance(m, nn.LayerNorm) and tuple(m.normalized_shape) == shape[1:]]
    for module in reversed(modules):
        pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
        if not (pointwise or isinstance(module, nn.Linear)) or tuple(module.weight.shape[:2]) != shape:
            continue
        weight = module.weight.detach().double().flatten(1)
        bias = weight.new_zeros(classes) if module.bias is None else module.bias.detach().double()
        yield Head(weight, bias)
        for norm in reversed(norms):
            yield _folded(weight, bias, norm, activations)
        if pointwise:
            yield Head(weight, bias, relu=True)
    if classes == activations.shape[1]:
        identity = torch.eye(classes, dtype=activations.dtype, device=activations.device)
        for relu in (False, True):
            yield Head(identity, identity.new_zeros(classes), relu)


def _folded(weight: torch.Tensor, bias: torch.Tensor, norm: nn.LayerNorm, activations: torch.Tensor) -> Head:
    """Fold a layer normalization of the mean activations into weights and a bias for each image.

    With m the mean activations, LN(m)_k = γ_k (m_k − mean m) / σ(m) + β_k is linear in m once σ(m) is known, so
    w'_ck = (w_ck γ_k − mean_j w_cj γ_j) / σ(m) and b'_c = b_c + Σ_k w_ck β_k.
    """
    pooled = activations.mean((2, 3))  # (B, K)
    sigma = (pooled.var(1, unbiased=False) + norm.eps).sqrt()  # (B,)
    scaled = weight * (1 if norm.weight is None else norm.weight.detach().double())
    centered = (scaled - scaled.mean(1, keepdim=True))[None] / sigma[:, None, None]  # (B, C, K)
    beta = 0 if norm.bias is None else weight @ norm.bias.detach().double()
    return Head(centered, (bias + beta).expand(len(pooled), -1))
