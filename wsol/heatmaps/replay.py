"""Run on from a layer: only what stands behind it, on activations that were changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from wsol.errors import UserError
from wsol.models import find_layer, logits_of, unwrap

__all__ = ["Replay", "beyond_rounding"]

# How far logits may be apart, as a share of their spread and of their size: sums in another order, coarse ones on GPUs.
_TOLERANCES = {"double": (1e-8, 1e-9), "single": (1e-4, 1e-5), "gpu": (5e-3, 1e-3), "half": (0.05, 0.05)}


def beyond_rounding(again: torch.Tensor, logits: torch.Tensor, dtype: torch.dtype) -> float:
    """By how much logits (B, C) are apart from those of another pass that began in some precision; 0: by rounding only.

    Examples
    --------
    >>> logits = torch.tensor([[20.0, 21.0]])
    >>> beyond_rounding(logits + 1e-5, logits, logits.dtype), beyond_rounding(logits + 0.5, logits, logits.dtype)
    (0.0, 0.5)
    """
    apart = float((again - logits).abs().max())
    spread = float((logits - logits.mean(1, keepdim=True)).abs().max())  # a bias that all share proves nothing
    precise = "double" if again.dtype == torch.float64 else "single" if again.device.type == "cpu" else "gpu"
    half = {again.dtype, dtype} & {torch.float16, torch.bfloat16}
    share, floor = _TOLERANCES["half" if half else precise]
    return 0.0 if apart <= share * spread + floor * float(logits.abs().max()) else apart


class Replay:
    """The part of a network behind a layer, as a function of the layer's output.

    For each image the network runs once, and every outermost module that finishes before the layer does leaves its
    outputs behind. When it runs again, those modules hand these out instead of running. As they can't depend on the
    layer's output, the answer is the whole network's, whatever shortcuts lead around the layer. The outputs of one
    image are kept at a time, so go image by image.

    Parameters
    ----------
    model : nn.Module
        In eval mode.
    layer : str
        Dotted name.
    images : tensor (B, 3, H, W)
    proof : (tensor (B, …), tensor (B, C)), optional
        The layer's own outputs and the logits that followed: what is behind the layer must give them again.

    Raises
    ------
    UserError
        When called, if it doesn't: where something behind the layer works in place on its output, for example.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    >>> images = torch.rand(2, 3, 8, 8)
    >>> behind = Replay(model, "0", images)
    >>> changed = torch.zeros(5, 4, 6, 6)
    >>> behind(changed, image=1).shape
    torch.Size([5, 4])
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str,
        images: torch.Tensor,
        proof: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        self.layer, self.proof = layer, proof
        self.model, self.target, self.images = unwrap(model), find_layer(model, layer), images
        self._image: int | None = None  # the one whose outputs are kept
        self._kept: dict[nn.Module, list[Any]] = {}
        self._copies = False  # whether each activation gets copies of its own of them

    def __call__(self, activations: torch.Tensor, image: int) -> torch.Tensor:
        """Logits (N, C) of activations (N, …) in the layer's own layout that take the place of one image's."""
        shown = self.images[image : image + 1].clone()
        if image != self._image:
            self._kept, self._image = self._outputs_below(shown), image
            if self.proof is not None:
                self._prove(*(value[image : image + 1] for value in self.proof))
        if not self._copies:
            leaves = tree_leaves((shown, [*self._kept.values()]))
            shared = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
            versions = [tensor._version for tensor in shared]
            with suppress(RuntimeError):  # most likely something works in place on what all activations share
                logits = self._behind(activations, shown)
                if versions == [tensor._version for tensor in shared]:
                    return logits
            self._copies = True
            shown = self.images[image : image + 1].clone()
            self._kept = self._outputs_below(shown)
        try:
            return self._behind(activations, shown)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UserError(
                f"what stands behind layer {self.layer} does not run alone on {len(activations)} changed activations "
                f"of one image ({error}); choose a later layer, or a method that needs no such thing: gradcam, scorecam"
            ) from error

    def _prove(self, output: torch.Tensor, logits: torch.Tensor) -> None:
        assert self._image is not None
        again = self(output, self._image)
        apart = beyond_rounding(again, logits, output.dtype)
        if apart:
            raise UserError(
                f"what stands behind layer {self.layer} gives other logits (by {apart:.2g}) when it runs again on the "
                f"layer's own output: something there works on it in place, or a hook changes it; choose a later "
                f"layer, such as the block that this one belongs to"
            )

    def _behind(self, activations: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), self._patched(activations):
            output = self.model(self._repeated(shown, len(activations)))
        return logits_of(output)

    def _repeated(self, value: torch.Tensor, count: int) -> torch.Tensor:
        shared = value.expand(count, *value.shape[1:])
        # What is written to in place must not be shared; with one activation nothing would complain.
        return shared.clone() if self._copies or count == 1 else shared

    def _outputs_below(self, shown: torch.Tensor) -> dict[nn.Module, list[Any]]:
        """Run one image and keep the outputs of the outermost modules that finish before the target layer."""
        inside: list[nn.Module] = []  # modules that run at this moment
        finished: list[tuple[nn.Module | None, nn.Module, Any]] = []  # parent, module, output; outermost only
        kept: dict[nn.Module, list[Any]] = {}
        reached = False

        def copy(value: Any) -> Any:
            return value.clone() if isinstance(value, torch.Tensor) else value  # it may yet be changed in place

        def enter(module: nn.Module, _: object) -> None:
            inside.append(module)

        def leave(module: nn.Module, _: object, output: Any) -> None:
            nonlocal reached
            inside.pop()
            if reached:
                return
            if module is self.target:
                reached = True
                for parent, done, found in finished:
                    if parent in set(inside):  # not inside the target, which is replaced as a whole
                        kept.setdefault(done, []).append(found)
            else:
                finished[:] = [row for row in finished if row[0] is not module]
                finished.append((inside[-1] if inside else None, module, tree_map(copy, output)))

        hooks = []
        for module in self.model.modules():
            hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        try:
            with torch.no_grad():
                self.model(shown.clone())
        finally:
            for hook in hooks:
                hook.remove()
        return kept

    @contextmanager
    def _patched(self, activations: torch.Tensor) -> Iterator[None]:
        """Make the modules below hand out what they kept, for as many activations as there are."""

        def repeated(value: Any) -> Any:
            if isinstance(value, torch.Tensor) and value.ndim > 1 and len(value) == 1:
                return self._repeated(value, len(activations))
            return value

        def stub(outputs: list[Any], forward: Any) -> Any:
            left = list(outputs)  # a module may run again behind the layer
            return lambda *args, **kwargs: tree_map(repeated, left.pop(0)) if left else forward(*args, **kwargs)

        asked = []  # whether the layer ran; a hook also keeps transformers from calculating around it
        hook = self.target.register_forward_hook(lambda *_: asked.append(True))
        touched = [(module, vars(module).get("forward")) for module in (*self._kept, self.target)]
        try:
            for module, outputs in self._kept.items():
                module.forward = stub(outputs, module.forward)
            self.target.forward = lambda *args, **kwargs: activations.clone()  # the caller's stay as they are
            yield
            if not asked:
                raise UserError(f"layer {self.layer} does not run when the network runs again; choose a later layer")
        finally:
            hook.remove()
            for module, own in touched:
                vars(module).pop("forward", None)
                if own is not None:
                    module.forward = own
