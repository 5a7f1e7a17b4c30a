"""One pass through the network keeps all that the methods are functions of: A, G, the head's weights, the logits.

Below it: the head that CAM reads its weights from.

The layer's output is handed on as a *clone* of a detached leaf, and after the forward pass A is read from, and the
score differentiated with respect to, the tensor that was handed on. In-place operations behind the layer
(DenseNet's ReLU) are then part of it, and nothing below the layer ever builds a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from wsol.errors import UserError
from wsol.heatmaps.replay import Replay
from wsol.models import find_layer
from wsol.models.inference import Folding, logits_of
from wsol.models.trace import INPUT, Layout, Trace, first_tensor, trace

Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # logits (B, C), targets (B,) → (B,)


def logit(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return y_c, before the softmax: what Grad-CAM and most others differentiate."""
    return logits.gather(1, targets[:, None])[:, 0]


SCORE_FUNCTIONS: dict[str, Score] = {
    "logit": logit,
    "log_prob": lambda y, c: logit(y.log_softmax(1), c),  # y_c − log Σ_j exp(y_j): falls when other classes rise
    "prob": lambda y, c: logit(y.log_softmax(1), c).exp(),
    "rest": lambda y, c: logit(y, c) + logit(y.log_softmax(1), c),  # residual softmax (Cai, The Visual Computer 2025)
}


@dataclass(frozen=True, eq=False)
class Recording:
    """What one forward pass left behind, as a method sees it: one layer, one class per image.

    `dataclasses.replace(recording, layer=…, column=…, score=…)` looks at the same pass in another way; it
    differentiates on demand, and only once.

    Attributes
    ----------
    activations, gradients : tensor (B, K, h, w)
        A and G at the target layer, at least float32.
    logits, targets : tensor (B, C), int64 tensor (B,)
        The network's answer, and the class asked for.
    head : Head
        `head.weight` (C, K) of the linear layer behind global average pooling.
    model, images : nn.Module, tensor (B, 3, H, W)
        In eval mode and frozen; `run`, `input_gradients`, `rerecord` and `replay` run it further times.
    layer, score : str
        Dotted name of the target layer, "" for none; what is differentiated: "logit", "log_prob", "prob" or "rest".

    Examples
    --------
    A method of your own:

    >>> def energy(recording: Recording) -> torch.Tensor:
    ...     return recording.activations.square().sum(1)  # (B, K, h, w) → (B, h, w)
    """

    model: nn.Module
    images: torch.Tensor
    outputs: dict[str, torch.Tensor]  # what each layer handed on, as it lies in memory; the graph begins there
    inputs: dict[str, torch.Tensor]  # what went into a transformer's blocks, detached
    answer: torch.Tensor  # the logits with their graph (B, C)
    classes: torch.Tensor  # all classes asked for (B, K)
    folding: Folding
    layer: str = ""
    column: int = 0  # which of the K classes
    score: str = "logit"
    chunk: int = 32  # images in one batch of further passes: their memory bound
    seed: int = 0  # of masks and noise
    class_maps: Mapping[str, Score] = field(default_factory=dict)  # a network's own, by the layer whose maps it takes
    say: Callable[[str], None] = lambda text: None  # told how far further passes are, "64/512"
    # Makes contexts in which `torch.autocast` is as it was in this pass; methods calculate without it.
    precision: Callable[[], AbstractContextManager[object]] = nullcontext
    prefix_tokens: int | Sequence[int] | None = None
    traces: dict[tuple[int, int], Trace] = field(default_factory=dict, repr=False)  # by (height, width)
    _once: dict[object, Any] = field(default_factory=dict, repr=False)  # shared by all views of the pass

    @property
    def logits(self) -> torch.Tensor:
        """The network's answer (B, C)."""
        return self.answer.detach()

    @property
    def targets(self) -> torch.Tensor:
        """The class asked for, int64 (B,)."""
        return self.classes[:, self.column]

    @property
    def dtype(self) -> torch.dtype:
        """What methods calculate in: the network's own precision, at least float32."""
        return torch.promote_types(self.images.dtype, torch.float32)

    @property
    def output(self) -> torch.Tensor:
        """What the layer handed on, as it lies in memory, without a graph."""
        return self.outputs[self.layer].detach()

    @property
    def activations(self) -> torch.Tensor:
        """A (B, K, h, w): the layer's output, at least float32; tokens are laid out as maps."""
        return self.layout.as_map(self.output).to(self.dtype)

    @property
    def gradients(self) -> torch.Tensor:
        """G (B, K, h, w): the gradient of the class score with respect to A."""
        return self.gradients_of(self.score)

    @property
    def head(self) -> Head:
        """The linear layer behind global average pooling, proved on this batch; refused where there is none."""
        maps = self.layout.as_map(self.output)  # in the network's precision, which is that of the proof
        return self._made_once("head", lambda: find_head(self.model, self.layer, maps, self.logits))

    @property
    def layout(self) -> Layout:
        """How the layer's own output lies in memory."""
        return self.trace.layout(self.layer)

    @property
    def trace(self) -> Trace:
        """What the network's layers yield for images of this size, found out on noise."""
        size = self.images.shape[2], self.images.shape[3]
        if size not in self.traces:
            self.traces[size] = trace(self.model, size, self.prefix_tokens, self.images, self.images.shape[1])
        return self.traces[size]

    def scores_of(self, logits: torch.Tensor, image: int | torch.Tensor | None = None) -> torch.Tensor:
        """Score of the class asked for, (N,), in logits (N, C): of all images in order, or of versions of `image`."""
        targets = self.targets if image is None else self.targets[image].expand(len(logits))
        return SCORE_FUNCTIONS[self.score](logits.to(self.dtype), targets)

    def gradients_of(self, score: str | Score) -> torch.Tensor:
        """Gradient (B, K, h, w) with respect to A of another score: a name, or (logits, targets) -> (B,)."""
        key = self.column, score
        if key not in self._once:  # with respect to all layers at once
            scores = (SCORE_FUNCTIONS[score] if isinstance(score, str) else score)(self.answer, self.targets)
            self._once[key] = {}
            if scores.requires_grad:
                tensors = list(self.outputs.values())
                gradients = torch.autograd.grad(scores.sum(), tensors, retain_graph=True, allow_unused=True)
                self._once[key] = dict(zip(self.outputs, gradients, strict=True))
        gradient = self._once[key].get(self.layer)
        if gradient is None:
            raise UserError(f"the logits do not depend on layer {self.layer}, or without a gradient: choose another")
        return self._as_map(gradient)

    def curvature(self) -> torch.Tensor:
        """H·A (B, K, h, w): the score's second derivatives with respect to A, applied to A."""
        output = self.outputs[self.layer]
        scores = SCORE_FUNCTIONS[self.score](self.answer, self.targets)
        (gradient,) = torch.autograd.grad(scores.sum(), output, create_graph=True, materialize_grads=True)
        product = torch.zeros_like(output)
        if gradient.requires_grad:
            along = output.detach()
            (product,) = torch.autograd.grad(gradient, output, along, retain_graph=True, materialize_grads=True)
        return self._as_map(product)

    def _as_map(self, gradient: torch.Tensor) -> torch.Tensor:
        """Lay a gradient out as a map; where an image's is not finite it is NaN throughout, which no ReLU can hide."""
        finite = gradient.isfinite().flatten(1).all(1)
        if not bool(finite.all()):
            gradient = gradient.masked_fill(~finite.view(-1, *[1] * (gradient.ndim - 1)), torch.nan)
        return self.layout.as_map(gradient).to(self.dtype)

    def chunks(self, total: int) -> Iterator[slice]:
        """Cut many further passes into batches no larger than the memory bound, and show how far they are."""
        for start in range(0, total, self.chunk):
            stop = min(start + self.chunk, total)
            self.say(f"{stop}/{total}")
            yield slice(start, stop)

    def versions(self, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Number the versions of every image, version by version, in batches: image (N,) and version (N,), int64."""
        for part in self.chunks(count * len(self.images)):
            number = torch.arange(part.start, part.stop, device=self.images.device)
            yield number % len(self.images), number // len(self.images)

    def drawn(self, version: torch.Tensor, draw: Callable[[np.random.Generator], torch.Tensor]) -> torch.Tensor:
        """One draw per version (N,): the same for every image, in every batch, in the images' precision."""
        numbers, place = version.unique(return_inverse=True)
        draws = [draw(np.random.default_rng((self.seed, number))) for number in numbers.tolist()]
        return torch.stack(draws).to(self.images)[place]

    def noise(self, version: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Normal noise (N, *shape), one draw per version (N,)."""
        return self.drawn(version, lambda random: torch.from_numpy(random.standard_normal(shape, np.float32)))

    def noisy(self, image: torch.Tensor, version: torch.Tensor, noise: float) -> torch.Tensor:
        """Versions (N, 3, H, W) of images (N,) with normal noise, σ a fraction of their values' range."""
        clean = self.images[image]
        spread = clean.amax((1, 2, 3), keepdim=True) - clean.amin((1, 2, 3), keepdim=True)
        return clean + noise * spread * self.noise(version, tuple(clean.shape[1:]))

    def run(self, images: torch.Tensor, graph: bool = False) -> torch.Tensor:
        """Logits (N, C) of other images (N, 3, H, W), by default without a graph."""
        with torch.set_grad_enabled(graph), self.folding.active(len(images)), self.precision():
            return logits_of(self.model(images if graph else images.clone()))  # a network may normalize in place

    def input_gradients(self, images: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Gradient (N, 3, H, W) of the score with respect to other images, which are versions of image (N,)."""
        leaf = images.detach().requires_grad_()
        # A clone again: in-place operations on a leaf are refused.
        scores = self.scores_of(self.run(leaf.clone(), graph=True), image)
        return torch.autograd.grad(scores.sum(), leaf)[0].to(self.dtype)

    def rerecord(self, images: torch.Tensor, image: torch.Tensor) -> Recording:
        """Record the same layer once more, for other images (N, 3, H, W), which are versions of image (N,)."""
        with self.precision():
            recording = record(self.model, [self.layer], images, self.targets[image], folding=self.folding)
        return replace(recording, score=self.score, traces=self.traces, prefix_tokens=self.prefix_tokens)

    def replay(self) -> Replay:
        """Make the part of the network behind the layer run alone on activations that were changed."""
        return self._made_once("replay", lambda: Replay(self))

    def _made_once(self, what: str, make: Callable[[], Any]) -> Any:
        """What is found out about the layer, for all views of this pass."""
        key = self.layer, what
        if key not in self._once:
            self._once[key] = make()
        return self._once[key]


def record(
    model: nn.Module,
    layers: Sequence[str],
    images: torch.Tensor,
    targets: torch.Tensor | str | None,
    *,
    gradients: bool = True,
    twice: bool = False,
    inputs: Iterable[str] = (),
    folding: Folding | None = None,
    **settings: Any,
) -> Recording:
    """Run the network, in eval mode and frozen, once; the recording looks at the first layer and class.

    `gradients=False` builds no graph at all; `twice` calculates attention step by step, as fused kernels have no
    second derivatives; `inputs` are layers whose first input is kept; `settings` are fields of the recording.
    """
    outputs: dict[str, torch.Tensor] = {}
    first_inputs: dict[str, torch.Tensor] = {}
    folding = folding or Folding(model)

    def keep(name: str, module: nn.Module, values: tuple[torch.Tensor, ...]) -> None:
        first_inputs[name] = values[0].detach()

    def hand_on(name: str, output: object) -> torch.Tensor:
        """Detach what a layer yields, or takes, and hand on a clone, where the graph begins; the last run counts."""
        if not isinstance(output, torch.Tensor):
            raise UserError(f"layer {name} yields {type(output).__name__}, not a tensor; choose another")
        if gradients:
            torch.set_grad_enabled(True)
            output = output if output.requires_grad else output.detach().requires_grad_()
        outputs[name] = output.clone()
        return outputs[name]

    def take(name: str, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Put the tensor handed on in the place of the first one that a module is given."""
        tensor = first_tensor(args, kwargs)
        handed = hand_on(name, tensor)
        return tree_map(lambda leaf: handed if leaf is tensor else leaf, (args, kwargs))

    with ExitStack() as stack:
        for name in layers:
            layer = find_layer(model, name)
            if name.endswith(INPUT):
                hook = layer.register_forward_pre_hook(partial(take, name), with_kwargs=True)
            else:
                hook = layer.register_forward_hook(lambda _, __, output, name=name: hand_on(name, output))
            stack.enter_context(hook)
        for name in inputs:
            stack.enter_context(find_layer(model, name).register_forward_pre_hook(partial(keep, name)))
        stack.enter_context(torch.no_grad())  # the hook turns gradients on; leaving this restores the caller's mode
        stack.enter_context(folding.active(len(images)))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH) if twice else nullcontext())
        answer = logits_of(model(images.clone()))  # a network may normalize them in place
    for name in layers:
        if name not in outputs:
            raise UserError(f"layer {name} is not reached in the forward pass; choose another")
    kind = images.device.type
    precision = partial(torch.autocast, kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
    settings = {"layer": layers[0] if layers else "", "precision": precision, **settings}
    return Recording(model, images, outputs, first_inputs, answer, _classes(targets, answer), folding, **settings)


def _classes(targets: torch.Tensor | str | None, logits: torch.Tensor) -> torch.Tensor:
    """Turn what was asked for into class indices (B, K)."""
    count, classes = logits.shape
    if targets is None:
        return logits.detach().argmax(1, keepdim=True)
    if isinstance(targets, str):
        if targets != "top5":
            raise UserError(f'targets={targets!r}: pass class indices, None or "top5"')
        return logits.detach().topk(min(5, classes), 1).indices
    columns = torch.as_tensor(targets, device=logits.device)
    whole = columns.dtype != torch.bool and torch.can_cast(columns.dtype, torch.int64)
    fits = whole and columns.ndim in (1, 2) and len(columns) == count and columns.numel()
    if not fits or columns.min() < 0 or columns.max() >= classes:  # an index of -1 would quietly be the last class
        raise UserError(
            f"targets {columns.tolist()}, {columns.dtype}, of {count} images: pass classes 0 … {classes - 1} as whole "
            f"numbers, ({count},) or ({count}, K)"
        )
    return columns.long().reshape(count, -1).clone()  # not a tensor of inference mode: autograd keeps it


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
