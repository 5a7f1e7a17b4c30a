"""What a method is: a function of a recording, or a baseline, with the layers it looks at."""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real
from typing import Any

import torch

from wsol.errors import UserError
from wsol.heatmaps import activation, averaged, fullgrad, gradient, perturbation, pixels, tokens
from wsol.heatmaps.fusion import FUSIONS
from wsol.heatmaps.recording import Recording
from wsol.heatmaps.scores import check_score

__all__ = ["BASELINES", "METHODS", "Kind", "Method", "apart", "layer_names", "make_method"]

Function = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Kind:
    """A method of ours: its function and what it needs of the pass.

    Parameters
    ----------
    function : callable
        `function(recording, **options) -> (B, h, w)`.
    layer : bool
        Whether it looks at a target layer.
    gradients : bool
        Whether it reads gradients of the recorded pass.
    curvature : bool
        Whether it differentiates twice.
    blocks : bool
        Whether it needs the inputs of a transformer's blocks.
    score : str
        What it differentiates or watches when nothing else is asked for; "": no score, or one of its own.
    """

    function: Function
    layer: bool = True
    gradients: bool = True
    curvature: bool = False
    blocks: bool = False
    score: str = "logit"


METHODS: dict[str, Kind] = {
    "cam": Kind(activation.cam, gradients=False, score=""),
    "gradcam": Kind(gradient.gradcam),
    "gradcampp": Kind(gradient.gradcampp),
    "gradcamelementwise": Kind(gradient.gradcamelementwise),
    "xgradcam": Kind(gradient.xgradcam),
    "hirescam": Kind(gradient.hirescam),
    "layercam": Kind(gradient.layercam),
    "eigencam": Kind(activation.eigencam, gradients=False, score=""),
    "eigengradcam": Kind(gradient.eigengradcam),
    "kpcacam": Kind(activation.kpcacam, gradients=False, score=""),
    "finercam": Kind(gradient.finercam, score=""),
    "fem": Kind(activation.fem, gradients=False, score=""),
    "shapleycam": Kind(gradient.shapleycam, curvature=True, score="rest"),
}
METHODS |= {
    "scorecam": Kind(perturbation.scorecam, gradients=False),
    "sscam": Kind(perturbation.sscam, gradients=False),
    "iscam": Kind(perturbation.iscam, gradients=False),
    "ablationcam": Kind(perturbation.ablationcam, gradients=False),
    "smoothgradcampp": Kind(averaged.smoothgradcampp, gradients=False),
    "fullgrad": Kind(fullgrad.fullgrad, layer=False, gradients=False),
    "rise": Kind(perturbation.rise, layer=False, gradients=False, score="prob"),
    "occlusion": Kind(perturbation.occlusion, layer=False, gradients=False, score="prob"),
    "saliency": Kind(pixels.saliency, layer=False, gradients=False),
    "guidedbackprop": Kind(pixels.guidedbackprop, layer=False, gradients=False),
    "deconvnet": Kind(pixels.deconvnet, layer=False, gradients=False),
    "guidedgradcam": Kind(pixels.guidedgradcam),
    "smoothgrad": Kind(averaged.smoothgrad, layer=False, gradients=False),
    "integratedgradients": Kind(averaged.integratedgradients, layer=False, gradients=False),
}
METHODS |= {
    "rollout": Kind(tokens.rollout, layer=False, gradients=False, blocks=True, score=""),
    "legrad": Kind(tokens.legrad, layer=False, gradients=False, blocks=True),
}
BASELINES = ("center", "random", "full")


@dataclass(frozen=True, eq=False)
class Method:
    """A heatmap method, ready to run.

    Parameters
    ----------
    function : callable or str
        `function(recording) -> (B, h, w)`; or the name of a baseline, which sees no recording.
    layer : str or tuple of str, optional
        Dotted name of the target layer, or of several; None: the classifier's default.
    fuse : "max" or "mean", optional
        How the maps of several layers become one; None: each is a method of its own, `method@layer`.
    kind : Kind, optional
        What it needs; by default that of your own functions: a layer and gradients.
    score : str, optional
        "logit", "log_prob", "prob" or "rest"; None: what the extractor or the method itself says.
    """

    function: Callable[[Recording], torch.Tensor] | str
    layer: str | tuple[str, ...] | None = None
    fuse: str | None = None
    kind: Kind | None = None
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
        call = self.function.func if isinstance(self.function, partial) else self.function
        return getattr(call, "__name__", type(call).__name__)

    @property
    def needs_layer(self) -> bool:
        """Whether there is a target layer: the center and full baselines know the evaluation size only."""
        if isinstance(self.function, str):
            return self.function == "random"
        return self.kind is None or self.kind.layer

    @property
    def gradients(self) -> bool:
        """Whether it reads gradients of the recorded pass."""
        return not isinstance(self.function, str) and (self.kind is None or self.kind.gradients)


def make_method(
    function: str | Function,
    layer: str | int | Sequence[str | int] | None = None,
    fuse: str | None = None,
    score: str | None = None,
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
        What is differentiated; by default the logit (ShapleyCAM: `rest`; RISE and occlusion: `prob`). CAM, Eigen-CAM,
        KPCA-CAM, FEM, Finer-CAM and rollout take none.
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
        return Method(function)
    kind = METHODS.get(function) if isinstance(function, str) else None
    call = kind.function if kind else _find(function) if isinstance(function, str) else function
    try:
        inspect.signature(call).bind(None, **options)
    except TypeError as error:
        raise UserError(f"method {function}: options {options} don't fit its function: {error}") from error
    if kind is not None:
        _check_options(str(function), call, options)
    if kind is not None and not kind.score and score is not None:
        raise UserError(f"method {function} looks at no score, or at one of its own: leave out score")
    if kind is not None and not kind.layer and (layers or fuse):
        raise UserError(f"method {function} looks at no layer: leave out layer and fuse")
    if fuse is not None and (fuse not in FUSIONS or not isinstance(layers, tuple)):
        raise UserError(f"fuse={fuse!r}: pass one of {', '.join(FUSIONS)}, and layer=[…] with the layers to fuse")
    return Method(partial(call, **options), layers, fuse, kind, None if score is None else check_score(score))


# What an option's annotation stands for; a number for int may not be a fraction.
_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "int": (Integral, "a whole number"),
    "int | None": ((Integral, type(None)), "a whole number, or null"),
    "float": (Real, "a number"),
    "float | None": ((Real, type(None)), "a number, or null"),
    "bool": (bool, "true or false"),
    "str": (str, "a word"),
}


def _check_options(method: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse an option of another type than the method's own, and numbers that are not finite."""
    for name, value in options.items():
        kind, wanted = _TYPES.get(str(inspect.signature(function).parameters[name].annotation), (object, ""))
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool and kind is not object):
            raise UserError(f"method {method}: {name}={value!r}: pass {wanted}")
        if isinstance(value, Real) and not isinstance(value, Integral) and not math.isfinite(value):
            raise UserError(f"method {method}: {name}={value!r}: pass a finite number")


def layer_names(layer: str | int | Sequence[str | int] | None) -> str | tuple[str, ...] | None:
    """Names of target layers as text: YAML reads those of a Sequential as numbers.

    Raises
    ------
    UserError
        If something else is passed, a module, say.

    Examples
    --------
    >>> layer_names(3), layer_names([2, "head.3"]), layer_names([])
    ('3', ('2', 'head.3'), None)
    """
    if layer is None or isinstance(layer, str):
        return layer
    several = isinstance(layer, Iterable) and not isinstance(layer, torch.nn.Module)
    names = list(layer) if several else [layer]  # type: ignore[arg-type]
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | Integral):
            raise UserError(
                f"layer={layer!r}: pass a layer's dotted name as text (in quotes where it looks like a number, '2.1'), "
                f"or a list of such names"
            )
    return tuple(str(name) for name in names) or None if several else str(layer)


def apart(methods: Mapping[str, Method], default: str | Sequence[str] | None = None) -> dict[str, Method]:
    """Make one method of each layer, `method@layer`, where a method has several and doesn't fuse them.

    Parameters
    ----------
    methods : mapping of str to Method
    default : str or sequence of str, optional
        Layers of methods that name none.

    Examples
    --------
    >>> list(apart({"cam": make_method("cam"), "g": make_method("gradcam", ["layer3", "layer4"])}))
    ['cam', 'g@layer3', 'g@layer4']
    """
    found = {}
    for name, method in methods.items():
        layers = method.layer or (default if method.needs_layer else None)
        if layers is None or isinstance(layers, str) or method.fuse:
            found[name] = replace(method, layer=layers if layers is None or isinstance(layers, str) else tuple(layers))
        else:
            several = {f"{name}@{layer}": replace(method, layer=layer) for layer in layers}
            both = several.keys() & (found.keys() | methods.keys())
            if both:
                raise UserError(f"two methods are called {min(both)}: give one of them another name")
            found |= several
    return found


def _find(name: str) -> Function:
    module, dot, attribute = name.rpartition(".")
    if not dot:
        known = [*METHODS, *BASELINES]
        near = difflib.get_close_matches(name, known, 3, 0.4) or known
        raise UserError(
            f"unknown method {name!r}; the nearest: {', '.join(near)} (your own: a dotted path, module.function)"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"method function {name}: {error}; is its folder on the path (--config-dir)?") from error
    if not callable(found):
        raise UserError(f"method function {name} is a {type(found).__name__}, not a function")
    call: Function = found
    return call
