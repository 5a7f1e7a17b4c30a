"""Fold batch normalizations into the convolutions in front of them while a pass is recorded.

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
from torchvision.models import densenet, resnet
from torchvision.models.googlenet import BasicConv2d as GoogLeNetConv2d
from torchvision.models.inception import BasicConv2d as InceptionConv2d

__all__ = ["Folding"]

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]
# Blocks whose forward method hands these convolutions' outputs to these normalizations, and to nothing else.
BLOCKS: dict[Callable[..., Any], tuple[tuple[str, str], ...]] = {
    resnet.BasicBlock.forward: (("conv1", "bn1"), ("conv2", "bn2")),
    resnet.Bottleneck.forward: (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    resnet.ResNet._forward_impl: (("conv1", "bn1"),),
    densenet._DenseLayer.forward: (("conv1", "norm2"),),
    GoogLeNetConv2d.forward: (("conv", "bn"),),
    InceptionConv2d.forward: (("conv", "bn"),),
}


class Folding:
    """Folded weights of one network, kept from batch to batch.

    A pair is folded where nothing but the normalization can see the convolution's output: neighbors in an
    `nn.Sequential`, and torchvision's blocks; nothing of a pair has hooks, or a forward method of its own. It is
    folded only while the block that it belongs to runs, so that a network that calls the same modules one by one gets
    their own outputs. Half precision is left alone: folded weights would be rounded differently.

    Parameters
    ----------
    model : nn.Module
        In eval mode.

    Examples
    --------
    >>> block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    >>> images = torch.rand(1, 3, 8, 8)
    >>> with torch.no_grad(), Folding(block).active():
    ...     folded = block(images)
    >>> torch.testing.assert_close(folded, block(images).detach())
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._blocks: list[tuple[nn.Module, list[Pair]]] = []
        self._modules: list[nn.Module] = []  # among which the blocks were found
        self._weights: dict[nn.Conv2d, tuple[object, torch.Tensor, torch.Tensor]] = {}  # and what they were made of

    @contextmanager
    def active(self) -> Iterator[None]:
        """Run all pairs folded while the block lasts."""
        modules = list(self.model.modules())
        if modules != self._modules:
            found = [(owner, _pairs(owner)) for owner in modules]
            self._blocks, self._modules = [(owner, pairs) for owner, pairs in found if pairs], modules
        compiled = any(module._compiled_call_impl is not None for module in modules)
        with ExitStack() as stack:
            for owner, pairs in () if compiled else self._blocks:
                ready = [pair for pair in pairs if _can_fold(*pair)]
                if ready and "forward" not in vars(owner):
                    stack.enter_context(self._while_running(owner, ready))
            yield

    @contextmanager
    def _while_running(self, owner: nn.Module, pairs: list[Pair]) -> Iterator[None]:
        """Patch a block so that its pairs are folded from its first line to its last."""
        own = owner.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            try:
                for convolution, normalization in pairs:
                    weight, bias = self._folded(convolution, normalization)
                    convolution.forward = partial(convolution._conv_forward, weight=weight, bias=bias)  # type: ignore[method-assign]
                    normalization.forward = lambda value: value  # type: ignore[method-assign]
                return own(*args, **kwargs)
            finally:
                for module in (module for pair in pairs for module in pair):
                    vars(module).pop("forward", None)

        owner.forward = forward
        try:
            yield
        finally:
            vars(owner).pop("forward", None)

    def _folded(self, convolution: nn.Conv2d, normalization: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
        """W' = W γ / √(σ² + ε) and b' = (b − μ) γ / √(σ² + ε) + β, made anew when one of them has changed."""
        made_of = _tensors(convolution, normalization)
        state = (normalization.eps, *((t.data_ptr(), t._version) for t in made_of if t is not None))
        if convolution not in self._weights or self._weights[convolution][0] != state:
            weight, bias, gamma, beta, mean, variance = made_of
            with torch.no_grad():
                scale = (variance + normalization.eps).rsqrt() * (1 if gamma is None else gamma)
                shift = (-mean if bias is None else bias - mean) * scale + (0 if beta is None else beta)
                self._weights[convolution] = state, weight * scale[:, None, None, None], shift
        return self._weights[convolution][1:]


def _pairs(owner: nn.Module) -> list[Pair]:
    """Convolutions and normalizations of a block that belong together; none that runs more than once in it."""
    kind = type(owner)
    if kind.forward is nn.Sequential.forward:
        children = list(owner._modules.values())
        neighbors = list(pairwise(children))
    else:
        implementation = kind._forward_impl if kind.forward is resnet.ResNet.forward else kind.forward
        names = BLOCKS.get(implementation, ())
        neighbors = [(getattr(owner, first, None), getattr(owner, second, None)) for first, second in names]
        children = [module for pair in neighbors for module in pair]
    times = Counter(children)
    return [
        (first, second)
        for first, second in neighbors
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d) and times[first] == times[second] == 1
        and type(first).forward is nn.Conv2d.forward and type(first)._conv_forward is nn.Conv2d._conv_forward
        and type(second).forward is nn.BatchNorm2d.forward
    ]  # fmt: skip


def _can_fold(convolution: nn.Conv2d, normalization: nn.BatchNorm2d) -> bool:
    """Tell whether nobody else looks at this pair now, and it is exact enough."""
    for module in (convolution, normalization):
        hooks = (
            module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks,
        )  # fmt: skip
        if any(hooks) or "forward" in vars(module):
            return False
    if normalization.training or normalization.running_mean is None or normalization.running_var is None:
        return False
    dtype = convolution.weight.dtype
    if dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled(convolution.weight.device.type):
        return False
    tensors = [tensor for tensor in _tensors(convolution, normalization) if tensor is not None]
    return all(tensor.dtype == dtype and not tensor.is_inference() for tensor in tensors)


def _tensors(convolution: nn.Conv2d, normalization: nn.BatchNorm2d) -> tuple[Any, ...]:
    statistics = normalization.running_mean, normalization.running_var
    return convolution.weight, convolution.bias, normalization.weight, normalization.bias, *statistics
