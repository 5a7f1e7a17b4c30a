"""One pass on noise shows which layers yield maps of the image, how these lie in memory, and what the last one is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from math import isclose
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wsol.errors import UserError
from wsol.models.inference import frozen, logits_of

INPUT = ":input"  # behind a layer's name: what goes into it
ATTENTION = ("aten::_scaled_dot_product", "aten::_native_multi_head_attention", "aten::_transformer_encoder_layer")
SHOWN = 6  # candidates in a refusal


@dataclass(frozen=True)
class Layout:
    """Where a tensor has its channels and its places: (B, K, h, w) unless something else is said."""

    channels_last: bool = False  # (B, h, w, K), as Swin's blocks yield it
    grid: tuple[int, int] | None = None  # (h, w) of tokens (B, N, K)
    dropped: tuple[int, ...] = ()  # those of the N that stand for no place: class, distillation, registers

    def as_map(self, tensor: torch.Tensor) -> torch.Tensor:
        """Lay a tensor, or its gradient, out as (B, K, h, w)."""
        if self.grid:
            kept = self._kept(tensor)
            straight = kept[-1] - kept[0] < len(kept)
            tokens = tensor[:, kept[0] : kept[-1] + 1] if straight else tensor[:, kept]
            return tokens.transpose(1, 2).unflatten(2, self.grid)
        return tensor.permute(0, 3, 1, 2) if self.channels_last else tensor

    def clear(self, tensor: torch.Tensor, channels: torch.Tensor) -> None:
        """Set one channel of each entry (N, …), channels (N,), to 0 at every place."""
        entries = torch.arange(len(tensor), device=tensor.device)
        if self.grid:
            tensor[entries[:, None], torch.tensor(self._kept(tensor)), channels[:, None]] = 0
        else:
            self.as_map(tensor)[entries, channels] = 0

    def _kept(self, tokens: torch.Tensor) -> list[int]:
        return [place for place in range(tokens.shape[1]) if place not in self.dropped]


@dataclass(frozen=True)
class Tap:
    """What a layer yields, or takes (`name:input`), in its last run."""

    name: str
    shape: tuple[int, ...]  # of a batch of one
    values: tuple[int, float, float, float]  # number, least, largest, sum of sizes: however they lie
    layout: Layout | None = None
    reason: str = ""  # why it is no map

    @property
    def size(self) -> tuple[int, ...]:
        """Channels, rows and columns of the map."""
        return tuple(self.layout.as_map(torch.empty(self.shape, device="meta")).shape[1:]) if self.layout else ()

    def equals(self, other: Tap) -> bool:
        """Whether both hold the same values."""
        return _equal(self.values, other.values)


@dataclass(eq=False)
class Trace:
    """What a pass on noise showed, in the order in which layers ended."""

    network: str
    classes: int = 0
    image: tuple[int, float, float, float] = (0, 0.0, 0.0, 0.0)  # values of the images themselves
    taps: dict[str, Tap] = field(default_factory=dict)
    runs: Counter[str] = field(default_factory=Counter)
    attention: list[str] = field(default_factory=list)  # modules that compare places with places, in order of calls
    random: str = ""  # the first module that draws random numbers
    fixed: set[str] = field(default_factory=set)  # modules without parameters
    kinds: dict[str, type] = field(default_factory=dict)

    @property
    def maps(self) -> list[Tap]:
        """Maps that layers yield."""
        return [tap for name, tap in self.taps.items() if tap.layout and not name.endswith(INPUT)]

    def layout(self, layer: str) -> Layout:
        """How what is taken at a layer lies as a map; a `UserError` with candidates where it is none."""
        tap = self.taps.get(layer)
        if tap is None:
            raise self.refusal(f"layer {layer} is not reached in the forward pass")
        if tap.layout is None:
            raise self.refusal(f"layer {layer} yields no map of the image: {tap.reason}")
        return tap.layout

    def refusal(self, text: str) -> UserError:
        """Say what is wrong, and which layers could be looked at instead, the last ones first."""
        last = dict.fromkeys(self._outermost(tap) for tap in reversed(self.maps))
        candidates = ", ".join(f"{tap.name} {tap.shape[1:]}" for tap in list(last)[:SHOWN])
        return UserError(f"{text}; choose another with layer=NAME{f', such as {candidates}' if candidates else ''}")

    def default(self) -> str:
        """Name the map that the literature would take.

        It is the last one: what a pooling module takes if no layer yields that; else what a layer yields, called by
        its outermost name. Of a vision transformer, whose tokens never change in number or hold some that stand for no
        place, it is what the last attention takes: behind it patches have no influence on the class token any more.
        """
        last = [tap for tap in self.taps.values() if tap.layout and self._may_be_last(tap)]
        last = last[: self._own_head(last)]
        if not last:
            raise self.refusal(f"no layer of this {self.network} yields a map (B, C, h, w)")
        dropped = [tap.shape[1] for tap in self.maps if tap.layout and tap.layout.dropped]
        changes = [one for one, two in pairwise([*dropped, 0]) if one != two]
        if len(changes) > len(set(changes)):
            raise self.refusal(f"this {self.network} has branches of {sorted(set(changes))} tokens, none the whole")
        chosen, attended = last[-1], self._last_attended()
        if attended is not None:
            chosen = attended
        elif chosen.layout and chosen.layout.dropped:
            raise self.refusal(f"nothing says which tokens of this {self.network} have influence on the logits")
        return self._outermost(chosen).name

    def _last_attended(self) -> Tap | None:
        """What the last attention of a vision transformer takes; None: this is none, or a hierarchical one."""
        all_taken = [self.taps[name + INPUT] for name in self.attention]
        taken = next((tap for tap in reversed(all_taken) if tap.layout and tap.layout.grid), None)
        if taken is None or taken.layout is None:
            return None
        one_size = len({tap.size[1:] for tap in self.maps}) == 1
        equal = next((tap for tap in self.maps if tap.equals(taken)), taken)
        return equal if taken.layout.dropped or one_size else None

    def _may_be_last(self, tap: Tap) -> bool:
        """Layers that run once; and what goes into a module without parameters that yields no map: a pooling."""
        name = tap.name.removesuffix(INPUT)
        taken = name != tap.name
        once = self.runs[name] == 1 and not _equal(tap.values, self.image)
        return once and (not taken or (name in self.fixed and not self.taps[name].layout))

    def _own_head(self, last: Sequence[Tap]) -> int | None:
        """Where a 1 × 1 convolution, and no linear layer, makes a channel for each class (Network in Network)."""
        if any(issubclass(kind, nn.Linear) for kind in self.kinds.values()):
            return None
        alike = [index for index, tap in enumerate(last) if tap.size[0] == self.classes and index]
        heads = [index for index in alike if issubclass(self.kinds.get(last[index].name, object), nn.Conv2d)]
        return heads[-1] if heads else None

    def _outermost(self, tap: Tap) -> Tap:
        """The layer of the shortest name that yields the same values, or else takes them."""
        alike = [other for other in self.taps.values() if other.layout and other.equals(tap)]
        same = [other for other in alike if self._may_be_last(other)]
        # Of several names of one length the last: what an activation or a norm is called that does nothing here.
        return min(reversed(same), key=lambda other: (other.name.endswith(INPUT), other.name.count(".")), default=tap)


def trace(
    model: nn.Module, image_size: tuple[int, int], prefix_tokens: int | Sequence[int] | None = None,
    like: torch.Tensor | None = None, channels: int = 3,
) -> Trace:  # fmt: skip
    """Run a network on noise of (height, width): two images that differ most in their upper left quarter.

    `prefix_tokens` are those that stand for no place: how many in front, or their positions; by default those that
    are the same for all images where tokens first have that number, else what the network says of itself.
    """
    like = next(model.parameters(), torch.empty(0)) if like is None else like
    images = torch.randn(2, channels, *image_size, generator=torch.Generator().manual_seed(0))
    images[1, :, image_size[0] // 2 :] *= 0.05
    images[1, :, :, image_size[1] // 2 :] *= 0.05
    images[1] += images[0]
    images = images.to(like.device, like.dtype)  # (2, C, H, W)
    watch = _Watch(model, image_size, prefix_tokens)
    watch.trace.image = _values(images)
    with frozen(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        with watch.hooked(), watch:
            answer = model.forward(images.clone())  # hooks on the network itself are for the images that it is shown
        if watch.trace.random and _same(answer, model.forward(images.clone())):
            watch.trace.random = ""
    return watch.finished(answer)


def _same(*answers: object) -> bool:
    """Whether two answers of a network hold the same numbers, up to rounding."""
    one, two = ([leaf for leaf in tree_leaves(answer) if isinstance(leaf, torch.Tensor)] for answer in answers)
    return all(float((a - b).abs().max()) <= 1e-3 * float(a.abs().max()) for a, b in zip(one, two, strict=True))


def colors(model: nn.Module) -> int:
    """Channels of the images that a network may take: those of its first convolution."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels


class _Watch(TorchDispatchMode):
    """Notes what goes into every module and comes out, where attention is calculated and random numbers are drawn."""

    def __init__(self, model: nn.Module, image_size: tuple[int, int], prefix: int | Sequence[int] | None) -> None:
        super().__init__()
        scripts = torch.jit.ScriptModule  # take no hooks
        self.names = {one: name for name, one in model.named_modules() if name and not isinstance(one, scripts)}
        self.image_size, self.asked, self.said = image_size, prefix, prefix_said(model)
        self.dropped: dict[int, tuple[int, ...]] = {}  # by number of tokens
        self.constant: set[str] = set()  # what is the same for both images
        self.stack: list[str] = []
        self.trace = Trace(type(model).__name__)
        self.trace.kinds = {name: type(module) for module, name in self.names.items()}
        self.trace.fixed = {name for module, name in self.names.items() if not any(True for _ in module.parameters())}
        self.parents = {name for module, name in self.names.items() if any(True for _ in module.children())}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name.startswith(ATTENTION) or (name.endswith("softmax") and _compares(*args[:2])):
            whole = [module for module in self.stack if module in self.parents]  # an nn.Softmax is part of one
            self.trace.attention += whole[-1:]
        elif torch.Tag.nondeterministic_seeded in func.tags and not self.trace.random:
            self.trace.random = self.stack[-1] if self.stack else self.trace.network
        return func(*args, **(kwargs or {}))

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Watch every module while the block runs."""
        with ExitStack() as stack:
            for module, name in self.names.items():
                enter, leave = partial(self._enter, name), partial(self._leave, name)
                stack.enter_context(module.register_forward_pre_hook(enter, with_kwargs=True))
                stack.enter_context(module.register_forward_hook(leave))
            yield

    def _enter(self, name: str, _: nn.Module, args: Any, kwargs: Any) -> None:
        self.stack.append(name)
        self._note(name + INPUT, first_tensor(args, kwargs))

    def _leave(self, name: str, _: nn.Module, __: Any, output: Any) -> None:
        self.stack.pop()
        self.trace.runs[name] += 1
        self._note(name, output)

    def _note(self, name: str, value: object) -> None:
        self.trace.taps.pop(name, None)
        self.trace.taps[name] = self._tap(name, value)

    def _tap(self, name: str, value: object) -> Tap:
        """Judge a value: whether it is a map, and else why not."""
        nothing = (0, 0.0, 0.0, 0.0)
        if not isinstance(value, torch.Tensor):
            return Tap(name, (), nothing, reason=f"it is a {type(value).__name__}, not a tensor")
        shape = (1, *value.shape[1:])
        if value.is_meta or value.is_quantized or value.is_nested or not value.is_floating_point():
            return Tap(name, shape, nothing, reason=f"it is a {value.dtype} tensor")
        if len(value) != 2 or value.ndim not in (3, 4):
            batch, images = tuple(value.shape), "windows or parts of" if len(value) % 2 == 0 else "not each of"
            return Tap(name, shape, nothing, reason=f"its shape for 2 images, {batch}, shows {images} the images")
        numbers = _values(value)
        if constant := torch.equal(value[0], value[1]):
            self.constant.add(name)
        layout = self._tokens(value, constant) if value.ndim == 3 else self._map(value)
        reason = "" if layout else f"its shape {tuple(value.shape[1:])} has not the aspect of {self.image_size}"
        return Tap(name, shape, numbers, layout, reason)

    def _map(self, value: torch.Tensor) -> Layout | None:
        first, last = fits(value.shape[2:], self.image_size), fits(value.shape[1:3], self.image_size)
        if first and last:  # (B, 8, 8, 8): the quarter that differs says where the image's sides are
            change = (value[1] - value[0]).abs().double()
            ahead, behind = (change.sum([a for a in range(3) if a != axis]) for axis in (0, 2))
            last = _uneven(ahead) > 1.2 and _uneven(behind) < 1.1
        return Layout(channels_last=last) if first or last else None

    def _tokens(self, value: torch.Tensor, constant: bool) -> Layout | None:
        count = value.shape[1]
        if count not in self.dropped and not constant:
            self.dropped[count] = tuple((value[0] == value[1]).all(1).nonzero()[:, 0].tolist())
        for dropped in (self.dropped.get(count, ()), self.said) if self.asked is None else (self.asked,):
            places = tuple(range(dropped)) if isinstance(dropped, int) else tuple(p % count for p in sorted(dropped))
            if grid := token_grid(count - len(places), self.image_size):
                return Layout(grid=grid, dropped=places)
        return None

    def finished(self, answer: object) -> Trace:
        """What lies inside attention, or is the same for all images, is no map; and how many classes there are."""
        owners = tuple({f"{name}." for name in self.trace.attention})
        leaves = [leaf for leaf in tree_leaves(answer) if isinstance(leaf, torch.Tensor) and leaf.ndim]
        if all(torch.equal(leaf[0], leaf[1]) for leaf in leaves if len(leaf) == 2):
            self.constant.clear()  # a network at its start whose signal dies away
        for name, tap in self.trace.taps.items():
            if tap.layout and (name in self.constant or name.startswith(owners)):
                reason = "it does not depend on the image" if name in self.constant else "it lies inside attention"
                self.trace.taps[name] = replace(tap, layout=None, reason=reason)
        with suppress(UserError):  # what a score function is for
            self.trace.classes = logits_of(answer).shape[1]
        return self.trace


def _values(tensor: torch.Tensor) -> tuple[int, float, float, float]:
    low, high = tensor.aminmax()
    return tensor.numel(), float(low), float(high), float(tensor.abs().sum(dtype=torch.float64))


def _equal(one: tuple[int, float, float, float], other: tuple[int, float, float, float]) -> bool:
    return one[:3] == other[:3] and isclose(one[3], other[3], rel_tol=1e-11)


def _compares(scores: torch.Tensor, axis: int) -> bool:
    """Whether a softmax along this axis is attention: scores (…, N, M) of places."""
    return scores.ndim >= 3 and axis % scores.ndim == scores.ndim - 1 and scores.shape[-1] > 1


def _uneven(change: torch.Tensor) -> float:
    """How far a change along an axis lies in its first half."""
    half = max(1, len(change) // 2)
    return float(change[:half].mean() / change.mean().clamp(min=1e-30))


def first_tensor(args: Sequence[object], kwargs: Mapping[str, object]) -> object:
    """The first tensor that a module is given."""
    return next((leaf for leaf in tree_leaves([args, kwargs]) if isinstance(leaf, torch.Tensor)), None)


def prefix_said(model: nn.Module) -> int:
    """How many tokens stand before the patches, as timm's networks and the configurations of transformers say."""
    said = getattr(model, "num_prefix_tokens", None)
    registers = getattr(getattr(model, "config", None), "num_register_tokens", None)
    return said if isinstance(said, int) else 1 + int(registers or 0)


def fits(sides: Sequence[int], image_size: tuple[int, int]) -> bool:
    """Whether a map of (rows, columns) has the image's aspect; convolutions without padding may have cut it."""
    (rows, columns), (height, width) = sides, image_size
    if rows * columns == 1 or height == width:
        return rows == columns > 1
    off = abs(rows * width - columns * height)
    return off <= max(height, width, 0.25 * rows * width)


def token_grid(count: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of a number of tokens that cover an image with square patches; None if they can't."""
    height, width = image_size
    rows = round((count * height / width) ** 0.5) if count > 1 else 0
    if rows and count % rows == 0 and rows * width == count // rows * height:
        return rows, count // rows
    return None
