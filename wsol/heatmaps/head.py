"""The linear layer behind global average pooling: found among the modules, proved on the batch at hand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from wsol.errors import UserError

__all__ = ["Head", "find_head"]


@dataclass(frozen=True, eq=False)
class Head:
    """logits = mean of A over space · weightᵀ + bias.

    Parameters
    ----------
    weight : tensor (C, K)
    bias : tensor (C,)
    name : str
        Dotted name of the layer they were found in.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    name: str


def find_head(model: nn.Module, layer: str, activations: torch.Tensor, logits: torch.Tensor) -> Head:
    """Find the linear layer whose answer to the mean activations is the logits.

    Parameters
    ----------
    model : nn.Module
    layer : str
        Where the activations come from, for the message.
    activations : tensor (B, K, h, w)
    logits : tensor (B, C)

    Raises
    ------
    UserError
        If there is none: CAM is not defined for this network at this layer.

    Examples
    --------
    >>> linear = nn.Linear(8, 3)
    >>> A = torch.rand(2, 8, 4, 4)
    >>> find_head(nn.Sequential(linear), "features", A, linear(A.mean((2, 3)))).name
    '0'
    """
    wanted = logits.detach().double()
    pooled = activations.double().mean((2, 3))  # (B, K)
    scale = float(wanted.abs().max()) + 1e-12
    half = min(torch.finfo(logits.dtype).bits, torch.finfo(activations.dtype).bits) < 32
    for name, module in reversed(list(model.named_modules())):
        if not isinstance(module, nn.Linear):
            continue
        if module.weight.shape != (logits.shape[1], activations.shape[1]):
            continue
        weight = module.weight.detach()
        bias = torch.zeros(len(weight)).to(weight) if module.bias is None else module.bias.detach()
        answer = pooled @ weight.double().T + bias.double()
        if float((answer - wanted).abs().max()) <= (3e-2 if half else 1e-3) * scale:
            return Head(weight, bias, name)
    raise UserError(
        f"cam needs global average pooling and one linear layer behind {layer}, and {type(model).__name__} has no "
        f"such head there (the mean activations don't give the logits); use gradcam, which works for any network, "
        f"or model=vgg16_gap, alexnet_gap or a ResNet"
    )
