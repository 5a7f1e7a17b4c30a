"""What a method is: a function of a recording, or a baseline, with the layer it looks at."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from wsol.errors import UserError
from wsol.heatmaps.activation import cam
from wsol.heatmaps.gradient import gradcam
from wsol.heatmaps.recording import Recording

__all__ = ["BASELINES", "METHODS", "Method", "make_method"]

METHODS: dict[str, Callable[..., torch.Tensor]] = {"cam": cam, "gradcam": gradcam}
WITHOUT_GRADIENTS = {"cam"}
BASELINES = ("center", "random", "full")


@dataclass(frozen=True, eq=False)
class Method:
    """A heatmap method, ready to run.

    Parameters
    ----------
    function : callable or str
        `function(recording) -> (B, h, w)`; or the name of a baseline, which sees no recording.
    layer : str, optional
        Dotted name of the target layer; None: the classifier's default.
    gradients : bool
        Whether the function reads `recording.gradients`.
    """

    function: Callable[[Recording], torch.Tensor] | str
    layer: str | None = None
    gradients: bool = True

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
        return self.function not in ("center", "full")


def make_method(function: str | Callable[..., torch.Tensor], layer: str | None = None, **options: Any) -> Method:
    """Make a method from a name of ours, a dotted path to your own function, or the function itself.

    Parameters
    ----------
    function : str or callable
        "cam", "gradcam", "center", …; "my_methods.energy"; or `f(recording, **options) -> (B, h, w)`.
    layer : str, optional
        Dotted name of the target layer.
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
    """
    if isinstance(function, str) and function in BASELINES:
        if options or layer:
            raise UserError(f"{function} sees no network: it takes neither a layer nor {list(options) or 'options'}")
        return Method(function, gradients=False)
    gradients = function not in WITHOUT_GRADIENTS
    call = _find(function) if isinstance(function, str) else function
    try:
        inspect.signature(call).bind(None, **options)
    except TypeError as error:
        raise UserError(f"method {function}: options {options} don't fit its function: {error}") from error
    return Method(partial(call, **options), layer, gradients)


def _find(name: str) -> Callable[..., torch.Tensor]:
    if name in METHODS:
        return METHODS[name]
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
    return found
