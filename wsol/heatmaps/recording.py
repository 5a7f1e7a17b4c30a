"""One pass through the network keeps all that the methods are functions of: A, G, the head's weights, the logits.

The layer's output is handed on as a *clone* of a detached leaf, and after the forward pass A is read from, and the
score differentiated with respect to, the tensor that was handed on. In-place operations behind the layer
(DenseNet's ReLU) are then part of it, and nothing below the layer ever builds a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from wsol.errors import UserError
from wsol.heatmaps.head import Head, find_head
from wsol.heatmaps.layout import Layout, layout_of
from wsol.heatmaps.replay import Replay, beyond_rounding
from wsol.heatmaps.scores import SCORES, down_to_pixels
from wsol.models import find_layer, logits_of
from wsol.models.inference import Folding

__all__ = ["Pass", "Recording", "record", "without_autocast"]


@dataclass(frozen=True, eq=False)
class Recording:
    """What a method sees: one layer, one target class per image.

    Parameters
    ----------
    passed : Pass
        The pass this comes from; it differentiates on demand.
    layer : str
        Dotted name of the target layer; "" for methods that look at none.
    column : int
        Which of several targets per image.
    score : "logit", "log_prob", "prob" or "rest"
        What is differentiated, see `wsol.heatmaps.scores`.
    """

    passed: Pass
    layer: str
    column: int
    score: str = "logit"

    @property
    def model(self) -> nn.Module:
        """The network: in eval mode, its parameters frozen."""
        return self.passed.model

    @property
    def images(self) -> torch.Tensor:
        """What the network was shown (B, 3, H, W)."""
        return self.passed.images

    @property
    def logits(self) -> torch.Tensor:
        """The network's answer (B, C)."""
        return self.passed.logits.detach()

    @property
    def targets(self) -> torch.Tensor:
        """The class asked for, int64 (B,)."""
        return self.passed.targets[:, self.column]

    @property
    def dtype(self) -> torch.dtype:
        """What methods calculate in: the network's own precision, at least float32."""
        return torch.promote_types(self.images.dtype, torch.float32)

    @property
    def activations(self) -> torch.Tensor:
        """A (B, K, h, w): the layer's output, at least float32; tokens are laid out as maps."""
        return _full(self.layout.as_map(self.passed.handed_on[self.layer].detach()))

    @property
    def gradients(self) -> torch.Tensor:
        """G (B, K, h, w): the gradient of the class score with respect to A."""
        return self.gradients_of(self.score)

    @property
    def head(self) -> Head:
        """The linear layer behind global average pooling. Raises `UserError` where the network has none."""
        return self.passed.head(self.layer)

    @property
    def layout(self) -> Layout:
        """How the layer's own output lies in memory."""
        return self.passed.layout(self.layer)

    @property
    def output(self) -> torch.Tensor:
        """What the layer handed on, as it lies in memory, without a graph."""
        return self.passed.handed_on[self.layer].detach()

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """What went into a transformer's blocks, by name."""
        return self.passed.inputs

    @property
    def seed(self) -> int:
        """Of masks and noise."""
        return self.passed.seed

    @property
    def chunk(self) -> int:
        """Images in one batch of further passes."""
        return self.passed.chunk

    def scores_of(self, logits: torch.Tensor, image: int | torch.Tensor | None = None) -> torch.Tensor:
        """Score of the class asked for, (N,), in logits (N, C): of all images in order, or of versions of `image`."""
        targets = self.targets if image is None else self.targets[image].expand(len(logits))
        return SCORES[self.score](_full(logits), targets)

    def gradients_of(self, score: str | Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Gradient (B, K, h, w) with respect to A of another score: a name, or (logits, targets) -> (B,)."""
        return _full(self.layout.as_map(self.passed.gradient(self.column, score, self.layer)))

    def curvature(self) -> torch.Tensor:
        """H·A (B, K, h, w): the score's second derivatives with respect to A, applied to A."""
        return _full(self.layout.as_map(self.passed.curvature(self.column, self.score, self.layer)))

    def chunks(self, total: int) -> Iterator[slice]:
        """Cut many further passes into batches no larger than the memory bound, and show how far they are."""
        step = self.passed.chunk
        for start in range(0, total, step):
            self.passed.say(f"{min(start + step, total)}/{total}")
            yield slice(start, min(start + step, total))

    def versions(self, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Number the versions of every image, version by version, in batches: image (N,) and version (N,), int64."""
        if count < 1:
            raise UserError(f"{count} samples, masks or steps for each image: pass 1 or more")
        for part in self.chunks(count * len(self.images)):
            number = torch.arange(part.start, part.stop, device=self.images.device)
            yield number % len(self.images), number // len(self.images)

    def noise(self, version: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Normal noise (N, *shape), one draw per version (N,): the same for every image, in every batch."""
        drawn, place = version.unique(return_inverse=True)
        draws = [np.random.default_rng((self.passed.seed, int(v))).standard_normal(shape, np.float32) for v in drawn]
        return torch.from_numpy(np.stack(draws)).to(self.images)[place]

    def noisy(self, image: torch.Tensor, version: torch.Tensor, noise: float) -> torch.Tensor:
        """Versions (N, 3, H, W) of images (N,) with normal noise, σ a fraction of their values' range."""
        clean = self.images[image]
        spread = clean.amax((1, 2, 3), keepdim=True) - clean.amin((1, 2, 3), keepdim=True)
        return clean + noise * spread * self.noise(version, tuple(clean.shape[1:]))

    def run(self, images: torch.Tensor, graph: bool = False) -> torch.Tensor:
        """Logits (N, C) of other images (N, 3, H, W), by default without a graph."""
        self.passed.check_alone()
        with torch.set_grad_enabled(graph), self.passed.folding.active(len(images)), self.passed.precision():
            return logits_of(self.model(images if graph else images.clone()))  # a network may normalize in place

    def input_gradients(self, images: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Gradient (N, 3, H, W) of the score with respect to other images, which are versions of image (N,)."""
        leaf = images.detach().requires_grad_()
        # A clone again: in-place operations on a leaf are refused.
        scores = self.scores_of(self.run(leaf.clone(), graph=True), image)
        return _full(down_to_pixels(scores, leaf)[0])

    def again(self, images: torch.Tensor, image: torch.Tensor) -> Recording:
        """Record the same layer once more, for other images (N, 3, H, W), which are versions of image (N,)."""
        self.passed.check_alone()
        with self.passed.precision():
            passed = record(self.model, [self.layer], images, self.targets[image], folding=self.passed.folding)
        return passed.recording(self.layer, 0, self.score)

    def replay(self) -> Callable[[torch.Tensor, int], torch.Tensor]:
        """Make the part of the network behind the layer run alone on activations that were changed, see `Replay`.

        Raises `UserError` where that part does not give the network's own logits again.
        """
        self.passed.check_alone()
        behind = self.passed.replay(self.layer)

        def run(activations: torch.Tensor, image: int) -> torch.Tensor:
            with self.passed.precision():
                return behind(activations, image)

        return run


class Pass:
    """What one forward pass left behind: the tensors that were handed on at each layer, and the logits."""

    def __init__(
        self,
        model: nn.Module,
        images: torch.Tensor,
        handed_on: dict[str, torch.Tensor],
        inputs: dict[str, torch.Tensor],
        logits: torch.Tensor,
        targets: torch.Tensor,
        folding: Folding,
    ) -> None:
        self.folding = folding
        self.model, self.images, self.handed_on, self.inputs = model, images, handed_on, inputs
        self.logits, self.targets = logits, targets  # (B, C), (B, K)
        self.chunk = 32  # images in each further pass
        self.seed = 0  # of masks and noise
        self.say: Callable[[str], None] = lambda text: None
        self._autocast = _autocast_as_now(images.device.type)
        self._versions: list[tuple[torch.Tensor, int]] = []
        self._note([images, logits, targets, *handed_on.values(), *inputs.values()])
        self._gradients: dict[object, dict[str, torch.Tensor | None]] = {}
        self._heads: dict[str, Head] = {}
        self._layouts: dict[str, Layout] = {}
        self._replays: dict[str, Replay] = {}

    def precision(self) -> AbstractContextManager[object]:
        """Run the network as it was run in this pass, under `torch.autocast` or not; methods calculate without it."""
        return self._autocast()

    def changed(self) -> bool:
        """Whether a tensor that all methods see was changed in place."""
        return any(tensor._version != version for tensor, version in self._versions)

    def _note(self, tensors: Iterable[torch.Tensor]) -> None:
        """Remember how often each tensor was changed in place by now."""
        self._versions += [(tensor, tensor._version) for tensor in tensors if not tensor.is_inference()]

    def check_alone(self) -> None:
        """Refuse further passes through a network in which the images of a batch change each other's logits."""
        for name, module in self.model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
                raise UserError(
                    f"layer {name} ({type(module).__name__}) has no running statistics, so an image's logits depend on "
                    f"the others in its batch: methods that run the network more than once make no sense here"
                )

    def layout(self, layer: str) -> Layout:
        """Tell how a layer's output lies."""
        if layer not in self._layouts:
            size = (self.images.shape[2], self.images.shape[3])
            self._layouts[layer] = layout_of(self.model, layer, self.handed_on[layer], size)
        return self._layouts[layer]

    def recording(self, layer: str, column: int, score: str = "logit") -> Recording:
        """Return what a method sees of one layer and one target per image."""
        return Recording(self, layer, column, score)

    def gradient(
        self, column: int, score: str | Callable[[torch.Tensor, torch.Tensor], torch.Tensor], layer: str
    ) -> torch.Tensor:
        """Gradient of the scores of one target per image with respect to what a layer handed on."""
        gradients = self._differentiated(column, score)
        gradient = gradients[layer]
        if gradient is None:
            raise UserError(
                f"the logits do not depend on layer {layer}: does the network run behind it under torch.no_grad(), or "
                f"use it for another output? Choose another layer"
            )
        _check_finite("gradients", gradient, layer)
        return gradient

    def _differentiated(
        self, column: int, score: str | Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> dict[str, torch.Tensor | None]:
        """Differentiate once, with respect to all layers."""
        if (column, score) not in self._gradients:
            scores = (SCORES[score] if isinstance(score, str) else score)(self.logits, self.targets[:, column])
            if not scores.requires_grad:
                raise UserError(
                    f"the logits have no gradient with respect to layer {', '.join(self.handed_on)}: does the network "
                    f"run behind it under torch.no_grad(), or detach what it hands on? Choose a later layer"
                )
            found = torch.autograd.grad(
                scores.sum(), list(self.handed_on.values()), retain_graph=True, allow_unused=True
            )
            self._note(gradient for gradient in found if gradient is not None)
            self._gradients[column, score] = dict(zip(self.handed_on, found, strict=True))
        return self._gradients[column, score]

    def curvature(self, column: int, score: str, layer: str) -> torch.Tensor:
        """Differentiate the score twice and apply the second derivative to A."""
        handed_on = self.handed_on[layer]
        scores = SCORES[score](self.logits, self.targets[:, column])
        (gradient,) = torch.autograd.grad(scores.sum(), handed_on, create_graph=True, allow_unused=True)
        if gradient is None or not gradient.requires_grad:
            return torch.zeros_like(handed_on)
        (product,) = torch.autograd.grad(gradient, handed_on, handed_on.detach(), retain_graph=True, allow_unused=True)
        if product is None:
            return torch.zeros_like(handed_on)
        _check_finite("second derivatives", product, layer)
        return product

    def head(self, layer: str) -> Head:
        """Find the head behind a layer, proved on this batch."""
        if layer not in self._heads:
            activations = self.layout(layer).as_map(self.handed_on[layer].detach())
            self._heads[layer] = find_head(self.model, layer, activations, self.logits.detach())
        return self._heads[layer]

    def replay(self, layer: str) -> Replay:
        """Record what stands below a layer once more, so that the rest can run alone."""
        if layer not in self._replays:
            proof = self.handed_on[layer].detach(), self.logits.detach()
            self._replays[layer] = Replay(self.model, layer, self.images, proof)
        return self._replays[layer]


def record(
    model: nn.Module,
    layers: Iterable[str],
    images: torch.Tensor,
    targets: torch.Tensor | str | None,
    gradients: bool = True,
    twice: bool = False,
    inputs: Iterable[str] = (),
    folding: Folding | None = None,
) -> Pass:
    """Run the network once.

    Parameters
    ----------
    model : nn.Module
        In eval mode with frozen parameters (see `wsol.models.inference`).
    layers : iterable of str
        Dotted names.
    images : tensor (B, 3, H, W)
    targets : int tensor (B,) or (B, K), None or "top5"
        Classes whose maps are wanted; None: the highest logit.
    gradients : bool
        False: no graph is built at all.
    twice : bool
        Whether second derivatives are wanted: attention is then calculated step by step: fused kernels have none.
    inputs : iterable of str
        Layers whose first input is kept, detached: transformer blocks, say.
    folding : Folding, optional
        Of this model; weights that it has folded are used again.

    Raises
    ------
    UserError
        If a layer is unknown, isn't reached or doesn't yield a tensor, or a target is no class.
    """
    handed_on: dict[str, torch.Tensor] = {}
    kept: dict[str, torch.Tensor] = {}
    aliases: dict[str, tuple[torch.Tensor, int]] = {}  # outputs that are their layer's input, and their versions
    hooks = []
    layers = list(layers)
    folding = folding or Folding(model)

    def hand_on(name: str, module: nn.Module, given: tuple[object, ...], output: object) -> torch.Tensor:
        """Detach what a layer yields and hand on a clone, from which the graph begins."""
        if not isinstance(output, torch.Tensor):
            raise UserError(
                f"layer {name} ({type(module).__name__}) yields {type(output).__name__}, not a tensor; choose another"
            )
        if name in handed_on:
            raise UserError(f"layer {name} runs more than once in a forward pass; choose another")
        if any(isinstance(value, torch.Tensor) and _share(value, output) for value in given):
            aliases[name] = output, 0 if output.is_inference() else output._version
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
            hook = lambda module, given, output, name=name: hand_on(name, module, given, output)  # noqa: E731
            hooks.append(module.register_forward_hook(hook))
        for name in inputs:
            keep = lambda _, values, name=name: kept.update({name: values[0].detach()})  # noqa: E731
            hooks.append(find_layer(model, name).register_forward_pre_hook(keep))
        # The hook turns gradients on; leaving this block restores the caller's mode.
        with torch.no_grad(), folding.active(len(images)), sdpa_kernel(SDPBackend.MATH) if twice else nullcontext():
            logits = logits_of(model(images.clone()))  # a network may normalize them in place
    finally:
        for handle in hooks:
            handle.remove()
    _check_aliases(model, images, logits.detach(), handed_on, aliases)
    missing = [name for name in layers if name not in handed_on]
    if missing:
        raise UserError(f"layer {missing[0]} is not reached in the forward pass; choose another")
    return Pass(model, images, handed_on, kept, logits, _columns(targets, logits), folding)


def _share(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether two tensors lie in the same memory."""
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _check_aliases(
    model: nn.Module,
    images: torch.Tensor,
    logits: torch.Tensor,
    handed_on: dict[str, torch.Tensor],
    aliases: dict[str, tuple[torch.Tensor, int]],
) -> None:
    """Refuse layers that hand on their own input, where a clone of it makes a difference to what works in place."""
    changed = [
        name
        for name, (output, version) in aliases.items()
        if handed_on[name]._version or (not output.is_inference() and output._version != version)
    ]
    if not changed:
        return
    with torch.no_grad():
        apart = beyond_rounding(logits_of(model(images.clone())), logits, images.dtype)
    if apart:
        raise UserError(
            f"layer {changed[0]} hands on its own input, and something in the network works on that in place: "
            f"a copy of it gives other logits (by {apart:.2g}); choose the layer in front of it or a later one"
        )


def _autocast_as_now(kind: str) -> Callable[[], AbstractContextManager[object]]:
    """Make contexts in which `torch.autocast` is on or off for a type of device as it is now."""
    if not torch.amp.is_autocast_available(kind):
        return nullcontext
    return partial(torch.autocast, kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))


def without_autocast(kind: str) -> AbstractContextManager[object]:
    """Make a context in which `torch.autocast` is off for a type of device."""
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def _check_finite(what: str, derivatives: torch.Tensor, layer: str) -> None:
    """Refuse derivatives (B, …) that are not finite."""
    finite = derivatives.flatten(1).isfinite().all(1)
    if not bool(finite.all()):
        half = ", or too large for half precision" if derivatives.dtype == torch.float16 else ""
        raise UserError(
            f"{what} of the logits with respect to layer {layer} are not finite for image "
            f"{int((~finite).nonzero()[0])} in the batch: is there a root or a division by 0 behind it{half}?"
        )


def _full(tensor: torch.Tensor) -> torch.Tensor:
    """Bring half precision to float32, in which the methods calculate."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


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
    whole = not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)
    if not whole or targets.ndim not in (1, 2) or len(targets) != count or 0 in targets.shape[1:]:
        raise UserError(
            f"targets of type {targets.dtype} and shape {tuple(targets.shape)} for {count} images; "
            f"wanted whole numbers of shape ({count},) or ({count}, K)"
        )
    columns = targets.long().reshape(count, -1).clone()  # not a tensor of inference mode: autograd keeps it
    wrong = ((columns < 0) | (columns >= classes)).nonzero()
    if len(wrong):
        image, column = wrong[0].tolist()
        raise UserError(
            f"target {int(columns[image, column])} of image {image} in the batch is outside the model's "
            f"{classes} classes (0 … {classes - 1})"
        )
    return columns
