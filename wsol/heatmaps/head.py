"""The linear layer behind global average pooling: found among the modules, proved on the batch at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from wsol.errors import UserError

__all__ = ["Head", "find_head"]


@dataclass(frozen=True, eq=False)
class Head:
    """logits = mean over space of (weight · A) + bias, or the mean of its ReLU.

    Parameters
    ----------
    weight : tensor (C, K), or (B, C, K) where a normalization behind the pooling was folded into it
    bias : tensor (C,), or (B, C)
    name : str
        Dotted name of the layer they were found in; that of the target layer where its channels are the classes'.
    relu : bool
        Whether a ReLU stands before the pooling, as in SqueezeNet and Network in Network.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    name: str
    relu: bool = False

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
    """Find the linear layer whose answer to the mean activations is the logits.

    Tried are linear layers and 1 × 1 convolutions of the right shape, the last first: behind the mean; behind the
    mean and a layer normalization, which is folded into weights of each image's own (ConvNeXt); before a ReLU and
    the mean (SqueezeNet); and the activations themselves or their ReLU, where they have a channel for each class.

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
    wanted, activity = logits.detach().double(), activations.double()
    half = min(torch.finfo(logits.dtype).bits, torch.finfo(activations.dtype).bits) < 32
    rounding = 4 * torch.finfo(logits.dtype).eps * float(wanted.abs().max()) + 1e-12
    coarse = False  # whether logits in half precision are little but the bias, rounded
    for head in _candidates(model, layer, activity, logits.shape[1]):
        # What the bias gives proves nothing; an untrained network may answer with little else.
        rest = wanted if head.relu else wanted - head.bias
        most = float(rest.abs().max())
        if half and rounding > 0.25 * most:
            coarse = True
            continue
        tolerance = (3e-2 if half else 1e-3) * most + rounding
        if bool(head.weight.any()) and float((head.logits(activity) - wanted).abs().max()) <= tolerance:
            dtype = torch.float32 if half else activations.dtype
            return Head(head.weight.to(dtype), head.bias.to(dtype), head.name, head.relu)
    if coarse:
        raise UserError(
            f"cam's head behind {layer} can't be told from {logits.dtype} logits, whose rounding is as large as what "
            f"the bias leaves of them: run the network in float32"
        )
    raise UserError(
        f"cam needs global average pooling and one linear layer behind {layer}, and {type(model).__name__} has no such "
        f"head there (the mean activations don't give the logits, or its weights are all 0); use gradcam, which works "
        f"for any network, or model=vgg16_gap, alexnet_gap or a ResNet"
    )


def _candidates(model: nn.Module, layer: str, activations: torch.Tensor, classes: int) -> Iterator[Head]:
    """Heads of the right shape in float64, the likeliest first."""
    shape = (classes, activations.shape[1])
    modules = list(model.named_modules())
    norms = [m for _, m in modules if isinstance(m, nn.LayerNorm) and tuple(m.normalized_shape) == shape[1:]]
    for name, module in reversed(modules):
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
            weight = module.weight.detach().double().flatten(1)
        elif isinstance(module, nn.Linear):
            weight = module.weight.detach().double()
        else:
            continue
        if tuple(weight.shape) != shape:
            continue
        bias = weight.new_zeros(classes) if module.bias is None else module.bias.detach().double()
        yield Head(weight, bias, name)
        for norm in reversed(norms):
            yield _folded(weight, bias, name, norm, activations)
        if isinstance(module, nn.Conv2d):
            yield Head(weight, bias, name, relu=True)
    if classes == activations.shape[1]:
        own = torch.eye(classes, dtype=activations.dtype, device=activations.device)
        yield Head(own, own.new_zeros(classes), layer)
        yield Head(own, own.new_zeros(classes), layer, relu=True)


def _folded(weight: torch.Tensor, bias: torch.Tensor, name: str, norm: nn.LayerNorm, activations: torch.Tensor) -> Head:
    """Fold a layer normalization of the mean activations into weights and a bias for each image.

    With m the mean activations, LN(m)_k = γ_k (m_k − mean m) / σ(m) + β_k is linear in m once σ(m) is known, so
    w'_ck = (w_ck γ_k − mean_j w_cj γ_j) / σ(m) and b'_c = b_c + Σ_k w_ck β_k.
    """
    pooled = activations.mean((2, 3))  # (B, K)
    sigma = (pooled.var(1, unbiased=False) + norm.eps).sqrt()  # (B,)
    gamma = torch.ones_like(pooled[0]) if norm.weight is None else norm.weight.detach().double()
    scaled = weight * gamma
    own = (scaled - scaled.mean(1, keepdim=True))[None] / sigma[:, None, None]  # (B, C, K)
    beta = 0 if norm.bias is None else weight @ norm.bias.detach().double()
    return Head(own, (bias + beta).expand(len(pooled), -1), name)
