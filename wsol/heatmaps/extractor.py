"""Run the network once per batch and hand back the heatmaps of all the methods asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import nn

from wsol.errors import UserError
from wsol.heatmaps import baselines
from wsol.heatmaps.method import Method, make_method
from wsol.heatmaps.recording import Pass, frozen, record
from wsol.models import Classifier, default_layer

__all__ = ["Found", "HeatmapExtractor"]


@dataclass(frozen=True, eq=False)
class Found:
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
    """Heatmaps of several methods from one forward and one backward pass.

    Use it in a `with` block; the model's mode, hooks and `requires_grad` flags are as before when the block ends,
    also after an exception.

    Parameters
    ----------
    model : nn.Module or Classifier
    methods : sequence of str, or mapping of str to Method
        Names of ours, or your own methods by name.
    layer : str, optional
        Dotted name of the target layer for methods that don't name their own; by default the classifier's, or the
        one found for the model's family.
    seed : int
        For the random baseline.

    Raises
    ------
    UserError
        If a method or layer is unknown (naming the nearest).

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
        methods: Sequence[str] | Mapping[str, Method] = ("gradcam",),
        layer: str | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.model = model.module if isinstance(model, Classifier) else model
        if isinstance(methods, str):
            methods = (methods,)
        self.methods = dict(methods) if isinstance(methods, Mapping) else {name: make_method(name) for name in methods}
        self.seed = seed
        self.seen = 0
        default = layer or (model.layer if isinstance(model, Classifier) else "")
        if not default and any(m.layer is None and m.needs_layer for m in self.methods.values()):
            default = default_layer(self.model)
        self.layers = {
            name: (method.layer or default) if method.needs_layer else "" for name, method in self.methods.items()
        }
        self._stack: ExitStack | None = None

    def __enter__(self) -> HeatmapExtractor:
        self._stack, self.seen = ExitStack(), 0
        self._stack.enter_context(frozen(self.model))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._stack is not None
        self._stack.close()
        self._stack = None

    def __call__(
        self,
        images: torch.Tensor,
        targets: torch.Tensor | str | None = None,
        sample_ids: Sequence[str] | None = None,
    ) -> Found:
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
            Outside a `with` block; for targets that are no classes; for activations that are not finite, naming the
            image and the layer; from methods that don't fit the network.
        """
        if self._stack is None:
            raise UserError("HeatmapExtractor restores the model when it ends: use it in a `with` block")
        names = list(sample_ids or (str(self.seen + i) for i in range(len(images))))
        if len(names) != len(images):
            raise UserError(f"{len(names)} sample_ids for {len(images)} images: pass one for each")
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False):  # gradients can't be recorded inside
                return self(images, targets, sample_ids)
        self.seen += len(images)
        recorded = dict.fromkeys(layer for layer in self.layers.values() if layer)
        gradients = any(method.gradients for method in self.methods.values())
        passed = record(self.model, list(recorded), images, targets, gradients)
        _check_finite(passed, names)
        with torch.no_grad():
            maps = {name: self._map(name, method, passed, images, names) for name, method in self.methods.items()}
        several = passed.targets.shape[1] > 1 or (isinstance(targets, torch.Tensor) and targets.ndim == 2)
        if not several:
            maps = {name: heatmap[:, 0] for name, heatmap in maps.items()}
        return Found(passed.logits.detach(), passed.targets if several else passed.targets[:, 0], maps)

    def _map(
        self, name: str, method: Method, passed: Pass, images: torch.Tensor, sample_ids: Sequence[str]
    ) -> torch.Tensor:
        """Compute one method's heatmaps (B, K, h, w)."""
        columns = passed.targets.shape[1]
        if isinstance(method.function, str):
            return self._baseline(method.function, name, passed, images, sample_ids)
        found = []
        for column in range(columns):
            with torch.enable_grad():
                recording = passed.recording(self.layers[name], column)
                heatmap = method.function(recording).detach()
            if heatmap.ndim != 3 or len(heatmap) != len(images):
                raise UserError(
                    f"method {name} returned shape {tuple(heatmap.shape)} for {len(images)} images; "
                    f"wanted ({len(images)}, h, w)"
                )
            found.append(heatmap.float())
        return torch.stack(found, 1)

    def _baseline(
        self, kind: str, name: str, passed: Pass, images: torch.Tensor, sample_ids: Sequence[str]
    ) -> torch.Tensor:
        if kind == "random":
            height, width = passed.recording(self.layers[name], 0).activations.shape[2:]
            maps = [baselines.random((width, height), sample_id, self.seed) for sample_id in sample_ids]
        else:
            height, width = images.shape[2:]
            make = baselines.center if kind == "center" else baselines.full
            maps = [make((width, height))] * len(images)
        heatmaps = torch.stack([torch.from_numpy(heatmap) for heatmap in maps]).to(images)  # (B, h, w)
        return heatmaps[:, None].expand(-1, passed.targets.shape[1], -1, -1)


def _check_finite(passed: Pass, sample_ids: Sequence[str]) -> None:
    for layer, tensor in passed.handed_on.items():
        finite = tensor.detach().flatten(1).isfinite().all(1)
        if not bool(finite.all()):
            image = int((~finite).nonzero()[0])
            raise UserError(
                f"activations of layer {layer} are not finite for image {sample_ids[image]} "
                f"(number {image} in the batch): are the weights or the input broken?"
            )
