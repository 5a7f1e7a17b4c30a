"""A network as it is run here: on which device, frozen, in which memory, with batch normalization folded away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models import densenet, resnet
from torchvision.models.googlenet import BasicConv2d as GoogLeNetConv2d
from torchvision.models.inception import BasicConv2d as InceptionConv2d

from wsol.errors import UserError

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]
FEWEST = 4  # images: measured on ResNet-50 and MobileNet-V2, with fewer the folding takes longer than it saves
UNCHANGED = nn.Identity().forward
# Blocks whose forward method hands these convolutions' outputs to these normalizations, and to nothing else.
BLOCKS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    resnet.BasicBlock: (("conv1", "bn1"), ("conv2", "bn2")),
    resnet.Bottleneck: (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    resnet.ResNet: (("conv1", "bn1"),),
    densenet._DenseLayer: (("conv1", "norm2"),),
    GoogLeNetConv2d: (("conv", "bn"),),
    InceptionConv2d: (("conv", "bn"),),
}


def choose_device(name: str = "auto") -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1", "mps" into a device; auto takes a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device={name} can't be used: {error}; pass device=cpu or device=auto") from error
    return device


def unwrap(module: nn.Module) -> nn.Module:
    """Take the network out of `torch.compile` and `DataParallel` wrappers; any other module as it is.

    Examples
    --------
    >>> inner = nn.Linear(2, 2)
    >>> unwrap(nn.DataParallel(inner)) is inner
    True
    """
    parallel = isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)
    inner = getattr(module, "module" if parallel else "_orig_mod", None)
    return unwrap(inner) if isinstance(inner, nn.Module) else module


def logits_of(output: object, network: str = "the network") -> torch.Tensor:
    """Take the logits (B, C) from what a network returns: auxiliary ones come behind them, or each has a name.

    Where there are none, or several tables that differ in shape, a `UserError` names the network.

    Examples
    --------
    >>> logits_of({"loss": None, "logits": torch.zeros(2, 7)}).shape
    torch.Size([2, 7])
    """
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if isinstance(logits, tuple | list):
        tables = [entry for entry in logits if isinstance(entry, torch.Tensor) and entry.ndim == 2]
        if len({entry.shape for entry in tables}) > 1:
            shapes = ", ".join(f"{index}: {tuple(getattr(entry, 'shape', ()))}" for index, entry in enumerate(logits))
            raise UserError(f"{network} returns several tensors ({shapes}): say which are the logits, output=NUMBER")
        logits = next(iter(tables), logits)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        answer = f"shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(output).__name__
        keys = f" with {', '.join(map(str, output))} (output=KEY takes one)" if isinstance(output, Mapping) else ""
        raise UserError(f"{network} answers with {answer}{keys}; wrap it in a module that returns its logits (B, C)")
    return logits


def answer_with(module: nn.Module, output: int | str) -> AbstractContextManager[object]:
    """Let a network return one entry of what it returns, until the context that is handed back ends."""

    def take(_: nn.Module, __: object, answer: Any) -> Any:
        try:
            return answer[output]
        except (LookupError, TypeError) as error:
            raise UserError(f"output={output}: the network returns a {type(answer).__name__} without it") from error

    return unwrap(module).register_forward_hook(take)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluate with parameters that get no gradients; every mode and flag is as before when the block ends."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            # A mode that does more than to set its flag (LoRA merges its weights and takes them apart) is asked for.
            if module.training != training and type(module).train is not nn.Module.train:
                module.train(training)
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)


@contextmanager
def channels_last(model: nn.Module) -> Iterator[None]:
    """Keep four-dimensional weights in channels-last memory; each has its own memory back when the block ends."""
    changed = [w for w in model.parameters() if w.ndim == 4 and not w.is_contiguous(memory_format=torch.channels_last)]
    originals = [weight.data for weight in changed]  # which others may share, and see
    try:
        for weight in changed:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        yield
    finally:
        for weight, original in zip(changed, originals, strict=True):
            if not torch.equal(weight.data, original):
                original.copy_(weight.data)
            weight.data = original


def wants_own_memory(error: RuntimeError) -> bool:
    """Whether a network failed because its maps lay in channels-last memory: `x.view(len(x), -1)` can't read it."""
    return "view size is not compatible" in str(error)


def prefer_channels_last(model: nn.Module, size: tuple[int, int], device: torch.device) -> None:
    """Bring a network for images of (height, width) into channels-last memory, and back if it doesn't run there."""
    model.to(memory_format=torch.channels_last)
    images = torch.zeros(2, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    try:
        with frozen(model), torch.no_grad():
            model(images)
    except RuntimeError as error:  # any other one comes again, where there is more to say about it
        if wants_own_memory(error):
            model.to(memory_format=torch.contiguous_format)


class Folding:
    """Batch normalizations of a network folded into the convolutions before them, where no graph is built.

    On a CPU a normalization takes as long as reading and writing all activations; folded into the weights it takes
    nothing, and the answer is the same up to rounding. A pair is folded only while the block that it belongs to runs,
    so that a network that calls the same modules one by one gets their own outputs; and only where no graph is built,
    so that gradients are the network's own. Half precision is left alone: folded weights would be rounded differently.
    """

    def __init__(self, model: nn.Module) -> None:
        places = Counter(child for module in model.modules() for child in module._modules.values())
        self._blocks: list[tuple[nn.Module, list[Pair]]] = []
        for block in model.modules():
            pairs = [pair for pair in _pairs(block) if places[pair[0]] == places[pair[1]] == 1]
            if pairs:
                self._blocks.append((block, pairs))
        self._weights: dict[nn.Conv2d, tuple[torch.Tensor, torch.Tensor]] = {}

    def forget(self) -> None:
        """Drop folded weights: those of the modules may have changed since."""
        self._weights.clear()

    @contextmanager
    def active(self, images: int) -> Iterator[None]:
        """Run pairs folded while this block lasts, in which weights stay as they are; for a few images nothing is."""
        with ExitStack() as stack:
            for block, pairs in self._blocks if images >= FEWEST else ():
                if "forward" in vars(block):
                    continue
                vars(block)["forward"] = partial(self._run, block, block.forward, pairs)
                stack.callback(vars(block).pop, "forward", None)
            yield

    def _run(self, block: nn.Module, forward: Any, pairs: list[Pair], *args: Any, **kwargs: Any) -> Any:
        """Run a block's own forward method with its pairs folded."""
        folded = [] if torch.is_grad_enabled() else [pair for pair in pairs if _can_fold(*pair)]
        try:
            for convolution, normalization in folded:
                weight, bias = self._fold(convolution, normalization)
                vars(convolution)["forward"] = partial(convolution._conv_forward, weight=weight, bias=bias)
                vars(normalization)["forward"] = UNCHANGED
            return forward(*args, **kwargs)
        finally:
            for module in (module for pair in folded for module in pair):
                vars(module).pop("forward", None)

    def _fold(self, convolution: nn.Conv2d, normalization: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
        """W' = W γ / √(σ² + ε) and b' = (b − μ) γ / √(σ² + ε) + β."""
        if convolution not in self._weights:
            statistics: Any = normalization.running_mean, normalization.running_var, normalization.eps
            parts = convolution.weight, convolution.bias, *statistics, normalization.weight, normalization.bias
            self._weights[convolution] = fuse_conv_bn_weights(*parts)
        return self._weights[convolution]


def _pairs(block: nn.Module) -> list[Pair]:
    """Convolutions and normalizations of a block of which nothing but the normalization sees the convolution."""
    plain = getattr(type(block), "forward", None) is nn.Sequential.forward
    neighbors = list(pairwise(block._modules.values())) if plain else []
    neighbors += [(getattr(block, first), getattr(block, second)) for first, second in BLOCKS.get(type(block), ())]
    return [(one, two) for one, two in neighbors if type(one) is nn.Conv2d and type(two) is nn.BatchNorm2d]


def _can_fold(convolution: nn.Conv2d, normalization: nn.BatchNorm2d) -> bool:
    """Whether nobody else looks at this pair now, it normalizes by what it has learned, and it is exact enough."""
    for module in (convolution, normalization):
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        if any(hooks) or "forward" in vars(module):
            return False
    weight, mean = convolution.weight, normalization.running_mean
    exact = weight.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(weight.device.type)
    return exact and not normalization.training and mean is not None and mean.dtype == weight.dtype
