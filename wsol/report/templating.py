"""Render a page that needs nothing but itself: everything escaped, style and scripts inside."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from wsol import __version__

FOLDER = Path(__file__).parent / "templates"
# In JSON these stay what they are when written as escapes, but can't end or open anything in HTML.
UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"})


def render(template: str, /, **values: Any) -> str:
    """Fill a template of `templates/`; text is escaped, whatever is in it, and undefined names are errors."""
    text = _environment().get_template(template).render(version=__version__, **values)
    return text.encode("utf-8", "replace").decode("utf-8")  # names of files may hold halves of surrogate pairs


def as_json(value: Any) -> Markup:
    r"""Write data as JSON that may stand in a `<script>` element or an attribute; NaN and infinity become null.

    Examples
    --------
    >>> as_json({"name": "</script>", "iou": np.array([0.5, np.nan])})
    Markup('{"name":"\\u003c/script\\u003e","iou":[0.5,null]}')
    """
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False, default=_plain)
    except ValueError:  # a NaN among Python's own numbers
        text = json.dumps(_finite(value), separators=(",", ":"), default=_plain)
    return Markup(text.translate(UNSAFE))


def _plain(value: Any) -> Any:
    """Turn what JSON doesn't know into what it does."""
    if not isinstance(value, np.ndarray | np.generic):
        return str(value)
    return value.tolist() if np.isfinite(value).all() else _finite(value.tolist())


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _asset(name: str) -> Markup:
    """Text of a style sheet or script, as it is: Jinja would read the braces of both."""
    return Markup((FOLDER / name).read_text(encoding="utf-8"))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = _asset
    environment.filters["json"] = as_json
    return environment
