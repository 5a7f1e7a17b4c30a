"""Settings as data: frozen dataclasses whose every value is judged, and whose faults are told to the user."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, wraps
from typing import Any, dataclass_transform

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from wsol.errors import UserError, suggest


@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(cls: type | None = None, *, frozen: bool = True) -> Any:
    """Make a class of annotated fields a dataclass: frozen, keyword-only, hashable, every value checked.

    Values must have the annotated type; only integers may stand for floats, and lists or arrays for tuples. NaN,
    infinity and unknown names are refused. `dataclasses.replace` and `asdict` work, and `replace` checks again.

    Raises
    ------
    UserError
        When an instance is made, naming every field that is wrong with its value.

    Examples
    --------
    >>> @settings
    ... class Grid:
    ...     size: tuple[int, int] = (224, 224)
    ...     step: float = 0.001
    >>> Grid(size=[7, 7], step=1)
    Grid(size=(7, 7), step=1.0)
    >>> Grid(step="0.1")
    Traceback (most recent call last):
    ...
    wsol.errors.UserError: grid: step = '0.1' should be a valid number
    """
    if cls is None:
        return partial(settings, frozen=frozen)
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    made = dataclass(cls, frozen=frozen, kw_only=True, config=config)
    validate = made.__init__

    @wraps(validate)
    def init(self: Any, **values: Any) -> None:
        try:
            validate(self, **{name: _plain(value) for name, value in values.items()})
        except ValidationError as error:
            raise UserError(_message(made, values, error)) from None

    made.__init__ = init  # type: ignore[method-assign]
    return made


def _plain(value: Any) -> Any:
    """Tuples instead of lists, Python's numbers instead of numpy's."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(_plain(item) for item in value)
    return value


def _message(cls: type, values: dict[str, Any], error: ValidationError) -> str:
    """Say for each field what is wrong with it: a union's members may each have their say."""
    reasons: dict[str, list[str]] = {}
    for fault in error.errors(include_url=False):
        name = str(fault["loc"][0]) if fault["loc"] else ""
        if not name:  # several fields don't fit together: `__post_init__` says which
            reason = fault["msg"].removeprefix("Value error, ")
        elif fault["type"] == "unexpected_keyword_argument":
            reason = f"no field '{name}'" + suggest(name, cls.__dataclass_fields__)  # type: ignore[attr-defined]
        elif name not in values:
            reason = f"{name} is needed"
        else:
            reason = f"{name} = {values[name]!r} {fault['msg'].removeprefix('Value error, ').removeprefix('Input ')}"
        said = reasons.setdefault(name, [])
        said.append(reason.removeprefix(f"{name} = {values.get(name)!r} ") if said else reason)
    title = " ".join(filter(None, [cls.__name__.lower(), str(values.get("name", ""))]))
    return f"{title}: " + "; ".join(" or ".join(dict.fromkeys(said)) for said in reasons.values())
