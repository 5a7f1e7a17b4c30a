"""Fold batch normalizations into the convolutions in front of them where no graph is built.

In evaluation a batch normalization is one multiplication and one addition for each channel; on a CPU it takes as long
as reading and writing all activations takes. Folded into the convolution's weights it takes nothing, and the answer is
the same up to rounding. The modules keep their own weights throughout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as shared_by_all
from torchvision.models import densenet, resnet
from torchvision.models.googlenet import BasicConv2d as GoogLeNetConv2d
from torchvision.models.inception import BasicConv2d as InceptionConv2d

from wsol.models import unwrap

__all__ = ["Folding"]

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]
FEWEST = 4  # images: measured on ResNet-50 and MobileNet-V2, with fewer the folding takes longer than it saves
# Blocks whose forward method hands these convolutions' outputs to these normalizations, and to nothing else.
BLOCKS: dict[Callable[..., Any] | None, tuple[tuple[str, str], ...]] = {
    resnet.BasicBlock.forward: (("conv1", "bn1"), ("conv2", "bn2")),
    resnet.Bottleneck.forward: (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    resnet.ResNet._forward_impl: (("conv1", "bn1"),),
    densenet._DenseLayer.forward: (("conv1", "norm2"),),
    GoogLeNetConv2d.forward: (("conv", "bn"),),
    InceptionConv2d.forward: (("conv", "bn"),),
}


class Folding:
    """Folded weights of one network.

    A pair is folded where nothing but the normalization can see the convolution's output: neighbors in an
    `nn.Sequential`, and torchvision's blocks; nothing of a pair has hooks, a forward method of its own or another
    place in the network. It is folded only while the block that it belongs to runs, so that a network that calls the
    same modules one by one gets their own outputs; and only where no graph is built, so that gradients are the
    network's own, also where activations are calculated again for them. Half precision is left alone: folded weights
    would be rounded differently; so is what is compiled or runs on several devices.

    Parameters
    ----------
    model : nn.Module
        In eval mode.

    Examples
    --------
    >>> block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    >>> images = torch.rand(4, 3, 8, 8)
    >>> with torch.no_grad(), Folding(block).active(len(images)):
    ...     folded = block(images)
    >>> torch.testing.assert_close(folded, block(images).detach())
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._blocks: list[tuple[nn.Module, list[Pair]]] = []
        self._modules: list[nn.Module] = []  # among which the blocks were found
        self._weights: dict[nn.Conv2d, tuple[torch.Tensor, torch.Tensor]] = {}

    def forget(self) -> None:
        """Drop folded weights: those of the modules may have changed since."""
        self._weights = {}

    @contextmanager
    def active(self, images: int) -> Iterator[None]:
        """Run pairs folded while this block lasts, in which the modules' weights stay as they are.

        Parameters
        ----------
        images : int
            How many a batch has; nothing is folded for a few.
        """
        modules = list(self.model.modules())
        if modules != self._modules:
            self._blocks, self._modules = _blocks(modules), modules
        with ExitStack() as stack:
            for owner, pairs in self._blocks if images >= FEWEST else ():
                if "forward" not in vars(owner):
                    stack.enter_context(self._while_running(owner, pairs))
            yield

    @contextmanager
    def _while_running(self, owner: nn.Module, pairs: list[Pair]) -> Iterator[None]:
        """Patch a block so that its pairs are folded from its first line to its last."""
        own = owner.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            ready = [] if torch.is_grad_enabled() else [pair for pair in pairs if _can_fold(*pair)]
            try:
                for convolution, normalization in ready:
                    weight, bias = self._folded(convolution, normalization)
                    vars(convolution)["forward"] = partial(convolution._conv_forward, weight=weight, bias=bias)
                    vars(normalization)["forward"] = _as_it_is
                return own(*args, **kwargs)
            finally:
                for module in (module for pair in ready for module in pair):
                    vars(module).pop("forward", None)

        vars(owner)["forward"] = forward
        try:
            yield
        finally:
            vars(owner).pop("forward", None)

    def _folded(self, convolution: nn.Conv2d, normalization: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
        """W' = W γ / √(σ² + ε) and b' = (b − μ) γ / √(σ² + ε) + β."""
        if convolution not in self._weights:
            weight, bias, gamma, beta, mean, variance = _tensors(convolution, normalization)
            scale = (variance + normalization.eps).rsqrt() * (1 if gamma is None else gamma)
            shift = (-mean if bias is None else bias - mean) * scale + (0 if beta is None else beta)
            self._weights[convolution] = weight * scale[:, None, None, None], shift
        return self._weights[convolution]


def _as_it_is(value: torch.Tensor) -> torch.Tensor:
    return value


def _blocks(modules: list[nn.Module]) -> list[tuple[nn.Module, list[Pair]]]:
    """Blocks and their pairs, of which no module stands anywhere else."""
    wrapped = any(unwrap(module) is not module for module in modules)
    if wrapped or any(module._compiled_call_impl is not None for module in modules):
        return []
    places = Counter(child for module in modules for child in module._modules.values())
    found = [
        (owner, [pair for pair in _pairs(owner) if all(places[module] == 1 for module in pair)]) for owner in modules
    ]
    return [(owner, pairs) for owner, pairs in found if pairs]


def _pairs(owner: nn.Module) -> Iterator[Pair]:
    """Convolutions and normalizations of a block that belong together."""
    kind = type(owner)
    method = getattr(kind, "forward", None)  # a scripted module's class has none
    if method is nn.Sequential.forward:
        neighbors = list(pairwise(owner._modules.values()))
    else:
        inner = getattr(kind, "_forward_impl", None) if method is resnet.ResNet.forward else method
        names = BLOCKS.get(inner, ())
        neighbors = [(getattr(owner, first, None), getattr(owner, second, None)) for first, second in names]
    for first, second in neighbors:
        if (
            isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d)
            and type(first).forward is nn.Conv2d.forward and type(first)._conv_forward is nn.Conv2d._conv_forward
            and type(second).forward is nn.BatchNorm2d.forward
        ):  # fmt: skip
            yield first, second


def _can_fold(convolution: nn.Conv2d, normalization: nn.BatchNorm2d) -> bool:
    """Tell whether nobody else looks at this pair now, and it is exact enough."""
    for module in (convolution, normalization):
        hooks = (
            module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks,
        )  # fmt: skip
        if any(hooks) or "forward" in vars(module):
            return False
    if shared_by_all._global_forward_hooks or shared_by_all._global_forward_pre_hooks:
        return False
    if normalization.training or normalization.running_mean is None or normalization.running_var is None:
        return False
    dtype = convolution.weight.dtype
    if dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled(convolution.weight.device.type):
        return False
    return all(tensor is None or tensor.dtype == dtype for tensor in _tensors(convolution, normalization))


def _tensors(convolution: nn.Conv2d, normalization: nn.BatchNorm2d) -> tuple[Any, ...]:
    statistics = normalization.running_mean, normalization.running_var
    return convolution.weight, convolution.bias, normalization.weight, normalization.bias, *statistics
