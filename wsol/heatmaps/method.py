"""What a method is: a decorated function of a recording, or a baseline, with the layers it looks at.

A method is one function under `@method` in its family's file and one file in `conf/method/`, whose `about` says what
is shown of it. Nothing here imports torch: families are loaded when one of their methods is made.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import yaml

from wsol.errors import UserError, suggest
from wsol.io import conf_dir
from wsol.settings import settings

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "BASELINES", "FAMILIES", "Method", "MethodCard", "Requirements", "builtin_methods", "check_score", "expand_layers",
    "layer_names", "make_method", "method", "method_cards",
]  # fmt: skip

BASELINES = ("center", "random", "full")
FAMILIES = ("activation", "gradient", "perturbation", "pixel", "transformer")  # files of this folder
FUSIONS = ("max", "mean")
SCORES = ("logit", "log_prob", "prob", "rest")

Function = Callable[..., "Tensor"]
Needs = Literal["images", "activations", "gradients", "curvature", "attention"]


@dataclass(frozen=True)
class Requirements:
    """What a method needs of the pass, and the score it takes unless told otherwise (None: none, or one of its own).

    "images": the network alone, to run it further times; "activations": a target layer; "gradients": and the score's
    gradients there; "curvature": and its second derivatives; "attention": what went into a transformer's blocks.
    """

    needs: Needs = "gradients"
    score: str | None = "logit"

    @property
    def layer(self) -> bool:
        """Whether it looks at a target layer."""
        return self.needs in ("activations", "gradients", "curvature")


def method(needs: Needs = "gradients", score: str | None = "logit") -> Callable[[Function], Function]:
    """Make a function of a recording a method: its code and what it needs stand together.

    Your own functions work without; decorate one that needs more or less than a layer and its gradients.
    """

    def mark(function: Function) -> Function:
        vars(function)["requirements"] = Requirements(needs, score)
        return function

    return mark


def builtin_methods() -> dict[str, Function]:
    """Every decorated function of our families by name; loads them, and torch."""
    modules = [importlib.import_module(f"wsol.heatmaps.{family}") for family in FAMILIES]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if hasattr(value, "requirements") and value.__module__ == module.__name__
    }


@dataclass(frozen=True)
class MethodCard:
    """What is shown of a method: its name in sentences, the file of its formula, one line, and the paper."""

    title: str
    family: str
    summary: str
    paper: str = ""


@cache
def method_cards() -> dict[str, MethodCard]:
    """Read what is shown of every method from `conf/method/`, by family and name; needs no torch."""
    paths = sorted((conf_dir() / "method").glob("*.yaml"))
    cards = {path.stem: MethodCard(**yaml.safe_load(path.read_text(encoding="utf-8"))["about"]) for path in paths}
    order = [*FAMILIES, "baseline"]
    return dict(sorted(cards.items(), key=lambda item: order.index(item[1].family)))


@dataclass(frozen=True, eq=False)
class Method:
    """A heatmap method, ready to run; `make_method` makes it.

    Parameters
    ----------
    function : callable or str
        `function(recording) -> (B, h, w)`; or the name of a baseline, which sees no recording.
    layer : str or tuple of str, optional
        Dotted name of the target layer, or of several; None: the classifier's default.
    fuse : "max" or "mean", optional
        How the maps of several layers become one; None: each is a method of its own, `method@layer`.
    requirements : Requirements
        What it needs; by default a layer and gradients.
    score : str, optional
        "logit", "log_prob", "prob" or "rest"; None: what the extractor or the method itself says.
    """

    function: Function | str
    layer: str | tuple[str, ...] | None = None
    fuse: str | None = None
    requirements: Requirements = Requirements()
    score: str | None = None

    @property
    def baseline(self) -> str | None:
        """Name of the baseline that this is, or None."""
        return self.function if isinstance(self.function, str) else None

    @property
    def function_name(self) -> str:
        """Name of the function, for the records of a run."""
        if isinstance(self.function, str):
            return self.function
        function = self.function.func if isinstance(self.function, partial) else self.function
        return getattr(function, "__name__", type(function).__name__)

    @property
    def layers(self) -> tuple[str, ...]:
        """Its target layers: none, one or several."""
        return () if not self.layer else (self.layer,) if isinstance(self.layer, str) else self.layer


def make_method(
    function: str | Function,
    layer: str | int | Sequence[str | int] | None = None,
    fuse: str | None = None,
    score: str | None = None,
    about: object = None,
    **options: Any,
) -> Method:
    """Make a method from a name of ours, a dotted path to your own function, or the function itself.

    Parameters
    ----------
    function : str or callable
        "cam", "gradcam", "center", …; "my_methods.energy"; or `f(recording, **options) -> (B, h, w)`.
    layer : str or sequence of str, optional
        Dotted name of the target layer, or of several; the layers of a Sequential may be numbers.
    fuse : "max" or "mean", optional
        With several layers: how their maps become one; by default they are kept apart as `method@layer`.
    score : "logit", "log_prob", "prob" or "rest", optional
        What is differentiated; by default the logit (ShapleyCAM: `rest`, y_c + log p_c; RISE and occlusion: `prob`).
        CAM, Eigen-CAM, KPCA-CAM, FEM, Finer-CAM and rollout take none.
    about : mapping, optional
        What a method's file says for readers; ignored here.
    **options
        Passed to the function each time.

    Raises
    ------
    UserError
        If the name is unknown (naming the nearest), can't be imported, or doesn't take the options.

    Examples
    --------
    >>> make_method("gradcam", layer="layer3").layer
    'layer3'
    >>> make_method("layercam", layer=["layer3", "layer4"], fuse="max").layer
    ('layer3', 'layer4')
    """
    layers = layer_names(layer)
    if isinstance(function, str) and function in BASELINES:
        if options or layers or fuse or score:
            raise UserError(f"{function} sees no network: it takes neither a layer nor {list(options) or 'options'}")
        # Noise has the size of a layer's maps.
        return Method(function, requirements=Requirements("activations" if function == "random" else "images", None))
    code = _find(function) if isinstance(function, str) else function
    requirements = getattr(code, "requirements", Requirements())
    _check_options(str(function), code, options)
    if score is not None and requirements.score is None:
        raise UserError(f"method {function} looks at no score, or at one of its own: leave out score")
    if (layers or fuse) and not requirements.layer:
        raise UserError(f"method {function} looks at no layer: leave out layer and fuse")
    if fuse is not None and (fuse not in FUSIONS or not isinstance(layers, tuple)):
        raise UserError(f"fuse={fuse!r}: pass one of {', '.join(FUSIONS)}, and layer=[…] with the layers to fuse")
    return Method(partial(code, **options), layers, fuse, requirements, check_score(score))


def check_score(score: str | None) -> str | None:
    """Hand a score's name back, or refuse it."""
    if score is not None and score not in SCORES:
        raise UserError(f"score={score!r}: pass one of {', '.join(SCORES)}")
    return score


def layer_names(layer: str | int | Sequence[str | int] | None) -> str | tuple[str, ...] | None:
    """Names of target layers as text: YAML reads those of a Sequential as numbers."""
    if layer is None or isinstance(layer, str):
        return layer
    names = list(layer) if isinstance(layer, Iterable) else [layer]
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | Integral):
            raise UserError(
                f"layer={layer!r}: pass a layer's dotted name as text (in quotes where it looks like a number, '2.1'), "
                f"or a list of such names"
            )
    return tuple(str(name) for name in names) or None if isinstance(layer, Iterable) else str(layer)


def expand_layers(methods: Mapping[str, Method], default: str | Sequence[str] | None = None) -> dict[str, Method]:
    """Make one method of each layer, `method@layer`, where a method has several and doesn't fuse them.

    `default` has the layers of methods that name none.
    """
    expanded: dict[str, Method] = {}
    for name, method in methods.items():
        layers = method.layer or (default if method.requirements.layer else None)
        if layers is None or isinstance(layers, str) or method.fuse:
            expanded[name] = replace(method, layer=layers if layers is None else layer_names(layers))
            continue
        by_layer = {f"{name}@{layer}": replace(method, layer=layer) for layer in layers}
        taken = by_layer.keys() & (expanded.keys() | methods.keys())
        if taken:
            raise UserError(f"two methods are called {min(taken)}: give one of them another name")
        expanded |= by_layer
    return expanded


def _find(name: str) -> Function:
    """Find a function by its name among ours, or by its dotted path."""
    module, dot, attribute = name.rpartition(".")
    if not dot:
        methods = builtin_methods()
        if name not in methods:
            known = suggest(name, [*methods, *BASELINES])
            raise UserError(f"unknown method {name!r}{known} (your own: a dotted path, module.function)")
        return methods[name]
    try:
        function: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"method function {name}: {error}; is its folder on the path (--config-dir)?") from error
    if not callable(function):
        raise UserError(f"method function {name} is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


def _check_options(name: str, function: Function, options: Mapping[str, Any]) -> None:
    """Refuse options that a function doesn't take; for ours those of another type or out of range as well."""
    signature = inspect.signature(function)
    if not function.__module__.startswith("wsol."):
        try:
            signature.bind(None, **options)
        except TypeError as error:
            raise UserError(f"method {name}: options {options} don't fit its function: {error}") from error
        return
    hints = get_type_hints(function, include_extras=True)
    defaults = {option: parameter.default for option, parameter in list(signature.parameters.items())[1:]}
    fields = {"__annotations__": {option: hints[option] for option in defaults}, **defaults}
    judge: Any = settings(type(f"method {name}", (), fields))
    judge(**options)
