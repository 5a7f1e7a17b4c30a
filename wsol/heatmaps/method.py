"""What a method is: a decorated function of a recording, or a baseline, with the layers it looks at.

A method is one function under `@method` in its family's file and one file in `conf/method/`, whose `about` says what
is shown of it. Nothing here imports torch: families are loaded when one of their methods is made.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Annotated, Any, Literal, get_type_hints

import yaml
from pydantic import BeforeValidator, Field, PositiveFloat

from wsol.errors import UserError, suggest
from wsol.io import conf_dir
from wsol.settings import settings

BASELINES = ("center", "random", "full")
FAMILIES = ("activation", "gradient", "perturbation", "pixel", "transformer")  # files of this folder

Function = Callable[..., Any]
Needs = Literal["images", "activations", "gradients", "curvature", "attention"]
# YAML reads the names of a Sequential's layers as numbers.
Layer = Annotated[str, BeforeValidator(lambda name: str(name) if type(name) is int else name)]
Count = Annotated[int, Field(ge=1)]


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
    """Make a function of a recording a method; one of your own needs this only if `Requirements()` are not its."""

    def mark(function: Function) -> Function:
        vars(function)["requirements"] = Requirements(needs, score)
        return function

    return mark


def builtin_methods() -> dict[str, Function]:
    """Every decorated function of our families by name; loads them, and torch."""
    methods: dict[str, Function] = {}
    for family in FAMILIES:
        functions = vars(importlib.import_module(f"wsol.heatmaps.{family}")).items()
        methods |= {name: value for name, value in functions if hasattr(value, "requirements")}
    return methods


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


@settings
class Views:
    """Versions of the image that a method sees, all combinations; its maps are averaged, at the largest one's size.

    Parameters
    ----------
    scale : tuple of float
        Sides of the network's input, relative to what it usually is.
    brightness : tuple of float
        Factors of the pixels' values, which are not clipped.
    """

    scale: tuple[PositiveFloat, ...] = (1.0,)
    brightness: tuple[PositiveFloat, ...] = (1.0,)


@settings
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
    score : "logit", "log_prob", "prob" or "rest", optional
        None: what the extractor or the method itself says.
    requirements : Requirements
        What it needs; by default a layer and gradients.
    views : Views, optional
        Versions of the image to average over; None: the image itself.
    """

    function: Function | str
    layer: Layer | Annotated[tuple[Layer, ...], Field(min_length=1)] | None = None
    fuse: Literal["max", "mean"] | None = None
    score: Literal["logit", "log_prob", "prob", "rest"] | None = None
    requirements: Requirements = Requirements()
    views: Views | None = None

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
        return self.layer if isinstance(self.layer, tuple) else (self.layer,) if self.layer else ()


def make_method(
    function: str | Function,
    layer: str | int | Sequence[str | int] | None = None,
    fuse: str | None = None,
    score: str | None = None,
    about: object = None,
    views: Mapping[str, Any] | None = None,
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
    views : mapping, optional
        Versions of the image to average over: {"scale": [1, 1.5], "brightness": [0.9, 1, 1.1]}, see `Views`.
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
    >>> make_method("layercam", layer=["layer3", "layer4"], fuse="max").layer
    ('layer3', 'layer4')
    """
    where: dict[str, Any] = {"layer": layer, "fuse": fuse, "score": score}
    if function in BASELINES:
        if options or layer or fuse or score or views:
            raise UserError(f"{function} sees no network: it takes neither a layer nor {list(options) or 'options'}")
        needs: Needs = "activations" if function == "random" else "images"  # noise has the size of a layer's maps
        return Method(function=function, requirements=Requirements(needs, score=None))
    code = _find(function) if isinstance(function, str) else function
    _check_options(str(function), code, options)
    needed = getattr(code, "requirements", Requirements())
    versions = Views(**views) if views else None
    made = Method(function=partial(code, **options), requirements=needed, views=versions, **where)
    if made.score and needed.score is None:
        raise UserError(f"method {function} looks at no score, or at one of its own: leave out score")
    if (made.layer or made.fuse) and not needed.layer:
        raise UserError(f"method {function} looks at no layer: leave out layer and fuse")
    if made.fuse and not isinstance(made.layer, tuple):
        raise UserError(f"method {function}: fuse={fuse} needs the layers to fuse, layer=[…]")
    return made


def expand_layers(methods: Mapping[str, Method], layer: Any = None, score: Any = None) -> dict[str, Method]:
    """Make one method of each layer, `method@layer`, where a method has several and doesn't fuse them.

    `layer` and `score` are for methods that name none of their own.
    """
    expanded: dict[str, Method] = {}
    for name, method in methods.items():
        needs = method.requirements
        layers = method.layer or (layer if needs.layer else None)
        method = replace(method, layer=layers, score=method.score or (score if needs.score else None))
        if method.fuse or not isinstance(method.layer, tuple):
            expanded[name] = method
            continue
        by_layer = {f"{name}@{one}": replace(method, layer=one) for one in method.layer}
        if repeated := by_layer.keys() & (expanded.keys() | methods.keys()):
            raise UserError(f"two methods are called {min(repeated)}: give one of them another name")
        expanded |= by_layer
    return expanded


def _find(name: str) -> Function:
    """Find a function by its name among ours, or by its dotted path."""
    module, dot, attribute = name.rpartition(".")
    if not dot:
        methods = builtin_methods()
        if name not in methods:
            nearest = suggest(name, [*methods, *BASELINES])
            raise UserError(f"unknown method {name!r}{nearest} (your own: a dotted path, module.function)")
        return methods[name]
    try:
        return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise UserError(f"method function {name}: {error}; is its folder on the path (--config-dir)?") from error


def _check_options(name: str, function: Function, options: Mapping[str, Any]) -> None:
    """Refuse options that a function doesn't take; for ours those of another type or out of range as well."""
    signature = inspect.signature(function)
    if not function.__module__.startswith("wsol."):
        signature.bind(None, **options)  # its own TypeError
        return
    hints = get_type_hints(function, include_extras=True)
    defaults = {option: parameter.default for option, parameter in list(signature.parameters.items())[1:]}
    fields = {"__annotations__": {option: hints[option] for option in defaults}, **defaults}
    judge: Any = settings(type(f"method {name}", (), fields))
    judge(**options)
