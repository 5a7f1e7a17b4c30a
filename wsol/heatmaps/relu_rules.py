"""Other rules for what a ReLU hands back: in force while a network runs, without a change to the network.

A mode of PyTorch's sees every call of a function, so that functional ReLUs (GoogLeNet, Inception, DenseNet's last)
are caught like modules, in-place ones too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointError

from wsol.errors import UserError
from wsol.models.layers import refuse_scripts

__all__ = ["relu_rule"]


@contextmanager
def relu_rule(model: nn.Module, guided: bool) -> Iterator[None]:
    """Let every ReLU that runs in this block hand back positive gradients only.

    ReLU6 counts, and so do a hardtanh that begins at 0 and a threshold of 0 with the value 0. SiLU, GELU, hardswish,
    leaky ReLUs and a `clamp` are as they were, and so is what no gradient passes (Swin v2's table of positions).

    Parameters
    ----------
    model : nn.Module
        For the message.
    guided : bool
        True: R = G · [G > 0] · [0 < x], guided backpropagation. False: R = G · [G > 0], deconvnet.

    Raises
    ------
    UserError
        At the end of the block, if no ReLU has run in it; if the network uses checkpoints, or has scripted parts.

    Examples
    --------
    >>> x = torch.tensor([1.0, 1.0, -1.0], requires_grad=True)
    >>> for guided in (True, False):
    ...     with relu_rule(nn.ReLU(), guided):
    ...         y = torch.relu(x) * torch.tensor([2.0, -2.0, 2.0])
    ...     torch.autograd.grad(y.sum(), x)[0].tolist()
    [2.0, 0.0, 0.0]
    [2.0, 0.0, 2.0]
    """
    refuse_scripts(model, "its ReLUs can't be changed")
    with _Caught(guided) as caught:
        try:
            yield
        except CheckpointError as error:
            raise UserError(
                f"{type(model).__name__} calculates activations a second time (checkpoints), where ReLUs can't be "
                f"changed: turn it off (torchvision's DenseNet: memory_efficient=False), or use saliency"
            ) from error
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
        ctx.save_for_backward(x > 0 if most is None else (x > 0) & (x < most))  # as many tensors as a ReLU saves
        return x.clamp(0, most)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (open_places,) = ctx.saved_tensors
        if open_places.dtype != torch.bool:  # what a plain ReLU has saved: a second calculation that nobody checked
            raise CheckpointError
        handed_back = gradients[0].clamp(min=0)
        return (handed_back * open_places if ctx.guided else handed_back), None, None


class _Caught(TorchFunctionMode):
    """Puts `_Rectify` in the place of each ReLU that is called, and counts them."""

    def __init__(self, guided: bool) -> None:
        super().__init__()
        self.guided, self.count = guided, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        found = _READ[func](*args, **kwargs) if func in _READ else None
        if found is None or not (found[0].requires_grad and torch.is_grad_enabled()):
            return func(*args, **kwargs)
        self.count += 1
        x, most, in_place = found
        rectified = _Rectify.apply(x, most, self.guided)
        return x.copy_(rectified) if in_place else rectified


Read = tuple[torch.Tensor, float | None, bool] | None  # x, the ceiling, in place; None: no ReLU


def _relu(input: torch.Tensor, inplace: bool = False) -> Read:
    return input, None, inplace


def _relu_(input: torch.Tensor) -> Read:
    return input, None, True


def _relu6(input: torch.Tensor, inplace: bool = False) -> Read:
    return input, 6.0, inplace


def _hardtanh(input: torch.Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Read:
    return (input, max_val, inplace) if min_val == 0 else None


def _hardtanh_(input: torch.Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Read:
    return _hardtanh(input, min_val, max_val, True)


def _threshold(input: torch.Tensor, threshold: float, value: float, inplace: bool = False) -> Read:
    return (input, None, inplace) if threshold == value == 0 else None


def _threshold_(input: torch.Tensor, threshold: float, value: float) -> Read:
    return _threshold(input, threshold, value, True)


_READ: dict[Callable[..., Any], Callable[..., Read]] = {
    functional.relu: _relu,
    torch.relu: _relu,
    torch.Tensor.relu: _relu,
    torch.relu_: _relu_,
    torch.Tensor.relu_: _relu_,
    functional.relu6: _relu6,
    functional.hardtanh: _hardtanh,  # what nn.ReLU6 calls
    functional.hardtanh_: _hardtanh_,
    functional.threshold: _threshold,
    torch.threshold: _threshold,
    torch.threshold_: _threshold_,
}
