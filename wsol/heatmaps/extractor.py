"""Run the network once per batch and hand back the heatmaps of all the methods asked for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from wsol.datasets.classes import find_logit
from wsol.errors import UserError
from wsol.heatmaps import store
from wsol.heatmaps.method import Method, expand_layers, make_method
from wsol.heatmaps.recording import Recording, record
from wsol.heatmaps.transformer import attention_blocks
from wsol.models import Classifier, default_layer, find_layer
from wsol.models.inference import Folding, answer_with, channels_last, frozen, unwrap, wants_own_memory
from wsol.models.layers import refuse_quantized, refuse_scripts
from wsol.models.trace import INPUT, Trace, trace

logger = logging.getLogger("wsol")

Targets = torch.Tensor | Sequence[Any] | str | None


@dataclass(frozen=True, eq=False)
class Heatmaps:
    """What the extractor makes of one batch.

    Attributes
    ----------
    logits : tensor (B, C)
        Or what a score function makes of the network's answer (B, K).
    targets : int64 tensor (B,) or (B, K)
        The classes that the maps are for.
    maps : dict of str to tensor (B, h, w) or (B, K, h, w)
        Raw heatmaps by method, each at its layer's resolution.
    """

    logits: torch.Tensor
    targets: torch.Tensor
    maps: dict[str, torch.Tensor]


Found = Heatmaps  # its name in earlier programs


class HeatmapExtractor:
    """Heatmaps of several methods from one forward pass, and one backward pass for each class asked for.

    Use it in a `with` block; the model's mode, hooks, memory format and `requires_grad` flags are as before when the
    block ends, also after an exception. Nobody else may run the model meanwhile. A compiled or data-parallel model is
    run as the network inside it.

    Parameters
    ----------
    model : nn.Module or Classifier
    methods : sequence of str, or mapping of str to Method or str
        Names of ours, or your own methods by name.
    layer : str or sequence of str, optional
        Dotted name of the target layer for methods that don't name their own; by default the classifier's, or the
        one found for the model's family. Of several layers each is looked at by itself: `method@layer`.
    score : "logit", "log_prob", "prob", "rest" or callable, optional
        What methods that don't say it themselves differentiate; by default the logit (see `make_method`). A function
        takes what the network answers, of whatever shape, and returns one score per image (B,), or several (B, K), of
        which `targets` choose as of logits: for regression, segmentation, embedding and multi-label networks.
    seed : int
        For the random baseline, and for methods that draw masks or noise.
    chunk : int
        Images in one batch of the methods that need further passes: their memory bound.
    say : callable, optional
        Called with a text such as "scorecam 64/512" by those.
    channels_last : bool
        Run in channels-last memory, which convolutions like best; a network that can't runs in its own.
    prefix_tokens, output : optional
        As in `Classifier`, whose own they are by default: tokens that stand for no place; which output the logits are.

    Raises
    ------
    UserError
        If a method or layer is unknown; if the layer lies in a script; if the model is quantized, or lets images change
        each other's logits.

    Examples
    --------
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("cam", "gradcam")) as extractor:
    ...     heatmaps = extractor(torch.rand(2, 3, 96, 96), targets="top5")
    >>> heatmaps.targets.shape, heatmaps.maps["gradcam"].shape
    (torch.Size([2, 5]), torch.Size([2, 5, 12, 12]))

    How like an embedding an image is, and where:

    >>> wanted = torch.ones(10)
    >>> likeness = lambda answer: functional.cosine_similarity(answer, wanted[None])
    >>> with HeatmapExtractor(gapnet(10), ("gradcam",), score=likeness) as extractor:
    ...     extractor(torch.rand(2, 3, 96, 96)).maps["gradcam"].shape
    torch.Size([2, 12, 12])
    """

    def __init__(
        self,
        model: nn.Module | Classifier,
        methods: Sequence[str] | Mapping[str, Method | str] = ("gradcam",),
        layer: str | int | Sequence[str | int] | None = None,
        *,
        score: str | Callable[[Any], torch.Tensor] | None = None,
        seed: int = 0,
        chunk: int = 32,
        say: Callable[[str], None] | None = None,
        channels_last: bool = True,
        prefix_tokens: int | Sequence[int] | None = None,
        output: int | str | None = None,
    ) -> None:
        self.classifier = classifier = model if isinstance(model, Classifier) else None
        self.model = unwrap(model.module if isinstance(model, Classifier) else model)
        refuse_scripts(self.model)
        refuse_quantized(self.model)
        _refuse_batch_statistics(self.model)
        methods = (methods,) if isinstance(methods, str) else methods
        named = methods if isinstance(methods, Mapping) else {name: name for name in methods}
        made = {name: m if isinstance(m, Method) else make_method(m) for name, m in named.items()}
        if layer is None and classifier:
            layer = classifier.layer or None
        if layer is None and any(m.layer is None and m.requirements.layer for m in made.values()):
            with nullcontext() if output is None else answer_with(self.model, output):
                layer = default_layer(self.model, prefix_tokens=prefix_tokens, channels=None)
        self.methods = expand_layers(made, layer, "logit" if callable(score) else score)
        for name in dict.fromkeys(name for method in self.methods.values() for name in method.layers):
            find_layer(self.model, name)
            refuse_scripts(self.model, name)
        self.prefix_tokens = classifier.prefix_tokens if classifier and prefix_tokens is None else prefix_tokens
        self.class_maps = {classifier.layer: classifier.class_map} if classifier and classifier.class_map else {}
        self.output, self._traces = output, dict[tuple[int, int], Trace]()
        self.score = score if callable(score) else None
        by_attention = [name for name, method in self.methods.items() if method.requirements.needs == "attention"]
        if by_attention and self.score:
            raise UserError(
                f"method {by_attention[0]} makes logits of its own from every block: it takes no score function"
            )
        self.seed, self.chunk, self.say, self.channels_last = seed, chunk, say or (lambda text: None), channels_last
        self.seen = 0  # images since the block began
        self._stack: ExitStack | None = None

    @property
    def layers(self) -> dict[str, str]:
        """Target layer of each method: "" for none, `a+b` for fused ones; of cam what a class map of its own says."""
        layers = {name: "+".join(method.layers) for name, method in self.methods.items()}
        for name in (name for name, method in self.methods.items() if method.function_name == "cam"):
            layers[name] = getattr(self.class_maps.get(layers[name]), "layer", layers[name])
        return layers

    def __enter__(self) -> HeatmapExtractor:
        with torch.inference_mode(False), ExitStack() as stack:
            stack.enter_context(frozen(self.model))
            if self.output is not None:
                stack.enter_context(answer_with(self.model, self.output))
            if score := self.score:  # everything below sees a network whose logits are these scores
                stack.enter_context(self.model.register_forward_hook(lambda _, __, answer: scores_of(score, answer)))
            self._memory = stack.enter_context(ExitStack())  # what brings the weights' own memory back
            self._in_channels_last = self.channels_last
            if self.channels_last:
                self._memory.enter_context(channels_last(self.model))
            self._stack = stack.pop_all()  # what has begun ends, also where the rest doesn't begin
        self._folding, self.seen = Folding(self.model), 0
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._stack is not None
        self._folding.forget()
        self._stack.close()
        self._stack = None

    def __call__(
        self, images: torch.Tensor, targets: Targets = None, sample_ids: Sequence[str] | None = None
    ) -> Heatmaps:
        """Make the heatmaps of a batch.

        Parameters
        ----------
        images : tensor (B, 3, H, W)
            Normalized as the network wants it.
        targets : int tensor (B,) or (B, K), "top5", names of classes, or None
            Classes; None: the highest logit of each image. Names, or ids, if the model is a `Classifier` that knows
            them: one for all images, or as many as a tensor has.
        sample_ids : sequence of str, optional
            What the random baseline is seeded with; by default the number of the image since the block began.

        Raises
        ------
        UserError
            Outside a `with` block; for what are no classes; for values that are not finite, naming image and layer;
            from methods that don't fit the network.
        """
        self._check(images, sample_ids)
        targets = self._by_name(targets, len(images))
        names = [str(self.seen + i) for i in range(len(images))] if sample_ids is None else list(sample_ids)
        self.seen += len(images)
        # Gradients can't be recorded inside inference mode.
        with torch.inference_mode(False), _eager(), _differentiable(self.model):
            recording = self._record(images.detach(), targets)
            self._versions = {(1.0, 1.0): recording}
            for layer, tensor in recording.outputs.items():
                _check_finite(tensor, f"activations of layer {layer}", names)
            _check_finite(recording.logits, "logits", names)
            with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
                maps = {name: self._map(name, method, recording, names) for name, method in self.methods.items()}
            del self._versions
        classes = recording.classes
        if targets is None or (not isinstance(targets, str) and torch.as_tensor(targets).ndim == 1):
            classes, maps = classes[:, 0], {name: heatmap[:, 0] for name, heatmap in maps.items()}
        return Heatmaps(recording.logits, classes, maps)

    def _by_name(self, targets: Targets, count: int) -> torch.Tensor | str | None:
        """Turn names of classes into indices."""
        if targets is None or isinstance(targets, torch.Tensor):
            return targets
        if isinstance(targets, str) and targets == "top5":
            return "top5"
        rows = np.asarray([targets] * count if isinstance(targets, str) else targets)
        if rows.dtype.kind != "U":
            return torch.as_tensor(targets)
        if not self.classifier or not self.classifier.classes:
            raise UserError(f"targets {rows.flat[0]!r}: what the logits are called is not known: pass a Classifier")
        names, ids = self.classifier.classes, self.classifier.class_ids
        indices = [find_logit(name, names, ids, len(names), "targets") for name in rows.flat]
        return torch.tensor(indices).view(rows.shape)

    def _check(self, images: torch.Tensor, sample_ids: Sequence[str] | None) -> None:
        if self._stack is None:
            raise UserError("HeatmapExtractor restores the model when it ends: use it in a `with` block")
        if any(module.training for module in self.model.modules()):
            raise UserError("the model was set to training while this HeatmapExtractor is open: call model.eval()")
        if sample_ids is not None and len(sample_ids) != len(images):
            raise UserError(f"{len(sample_ids)} sample_ids for {len(images)} images: pass one for each")

    def _record(self, images: torch.Tensor, targets: torch.Tensor | str | None) -> Recording:
        """Run the network in channels-last memory; in its own if that is asked for or nothing else works."""
        needs = {method.requirements.needs for method in self.methods.values()}
        layers = list(dict.fromkeys(layer for method in self.methods.values() for layer in method.layers))
        self._folding.forget()  # weights may have changed since
        settings: dict[str, Any] = {
            "gradients": not needs.isdisjoint(("gradients", "curvature")), "twice": "curvature" in needs,
            "inputs": attention_blocks(self.model) if "attention" in needs else (), "folding": self._folding,
            "chunk": self.chunk, "seed": self.seed, "class_maps": self.class_maps,
            "traces": self._traces, "prefix_tokens": self.prefix_tokens,
        }  # fmt: skip

        def run(images: torch.Tensor) -> Recording:
            self._look(images, layers)
            return record(self.model, layers, images, targets, **settings)

        if self._in_channels_last:
            try:
                return run(images.contiguous(memory_format=torch.channels_last))
            except RuntimeError as error:
                if not wants_own_memory(error):
                    raise
            self._in_channels_last = False
            self._memory.close()
            self._folding.forget()
        return run(images.contiguous() if self.channels_last else images)

    def _look(self, images: torch.Tensor, layers: Sequence[str]) -> None:
        """See once for images of a size whether layers yield maps, and whether the network always says the same."""
        if images.ndim != 4 or all(method.baseline and not method.layers for method in self.methods.values()):
            return
        size = images.shape[2], images.shape[3]
        if size in self._traces:
            return
        pass_on_noise = trace(self.model, size, self.prefix_tokens, images, images.shape[1])
        if pass_on_noise.random:
            raise UserError(
                f"layer {pass_on_noise.random} draws random numbers, which change the logits, also in evaluation"
            )
        for layer in layers:
            pass_on_noise.layout(layer)
            if (runs := pass_on_noise.runs[layer.removesuffix(INPUT)]) > 1 and not self._traces:
                logger.warning("layer %s runs %d times in a forward pass: its last run is looked at", layer, runs)
        self._traces[size] = pass_on_noise

    def _map(self, name: str, method: Method, recording: Recording, sample_ids: Sequence[str]) -> torch.Tensor:
        """Compute one method's heatmaps (B, K, h, w)."""
        if isinstance(method.function, str):
            return self._baseline(method.function, method, recording, sample_ids)
        score = method.score or method.requirements.score or "logit"
        if score in ("prob", "log_prob") and recording.logits.shape[1] == 1:
            raise UserError(f"method {name}: score={score} of a network with one logit never changes; use score=logit")
        view = replace(recording, score=score, say=lambda text: self.say(f"{name} {text}"))
        if method.views:
            return self._averaged(name, method, recording, sample_ids)
        columns = []
        for column in range(recording.classes.shape[1]):
            maps = []
            for layer in method.layers or ("",):
                with torch.enable_grad():
                    heatmap = method.function(replace(view, layer=layer, column=column))
                maps.append(_checked(heatmap, name, layer, sample_ids))
            columns.append((fuse(maps, method.fuse) if method.fuse else maps[0]).to(recording.dtype))
        return torch.stack(columns, 1)

    def _averaged(self, name: str, method: Method, recording: Recording, sample_ids: Sequence[str]) -> torch.Tensor:
        """Average a method's maps over versions of the images, at the size of the largest."""
        assert method.views
        versions = [(scale, factor) for scale in method.views.scale for factor in method.views.brightness]
        recordings = (self._version(recording, *version) for version in versions)
        maps = [self._map(name, replace(method, views=None), version, sample_ids) for version in recordings]
        size = max((heatmap.shape[2:] for heatmap in maps), key=torch.Size.numel)
        return torch.stack([functional.interpolate(heatmap, size, mode="bilinear") for heatmap in maps]).mean(0)

    def _version(self, recording: Recording, scale: float, brightness: float) -> Recording:
        """Record the images once more, larger or brighter; all methods share it."""
        if (scale, brightness) not in self._versions:
            images, size = recording.images, [round(side * scale) for side in recording.images.shape[2:]]
            if brightness != 1:
                if self.classifier is None:
                    raise UserError("views: brightness needs the mean and std of the pixels: pass a Classifier")
                normalization = self.classifier.mean, self.classifier.std
                mean, std = (images.new_tensor(values).view(3, 1, 1) for values in normalization)
                images = brightness * images + (brightness - 1) * mean / std
            images = functional.interpolate(images, size, mode="bilinear") if scale != 1 else images
            with recording.precision():
                self._versions[scale, brightness] = self._record(images, recording.classes)
        return self._versions[scale, brightness]

    def _baseline(self, name: str, method: Method, recording: Recording, sample_ids: Sequence[str]) -> torch.Tensor:
        """Maps (B, K, h, w) of a baseline: noise of a layer's size, or others of the images'."""
        if name == "random":
            height, width = replace(recording, layer=method.layers[0]).activations.shape[2:]
            maps = [store.random((width, height), sample_id, self.seed) for sample_id in sample_ids]
        else:
            height, width = recording.images.shape[2:]
            maps = [getattr(store, name)((width, height))] * len(sample_ids)
        heatmaps = torch.from_numpy(np.stack(maps)).float().to(recording.images.device)  # (B, h, w)
        return heatmaps[:, None].expand(-1, recording.classes.shape[1], -1, -1)


def fuse(maps: Sequence[torch.Tensor], how: str = "max") -> torch.Tensor:
    """Bring maps (B, h, w) of several layers to the largest size, tanh(2 ReLU(M) / max M), and take max or mean.

    Jiang et al., "LayerCAM", IEEE TIP 2021, eq. 9, with the last layer scaled too: all values are in [0, 1].
    """
    size = max((heatmap.shape[1:] for heatmap in maps), key=torch.Size.numel)
    scaled = []
    for heatmap in maps:
        clipped = heatmap.relu()
        highest = clipped.amax((1, 2), keepdim=True)
        even = torch.tanh(2 * clipped / torch.where(highest == 0, 1, highest))
        scaled.append(functional.interpolate(even[:, None], size, mode="bilinear")[:, 0])
    stacked = torch.stack(scaled)  # (L, B, h, w)
    return stacked.amax(0) if how == "max" else stacked.mean(0)


def scores_of(score: Callable[[Any], torch.Tensor], answer: object) -> torch.Tensor:
    """Scores (B, K) that somebody's function makes of a network's answer."""
    scores = score(answer)
    if not isinstance(scores, torch.Tensor) or scores.ndim not in (1, 2):
        shape = tuple(getattr(scores, "shape", ())) or type(scores).__name__
        raise UserError(f"score makes {shape} of what the network answers: return (B,), or (B, K)")
    return scores if scores.ndim == 2 else scores[:, None]


def _refuse_batch_statistics(model: nn.Module) -> None:
    """Refuse networks in which the images of a batch change each other's logits: no map would be of one image."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise UserError(f"layer {name} normalizes by the batch at hand: it needs running statistics")


def _checked(heatmap: object, method: str, layer: str, sample_ids: Sequence[str]) -> torch.Tensor:
    """Refuse what is no batch of finite heatmaps."""
    count, shape = len(sample_ids), tuple(getattr(heatmap, "shape", ()))
    if not isinstance(heatmap, torch.Tensor) or len(shape) != 3 or shape[0] != count or 0 in shape:
        raise UserError(f"method {method} returned a {type(heatmap).__name__} {shape}; wanted a tensor ({count}, h, w)")
    _check_finite(heatmap, f"the maps of method {method}{f' at layer {layer}' if layer else ''}", sample_ids)
    return heatmap.detach()


def _check_finite(tensor: torch.Tensor, what: str, sample_ids: Sequence[str]) -> None:
    """Refuse values (B, …) that are not finite, naming the first such image."""
    finite = tensor.detach().flatten(1).isfinite().all(1)
    if not bool(finite.all()):
        image = int((~finite).nonzero()[0])
        raise UserError(
            f"{what} are not finite for image {sample_ids[image]} (number {image} in the batch): are its pixels or the "
            f"weights broken, or is there a root or a division by 0 in the network?"
        )


def _differentiable(model: nn.Module) -> AbstractContextManager[object]:
    """Run recurrent layers without cuDNN, which differentiates them in training only."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    return torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()


def _eager() -> AbstractContextManager[object]:
    """Run compiled parts as they were written: compiled code can't be differentiated twice, nor run in parts."""
    set_stance = getattr(torch.compiler, "set_stance", None)  # torch 2.6
    compiled = "torch._dynamo" in sys.modules
    return set_stance("force_eager") if set_stance and compiled else nullcontext()
