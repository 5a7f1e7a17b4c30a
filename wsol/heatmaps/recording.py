"""One pass through the network keeps all that the methods are functions of: A, G, the head's weights, the logits.

The layer's output is handed on as a *clone* of a detached leaf, and after the forward pass A is read from, and the
score differentiated with respect to, the tensor that was handed on. In-place operations behind the layer
(DenseNet's ReLU) are then part of it, and nothing below the layer ever builds a graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from wsol.errors import UserError
from wsol.heatmaps.head import Head, find_head
from wsol.models import find_layer

__all__ = ["Pass", "Recording", "frozen", "record"]


@dataclass(frozen=True, eq=False)
class Recording:
    """What a method sees: one layer, one target class per image.

    Parameters
    ----------
    model : nn.Module
    layer : str
        Dotted name of the target layer.
    activations : tensor (B, K, h, w)
        A, the layer's output; tokens are laid out as maps.
    logits : tensor (B, C)
    targets : int64 tensor (B,)
        The class asked for.
    passed : Pass
        The pass this comes from; it differentiates on demand.
    column : int
        Which of several targets per image.
    """

    model: nn.Module
    layer: str
    activations: torch.Tensor
    logits: torch.Tensor
    targets: torch.Tensor
    passed: Pass
    column: int

    @property
    def gradients(self) -> torch.Tensor:
        """G (B, K, h, w): the gradient of the class score with respect to A."""
        return as_map(self.passed.gradients(self.column)[self.layer], self.layer)

    @property
    def head(self) -> Head:
        """The linear layer behind global average pooling. Raises `UserError` where the network has none."""
        return self.passed.head(self.layer)


class Pass:
    """What one forward pass left behind: the tensors that were handed on at each layer, and the logits."""

    def __init__(
        self, model: nn.Module, handed_on: dict[str, torch.Tensor], logits: torch.Tensor, targets: torch.Tensor
    ) -> None:
        self.model, self.handed_on, self.logits = model, handed_on, logits
        self.targets = targets  # (B, K)
        self._gradients: dict[int, dict[str, torch.Tensor]] = {}
        self._heads: dict[str, Head] = {}

    def recording(self, layer: str, column: int) -> Recording:
        """Return what a method sees of one layer and one target per image."""
        activations = as_map(self.handed_on[layer].detach(), layer)
        return Recording(self.model, layer, activations, self.logits.detach(), self.targets[:, column], self, column)

    def gradients(self, column: int) -> dict[str, torch.Tensor]:
        """Differentiate the scores of one target per image, once, with respect to all layers."""
        if column not in self._gradients:
            scores = self.logits.gather(1, self.targets[:, column : column + 1])
            more = len(self._gradients) + 1 < self.targets.shape[1]
            gradients = torch.autograd.grad(
                scores.sum(), list(self.handed_on.values()), retain_graph=more, allow_unused=True
            )
            pairs = zip(self.handed_on, gradients, strict=True)
            self._gradients[column] = {
                name: torch.zeros_like(self.handed_on[name]) if gradient is None else gradient
                for name, gradient in pairs
            }
        return self._gradients[column]

    def head(self, layer: str) -> Head:
        """Find the head behind a layer, proved on this batch."""
        if layer not in self._heads:
            activations = as_map(self.handed_on[layer].detach(), layer)
            self._heads[layer] = find_head(self.model, layer, activations, self.logits.detach())
        return self._heads[layer]


def record(
    model: nn.Module,
    layers: Iterable[str],
    images: torch.Tensor,
    targets: torch.Tensor | str | None,
    gradients: bool = True,
) -> Pass:
    """Run the network once.

    Parameters
    ----------
    model : nn.Module
        In eval mode with frozen parameters (see `frozen`).
    layers : iterable of str
        Dotted names.
    images : tensor (B, 3, H, W)
    targets : int tensor (B,) or (B, K), None or "top5"
        Classes whose maps are wanted; None: the highest logit.
    gradients : bool
        False: no graph is built at all.

    Raises
    ------
    UserError
        If a layer is unknown, isn't reached or doesn't yield a tensor, or a target is no class.
    """
    handed_on: dict[str, torch.Tensor] = {}
    hooks = []

    def hand_on(name: str, module: nn.Module, output: object) -> torch.Tensor:
        if not isinstance(output, torch.Tensor):
            raise UserError(
                f"layer {name} ({type(module).__name__}) yields {type(output).__name__}, not a tensor; choose another"
            )
        if name in handed_on:
            raise UserError(f"layer {name} runs more than once in a forward pass; choose another")
        if gradients:
            torch.set_grad_enabled(True)
            leaf = output if output.requires_grad else output.detach().requires_grad_()
            handed_on[name] = leaf.clone()
        else:
            handed_on[name] = output.clone()
        return handed_on[name]

    try:
        for name in layers:
            module = find_layer(model, name)
            hook = lambda module, _, output, name=name: hand_on(name, module, output)  # noqa: E731
            hooks.append(module.register_forward_hook(hook))
        with torch.no_grad():  # the hook turns gradients on; leaving this block restores the caller's mode
            output = model(images)
    finally:
        for handle in hooks:
            handle.remove()
    logits = output if isinstance(output, torch.Tensor) else output[0]
    missing = [name for name in layers if name not in handed_on]
    if missing:
        raise UserError(f"layer {missing[0]} is not reached in the forward pass; choose another")
    return Pass(model, handed_on, logits, _columns(targets, logits))


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluate with parameters that get no gradients; every mode and flag is as before when the block ends."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def as_map(tensor: torch.Tensor, layer: str) -> torch.Tensor:
    """Lay a layer's output out as maps (B, K, h, w).

    Four dimensions are taken as they are; (B, 1 + h·w, K) are a transformer's tokens, the class token first, on a
    square grid.

    Raises
    ------
    UserError
        If the output has no spatial layout.

    Examples
    --------
    >>> as_map(torch.zeros(2, 197, 8), "encoder").shape
    torch.Size([2, 8, 14, 14])
    """
    if tensor.ndim == 4:
        return tensor
    if tensor.ndim == 3:
        side = round((tensor.shape[1] - 1) ** 0.5)
        if side > 1 and side * side == tensor.shape[1] - 1:
            return tensor[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    raise UserError(
        f"layer {layer} yields shape {tuple(tensor.shape)}, which has no spatial layout; wanted (B, K, h, w), "
        f"or (B, 1 + h*h, K) tokens; choose a layer before the pooling"
    )


def _columns(targets: torch.Tensor | str | None, logits: torch.Tensor) -> torch.Tensor:
    """Turn what was asked for into class indices (B, K)."""
    count, classes = logits.shape
    if targets is None:
        return logits.detach().argmax(1, keepdim=True)
    if isinstance(targets, str):
        if targets != "top5":
            raise UserError(f'targets={targets!r}: pass class indices, None or "top5"')
        return logits.detach().topk(min(5, classes), 1).indices
    targets = torch.as_tensor(targets, device=logits.device)
    whole = not (targets.is_floating_point() or targets.dtype == torch.bool)
    if not whole or targets.ndim not in (1, 2) or len(targets) != count or 0 in targets.shape[1:]:
        raise UserError(
            f"targets of type {targets.dtype} and shape {tuple(targets.shape)} for {count} images; "
            f"wanted whole numbers of shape ({count},) or ({count}, K)"
        )
    columns = targets.long().reshape(count, -1)
    wrong = ((columns < 0) | (columns >= classes)).nonzero()
    if len(wrong):
        image, column = wrong[0].tolist()
        raise UserError(
            f"target {int(columns[image, column])} of image {image} in the batch is outside the model's "
            f"{classes} classes (0 … {classes - 1})"
        )
    return columns
