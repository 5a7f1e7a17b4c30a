"""Run the network once per batch and hand back the heatmaps of all the methods asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from wsol.errors import UserError
from wsol.heatmaps import baselines
from wsol.heatmaps.method import Method, check_score, expand_layers, layer_names, make_method
from wsol.heatmaps.recording import Pass, Recording, record, without_autocast
from wsol.heatmaps.transformer import attention_blocks
from wsol.models import Classifier, default_layer, find_layer, unwrap
from wsol.models.inference import Folding, channels_last, frozen, wants_own_memory

__all__ = ["HeatmapExtractor", "Heatmaps"]


@dataclass(frozen=True, eq=False)
class Heatmaps:
    """What the extractor found in one batch.

    Parameters
    ----------
    logits : tensor (B, C)
    targets : int64 tensor (B,) or (B, K)
        The classes that the maps are for.
    maps : dict of str to tensor (B, h, w) or (B, K, h, w)
        Raw heatmaps by method, each at its layer's resolution.
    """

    logits: torch.Tensor
    targets: torch.Tensor
    maps: dict[str, torch.Tensor]


class HeatmapExtractor:
    """Heatmaps of several methods from one forward pass, and one backward pass for each class asked for.

    Use it in a `with` block; the model's mode, hooks, memory format and `requires_grad` flags are as before when the
    block ends, also after an exception. Nobody else may run the model while one works. A compiled or data-parallel
    model is run as the network inside it.

    Parameters
    ----------
    model : nn.Module or Classifier
    methods : sequence of str, or mapping of str to Method or str
        Names of ours, or your own methods by name.
    layer : str or sequence of str, optional
        Dotted name of the target layer for methods that don't name their own; by default the classifier's, or the
        one found for the model's family. Of several layers each is looked at by itself: `method@layer`.
    score : "logit", "log_prob", "prob" or "rest", optional
        What is differentiated by methods that don't say it themselves, see `wsol.heatmaps.scores`; by default the
        logit (ShapleyCAM: `rest`; RISE and occlusion: `prob`).
    seed : int
        For the random baseline, and for methods that draw masks or noise.
    chunk : int
        Images in one batch of the methods that need further passes: their memory bound.
    say : callable, optional
        Called with a text such as "64/512" while such methods go on.
    channels_last : bool
        Run the network and its images in channels-last memory, which convolutions like best; a network that can't
        (`x.view(len(x), -1)` of maps) runs in its own. False: everything is left as it lies.

    Raises
    ------
    UserError
        If a method or layer is unknown (naming the nearest); if `seed` or `chunk` is no such number; if it is opened
        while it is open.

    Examples
    --------
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("cam", "gradcam")) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96), targets="top5")
    >>> found.targets.shape, found.maps["gradcam"].shape
    (torch.Size([2, 5]), torch.Size([2, 5, 12, 12]))
    """

    def __init__(
        self,
        model: nn.Module | Classifier,
        methods: Sequence[str] | Mapping[str, Method | str] = ("gradcam",),
        layer: str | int | Sequence[str | int] | None = None,
        *,
        score: str | None = None,
        seed: int = 0,
        chunk: int = 32,
        say: Callable[[str], None] | None = None,
        channels_last: bool = True,
    ) -> None:
        self.model = unwrap(model.module if isinstance(model, Classifier) else model)
        _check_model(self.model)
        if isinstance(methods, str):
            methods = (methods,)
        named = methods if isinstance(methods, Mapping) else {name: name for name in methods}
        chosen = {name: m if isinstance(m, Method) else make_method(m) for name, m in named.items()}
        default = layer_names(layer) or (model.layer if isinstance(model, Classifier) else "")
        if not default and any(m.layer is None and m.needs_layer for m in chosen.values()):
            default = default_layer(self.model)
        _check_whole("chunk", chunk, 1)
        _check_whole("seed", seed, 0)
        self.methods = expand_layers(chosen, default)
        self.score = check_score(score)
        self.seed, self.chunk, self.say, self.channels_last = seed, chunk, say, channels_last
        self.seen = 0
        self._stack: ExitStack | None = None
        self._memory = ExitStack()  # what brings the weights' own memory back
        self._own_memory = False  # whether the network was found not to run in channels-last memory
        self._folding: Folding | None = None

    @property
    def layers(self) -> dict[str, str]:
        """Target layer of each method, for the records of a run: "" for none, `a+b` for fused ones."""
        of = {name: method.layer or "" for name, method in self.methods.items()}
        return {name: layer if isinstance(layer, str) else "+".join(layer) for name, layer in of.items()}

    def __enter__(self) -> HeatmapExtractor:
        if self._stack is not None:
            raise UserError("this HeatmapExtractor is open already: use it in one `with` block at a time")
        _check_model(self.model)
        # What has begun ends, also where the rest doesn't begin.
        with torch.inference_mode(False), ExitStack() as stack:
            stack.enter_context(frozen(self.model))
            if self.channels_last:
                self._memory = stack.enter_context(ExitStack())
                self._memory.enter_context(channels_last(self.model))
            self._stack = stack.pop_all()
        self._folding, self._own_memory, self.seen = Folding(self.model), False, 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._stack is not None
        stack, self._stack, self._folding = self._stack, None, None  # weights that were folded are free first
        stack.close()

    def __call__(
        self,
        images: torch.Tensor,
        targets: torch.Tensor | str | None = None,
        sample_ids: Sequence[str] | None = None,
    ) -> Heatmaps:
        """Find the heatmaps of a batch.

        Parameters
        ----------
        images : tensor (B, 3, H, W)
            Normalized as the network wants it.
        targets : int tensor (B,) or (B, K), None or "top5"
            Classes; None: the highest logit of each image.
        sample_ids : sequence of str, optional
            What the random baseline is seeded with; by default the number of the image since the block began.

        Raises
        ------
        UserError
            Outside a `with` block; for images that are no batch; for targets that are no classes; for activations or
            logits that are not finite, naming the image and the layer; from methods that don't fit the network.
        """
        if self._stack is None:
            raise UserError("HeatmapExtractor restores the model when it ends: use it in a `with` block")
        if not isinstance(images, torch.Tensor) or not images.is_floating_point():
            kind = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
            raise UserError(f"images of type {kind}: pass a tensor of normalized images, as `Classifier.prepare` makes")
        if any(module.training for module in self.model.modules()):
            raise UserError("the model was set to training while this HeatmapExtractor is open: call model.eval()")
        if images.ndim != 4 or not len(images):
            raise UserError(f"images of shape {tuple(images.shape)}: pass a batch (B, 3, H, W) of one image or more")
        names = [str(self.seen + i) for i in range(len(images))] if sample_ids is None else list(sample_ids)
        if len(names) != len(images):
            raise UserError(f"{len(names)} sample_ids for {len(images)} images: pass one for each")
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False):  # gradients can't be recorded inside
                return self(images, targets, sample_ids)
        self.seen += len(images)
        with _not_compiled():
            passed = self._record(images, targets)
            _check_finite(passed, names)
            with torch.no_grad(), without_autocast(images.device.type):
                maps = {name: self._map(name, method, passed, names) for name, method in self.methods.items()}
        several = isinstance(targets, str) or (targets is not None and torch.as_tensor(targets).ndim == 2)
        if not several:
            maps = {name: heatmap[:, 0] for name, heatmap in maps.items()}
        return Heatmaps(passed.logits.detach(), passed.targets if several else passed.targets[:, 0], maps)

    def _record(self, images: torch.Tensor, targets: torch.Tensor | str | None) -> Pass:
        methods = self.methods.values()
        needs = {method.requirements.needs for method in methods if not method.baseline}
        layers = dict.fromkeys(layer for method in methods for layer in method.layers)
        for layer in layers:
            if isinstance(find_layer(self.model, layer), torch.jit.ScriptModule):
                raise UserError(f"layer {layer} is a torch.jit script or trace, which can't be watched: choose another")
        blocks = attention_blocks(self.model) if "attention" in needs else ()
        assert self._folding is not None
        self._folding.forget()
        run = partial(
            record,
            self.model,
            list(layers),
            targets=_as_tensor(targets),
            gradients=any(method.gradients for method in methods),
            twice="curvature" in needs,
            inputs=blocks,
            folding=self._folding,
        )
        try:
            passed = self._in_suitable_memory(run, images.detach())
        except RuntimeError as error:
            _check_dtype(self.model, images, error)
            raise
        passed.chunk, passed.seed = self.chunk, self.seed
        return passed

    def _in_suitable_memory(self, run: Callable[[torch.Tensor], Pass], images: torch.Tensor) -> Pass:
        """Run in channels-last memory; in the network's own if it is asked for or nothing else works."""
        if not self.channels_last:
            return run(images)
        if not self._own_memory:
            try:
                return run(images.contiguous(memory_format=torch.channels_last))
            except RuntimeError as error:
                if not wants_own_memory(error):
                    raise
            self._own_memory = True
            self._memory.close()  # the weights lie as they did; what was folded of them does not
            assert self._folding is not None
            self._folding.forget()
        return run(images.contiguous())

    def _map(self, name: str, method: Method, passed: Pass, sample_ids: Sequence[str]) -> torch.Tensor:
        """Compute one method's heatmaps (B, K, h, w)."""
        if isinstance(method.function, str):
            return self._baseline(method.function, method, passed, sample_ids)
        default = method.requirements.score
        score = method.score or (self.score if default else None) or default or "logit"
        if score in ("prob", "log_prob") and passed.logits.shape[1] == 1:
            raise UserError(f"method {name}: score={score} of a network with one logit never changes; use score=logit")
        passed.say = lambda text: self.say(f"{name} {text}") if self.say else None
        found = []
        for column in range(passed.targets.shape[1]):
            with torch.enable_grad():
                recordings = [passed.recording(layer, column, score) for layer in method.layers or ("",)]
                maps = [_checked(method.function(recording), name, recording, sample_ids) for recording in recordings]
            if passed.changed():
                raise UserError(
                    f"method {name} changes in place what other methods see as well: work on a copy (no `relu_`, `*=`)"
                )
            found.append((fuse(maps, method.fuse) if method.fuse else maps[0]).float())
        return torch.stack(found, 1)

    def _baseline(self, kind: str, method: Method, passed: Pass, sample_ids: Sequence[str]) -> torch.Tensor:
        images = passed.images
        if kind == "random":
            height, width = passed.recording(method.layers[0], 0).activations.shape[2:]
            maps = [baselines.random((width, height), sample_id, self.seed) for sample_id in sample_ids]
        else:
            height, width = images.shape[2:]
            make = baselines.center if kind == "center" else baselines.full
            maps = [make((width, height))] * len(images)
        heatmaps = torch.stack([torch.from_numpy(heatmap) for heatmap in maps]).to(images.device).float()  # (B, h, w)
        return heatmaps[:, None].expand(-1, passed.targets.shape[1], -1, -1)


def _checked(heatmap: object, method: str, recording: Recording, sample_ids: Sequence[str]) -> torch.Tensor:
    """Refuse what is no batch of finite heatmaps."""
    images = len(sample_ids)
    shape = tuple(heatmap.shape) if isinstance(heatmap, torch.Tensor) else f"no tensor but {type(heatmap).__name__}"
    if not isinstance(heatmap, torch.Tensor) or heatmap.ndim != 3 or len(heatmap) != images or 0 in heatmap.shape:
        raise UserError(f"method {method} returned shape {shape} for {images} images; wanted ({images}, h, w)")
    finite = heatmap.detach().flatten(1).isfinite().all(1)
    if not bool(finite.all()):
        image = int((~finite).nonzero()[0])
        raise UserError(
            f"method {method}{f' at layer {recording.layer}' if recording.layer else ''} gives values that are not "
            f"finite for image {sample_ids[image]} (number {image} in the batch): is there a root, or a division by "
            f"what may be 0 (the standard deviation of an even picture), in the network? Choose another method or layer"
        )
    return heatmap.detach()


def _check_whole(option: str, value: Any, least: int) -> None:
    if not isinstance(value, Integral) or int(value) < least:
        raise UserError(f"{option}={value!r}: pass a whole number, {least} or more")


def _check_model(model: nn.Module) -> None:
    """Refuse a network whose layers can't be watched or differentiated."""
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError(
            "the model is a torch.jit script or trace, which shows no layers: pass the module it was made of"
        )
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise UserError("the model's weights were made under torch.inference_mode(): build or load it outside of that")


def _as_tensor(targets: object) -> torch.Tensor | str | None:
    """Make a tensor of classes that come as lists or arrays."""
    if targets is None or isinstance(targets, str):
        return targets
    try:
        return torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"targets of type {type(targets).__name__} make no tensor ({error}): pass whole numbers of shape (B,), one "
            f"for each image, or (B, K)"
        ) from error


def _check_dtype(model: nn.Module, images: torch.Tensor, error: RuntimeError) -> None:
    """Say so if the network does not run because its weights are of another type than the images."""
    own = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    if own and images.dtype not in own and not torch.is_autocast_enabled(images.device.type):
        raise UserError(
            f"images of {images.dtype} for a network whose weights are {', '.join(sorted(map(str, own)))}: convert "
            f"the images or the network, with .to(…) ({error})"
        ) from error


def fuse(maps: Sequence[torch.Tensor], how: str = "max", gamma: float = 2.0) -> torch.Tensor:
    """Bring maps (B, h, w) of several layers to the largest size, tanh(γ ReLU(M) / max M), and take max or mean.

    Jiang et al., "LayerCAM", IEEE TIP 2021, eq. 9; here every layer is scaled, the last one too, so that all values
    are in [0, 1].
    """
    size = max((tuple(heatmap.shape[1:]) for heatmap in maps), key=lambda shape: shape[0] * shape[1])
    scaled = []
    for heatmap in maps:
        clipped = heatmap.relu()
        highest = clipped.amax((1, 2), keepdim=True)
        even = torch.tanh(gamma * clipped / torch.where(highest == 0, 1, highest))
        scaled.append(functional.interpolate(even[:, None], size, mode="bilinear")[:, 0])
    stacked = torch.stack(scaled)  # (L, B, h, w)
    return stacked.amax(0) if how == "max" else stacked.mean(0)


@contextmanager
def _not_compiled() -> Iterator[None]:
    """Run compiled parts as they were written: compiled code can't be differentiated twice, nor run in parts."""
    set_stance = getattr(torch.compiler, "set_stance", None)  # torch 2.6
    # A function that the network calls may be compiled as well, which shows nowhere.
    compiled = "torch._dynamo" in sys.modules
    with set_stance("force_eager") if set_stance and compiled else nullcontext():
        yield


def _check_finite(passed: Pass, sample_ids: Sequence[str]) -> None:
    """Refuse activations and logits that are not finite, naming the image and the layer."""
    for layer, tensor in [*passed.handed_on.items(), ("", passed.logits)]:
        finite = tensor.detach().flatten(1).isfinite().all(1)
        if not bool(finite.all()):
            image = int((~finite).nonzero()[0])
            shown = bool(passed.images[image].isfinite().all())
            raise UserError(
                f"activations of layer {layer or _first_not_finite(passed)} are not finite for image "
                f"{sample_ids[image]} (number {image} in the batch): "
                f"{'are the weights broken?' if shown else 'the pixels that the network was shown are not'}"
            )


def _first_not_finite(passed: Pass) -> str:
    """Run the network once more, to name the first layer whose output is not finite."""
    found: list[str] = []

    def look(name: str, output: object) -> None:
        if isinstance(output, torch.Tensor) and not bool(output.isfinite().all()):
            found.append(name)

    with ExitStack() as stack, torch.no_grad():
        for name, module in passed.model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # it takes no hooks
            hook = module.register_forward_hook(lambda _, __, output, name=name: look(name, output))
            stack.callback(hook.remove)
        passed.model(passed.images.clone())
    return next((name for name in found if name), type(passed.model).__name__)
