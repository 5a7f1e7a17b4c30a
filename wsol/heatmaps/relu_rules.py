"""Other rules for what a ReLU hands back: in force while a network runs, without a change to the network.

A mode of PyTorch's sees every call of a function, so that functional ReLUs (GoogLeNet, Inception, DenseNet's last)
are caught like modules, in-place ones too. ReLU6 counts; SiLU, GELU, hardswish and leaky ReLUs are as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from wsol.errors import UserError


@contextmanager
def relu_rule(model: nn.Module, guided: bool) -> Iterator[None]:
    """Let every ReLU that runs in this block hand back positive gradients only.

    Guided backpropagation: R = G · [G > 0] · [0 < x]; else deconvnet's R = G · [G > 0]. A network without ReLUs is
    refused at the end of the block.
    """
    with _Caught(guided) as caught:
        yield
    if not caught.count:
        raise UserError(
            f"guided backpropagation and deconvnet change what ReLUs hand back, and {type(model).__name__} runs none "
            f"between the pixels and the logits; use saliency, smoothgrad or integratedgradients"
        )


class _Rectify(torch.autograd.Function):
    """min(max(x, 0), most) with a backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, most: float | None, guided: bool) -> torch.Tensor:
        ctx.guided = guided
        ctx.save_for_backward(x > 0 if most is None else (x > 0) & (x < most))
        return x.clamp(0, most)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (open_places,) = ctx.saved_tensors
        positive = gradients[0].clamp(min=0)
        return (positive * open_places if ctx.guided else positive), None, None


class _Caught(TorchFunctionMode):
    """Puts `_Rectify` in the place of each ReLU that is called, and counts them."""

    def __init__(self, guided: bool) -> None:
        super().__init__()
        self.guided, self.count = guided, 0

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = _READ.get(func, lambda *args, **kwargs: None)
        relu = read(*args, **(kwargs or {}))
        if relu is None or not (relu[0].requires_grad and torch.is_grad_enabled()):
            return func(*args, **(kwargs or {}))
        self.count += 1
        x, most, in_place = relu
        rectified = _Rectify.apply(x, most, self.guided)
        return x.copy_(rectified) if in_place else rectified


# Each call's tensor, ceiling, and whether it works in place; None: it is no ReLU.
_READ: dict[Callable[..., Any], Callable[..., tuple[torch.Tensor, float | None, bool] | None]] = {
    functional.relu: lambda input, inplace=False: (input, None, inplace),
    functional.relu6: lambda input, inplace=False: (input, 6.0, inplace),
    functional.hardtanh: lambda input, min_val=-1.0, max_val=1.0, inplace=False: (  # what nn.ReLU6 calls
        (input, max_val, inplace) if min_val == 0 else None
    ),
    **dict.fromkeys((torch.relu, torch.Tensor.relu), lambda input: (input, None, False)),
    **dict.fromkeys((torch.relu_, torch.Tensor.relu_), lambda input: (input, None, True)),
}
