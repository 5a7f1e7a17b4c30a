"""Render a page that needs nothing but itself: everything escaped, style and scripts inside; its parts register."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from wsol import __version__
from wsol.console import are_numbers

FOLDER = Path(__file__).parent / "templates"
# In JSON these stay what they are when written as escapes, but can't end or open anything in HTML.
UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"})


@dataclass(frozen=True)
class Section:
    """A part of a run's page; in `html`, what has `data-protocol` is shown while that protocol is chosen."""

    title: str
    html: Markup
    data: Any = None  # for scripts: `wsol.report[key]`


SECTIONS: dict[str, tuple[int, Callable[[Any], Section | None]]] = {}


def section(key: str, place: int) -> Callable[[Callable[[Any], Section | None]], Callable[[Any], Section | None]]:
    """Register a function of a `wsol.report.page.Page` that makes a part of it, or None where a run has nothing for it.

    `key` is the part's address in the page, and its name in the navigation; parts stand in the order of `place`.
    """

    def register(make: Callable[[Any], Section | None]) -> Callable[[Any], Section | None]:
        SECTIONS[key] = place, make
        return make

    return register


def fill(macro: str, /, *values: Any) -> Markup:
    """Fill a macro of `templates/sections.html.j2`."""
    return Markup(getattr(ENVIRONMENT.get_template("sections.html.j2").module, macro)(*values))


def html_table(frame: pd.DataFrame, digits: int = 1, best: np.ndarray | None = None) -> Markup:
    """Lay out a frame as a table that can be sorted: numbers rounded, empty where there are none; `best` is (R, C)."""
    best, columns, kinds = np.zeros(frame.shape, bool) if best is None else best, [], []
    for place, name in enumerate(frame):
        texts = ["" if pd.isna(v) else v if isinstance(v, str) else f"{v:.{digits}f}" for v in frame[name]]
        kind = "number" if are_numbers(texts) else "name"
        plain = [text.striptags() if isinstance(text, Markup) else text for text in texts]
        values = [text.split(" ")[0] for text in plain] if kind == "number" else plain  # sorted by
        columns.append([(value, text, f"{kind} best" if bold else kind)
                        for value, text, bold in zip(values, texts, best[:, place], strict=True)])  # fmt: skip
        kinds.append(kind)
    return fill("table", list(zip(frame, kinds, strict=True)), list(zip(*columns, strict=True)))


def render(template: str, /, **values: Any) -> str:
    """Fill a template of `templates/`; text is escaped, whatever is in it, and undefined names are errors."""
    text = ENVIRONMENT.get_template(template).render(version=__version__, **values)
    return text.encode("utf-8", "replace").decode("utf-8")  # names of files may hold halves of surrogate pairs


def as_json(value: Any) -> Markup:
    """Write data as JSON that may stand in a `<script>` element; NaN and infinity become null."""
    return Markup(json.dumps(_plain(value), separators=(",", ":"), allow_nan=False).translate(UNSAFE))


def _plain(value: Any) -> Any:
    """Turn a value into what JSON has a form for; what isn't known becomes text."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        plain = value.tolist()
        return plain if np.isfinite(value).all() else _plain(plain)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _asset(name: str) -> Markup:
    """Text of a style sheet or script, as it is: Jinja would read the braces of both."""
    return Markup((FOLDER / name).read_text(encoding="utf-8"))


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals["asset"] = _asset
ENVIRONMENT.filters["json"] = as_json
