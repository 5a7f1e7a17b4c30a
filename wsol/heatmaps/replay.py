"""Run on from a layer: only what stands behind it, on activations that were changed.

For each image the network runs once, and every outermost module that finishes before the layer does leaves its outputs
behind, to be handed out instead of running again. As they can't depend on the layer's output, the answer is the whole
network's, whatever shortcuts lead around the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from wsol.errors import UserError
from wsol.models import find_layer
from wsol.models.inference import logits_of
from wsol.models.trace import INPUT, first_tensor

if TYPE_CHECKING:
    from wsol.heatmaps.recording import Recording

# How far logits may be apart, as a share of their spread and of their size: sums in another order, coarse ones on GPUs.
_TOLERANCES = {"double": (1e-8, 1e-9), "single": (1e-4, 1e-5), "gpu": (5e-3, 1e-3), "half": (0.05, 0.05)}


def tolerances(*tensors: torch.Tensor) -> tuple[float, float]:
    """How far what these give may be off, as a share of its spread and of its size."""
    half = {tensor.dtype for tensor in tensors} & {torch.float16, torch.bfloat16}
    precise = "double" if tensors[0].dtype == torch.float64 else "single" if tensors[0].device.type == "cpu" else "gpu"
    return _TOLERANCES["half" if half else precise]


class Replay:
    """The part of a network behind a layer, as a function of the layer's output; image by image.

    The recording proves it: what is behind the layer must give its logits again for its own output.
    """

    def __init__(self, recording: Recording) -> None:
        self.model, self.layer = recording.model, recording.layer
        self.target, self.takes = find_layer(self.model, self.layer), self.layer.endswith(INPUT)
        self.runs = recording.trace.runs[self.layer.removesuffix(INPUT)]  # the last of them counts
        self.images, self.output, self.logits = recording.images, recording.output, recording.logits
        self.precision = recording.precision
        self._image: int | None = None  # the one whose outputs are kept
        self._kept: dict[nn.Module, list[Any]] = {}
        self._copies = False  # whether each activation gets copies of its own of them

    def __call__(self, activations: torch.Tensor, image: int) -> torch.Tensor:
        """Logits (N, C) of activations (N, …) in the layer's own layout that take the place of one image's."""
        if image != self._image:
            self._prepare(image)
        return self._behind(activations)

    def _prepare(self, image: int) -> None:
        """Keep what stands below the layer for an image, and prove that the rest gives its logits."""
        self._image, self._kept = image, self._outputs_below(image)
        twice = self.output[image].expand(2, *self.output.shape[1:])
        shared = [leaf for leaf in tree_leaves(list(self._kept.values())) if isinstance(leaf, torch.Tensor)]
        versions, logits = [leaf._version for leaf in shared], None
        with suppress(RuntimeError):  # most likely something works in place on what all activations share
            logits = self._behind(twice)
        if logits is None or versions != [leaf._version for leaf in shared]:
            self._copies, self._kept = True, self._outputs_below(image)
            logits = self._behind(twice)
        expected = self.logits[image]
        difference, (share, floor) = float((logits - expected).abs().max()), tolerances(logits, self.output)
        spread = float((expected - expected.mean()).abs().max())  # a bias that all share proves nothing
        if difference > share * spread + floor * float(expected.abs().max()):
            raise UserError(
                f"what stands behind layer {self.layer} gives other logits (by {difference:.2g}) when it runs again: "
                f"something there works on the layer's output in place, or a hook changes it; choose a later layer"
            )

    def _behind(self, activations: torch.Tensor) -> torch.Tensor:
        assert self._image is not None
        image = self.images[self._image : self._image + 1]
        with torch.no_grad(), self.precision(), self._patched(activations):
            return logits_of(self.model(self._repeated(image, len(activations))))

    def _repeated(self, value: torch.Tensor, count: int) -> torch.Tensor:
        shared = value.expand(count, *value.shape[1:])
        # What is written to in place must not be shared; with one activation nothing would complain.
        return shared.clone() if self._copies or count == 1 else shared

    def _outputs_below(self, image: int) -> dict[nn.Module, list[Any]]:
        """Run one image and keep the outputs of the outermost modules that finish before the target's last run."""
        running: list[nn.Module] = []
        finished: list[tuple[nn.Module | None, nn.Module, Any]] = []  # parent, module, output; outermost only
        kept: dict[nn.Module, list[Any]] = {}
        left = self.runs

        def reach() -> None:
            """Keep what has finished, unless it is inside the target, which is replaced as a whole."""
            for parent, done, value in finished:
                if parent in running:
                    kept.setdefault(done, []).append(value)

        def enter(module: nn.Module, _: object) -> None:
            """Note that a module runs."""
            nonlocal left
            if self.takes and module is self.target:
                left -= 1
                if not left:
                    reach()
            running.append(module)

        def leave(module: nn.Module, _: object, output: Any) -> None:
            """Keep the output of a module that ended before the target; the outermost stands for those inside it."""
            nonlocal left
            running.pop()
            if not left:
                return
            if module is self.target and not self.takes:
                left -= 1
                if not left:
                    reach()
                    return
            finished[:] = [row for row in finished if row[0] is not module]
            copy = tree_map_only(torch.Tensor, torch.clone, output)  # it may yet be changed in place
            finished.append((running[-1] if running else None, module, copy))

        with ExitStack() as stack, torch.no_grad(), self.precision():
            for module in self.model.modules():
                if isinstance(module, torch.jit.ScriptModule):
                    continue  # takes no hooks: it runs again
                stack.enter_context(module.register_forward_pre_hook(enter))
                stack.enter_context(module.register_forward_hook(leave))
            self.model(self.images[image : image + 1].clone())
        return kept

    @contextmanager
    def _patched(self, activations: torch.Tensor) -> Iterator[None]:
        """Make the modules below hand out what they kept, for as many activations as there are."""

        def repeated(value: torch.Tensor) -> torch.Tensor:
            return self._repeated(value, len(activations)) if value.ndim > 1 and len(value) == 1 else value

        def stub(outputs: list[Any], forward: Any) -> Any:
            left = list(outputs)  # a module may run again behind the layer
            return lambda *args, **kwargs: (
                tree_map_only(torch.Tensor, repeated, left.pop(0)) if left else forward(*args, **kwargs)
            )

        def last_run(*args: Any, **kwargs: Any) -> Any:
            changed = activations.clone()  # the caller's stay as they are
            if not self.takes:
                return changed
            tensor = first_tensor(args, kwargs)
            args, kwargs = tree_map(lambda leaf: changed if leaf is tensor else leaf, (args, kwargs))
            return plain(*args, **kwargs)

        plain = self.target.forward
        replaced = {module: stub(outputs, module.forward) for module, outputs in self._kept.items()}
        replaced[self.target] = stub(self._kept.get(self.target, []), last_run)
        before = {module: vars(module).get("forward") for module in replaced}
        hook = self.target.register_forward_hook(lambda *_: None)  # keeps transformers from calculating around it
        try:
            for module, forward in replaced.items():
                module.forward = forward
            yield
        finally:
            hook.remove()
            for module, forward in before.items():
                vars(module).pop("forward", None)
                if forward is not None:
                    module.forward = forward
