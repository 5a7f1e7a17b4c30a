"""Settings: which values are taken, which are refused, and that the culprit is named."""

import dataclasses
import pickle
from typing import Annotated, Literal

import numpy as np
import pytest
from pydantic import Field

from wsol.errors import UserError
from wsol.settings import settings


@settings
class Camera:
    name: str = "any"
    size: tuple[int, int] = (640, 480)
    exposure: Annotated[float, Field(gt=0)] = 0.5
    mode: Literal["still", "film"] = "still"
    flash: bool = False
    steps: tuple[float, ...] | float = 1.0


def test_integers_stand_for_floats_and_lists_and_arrays_for_tuples() -> None:
    camera = Camera(size=[3, 4], exposure=2, steps=np.array([1, 2]))
    assert camera == Camera(size=(np.int64(3), 4), exposure=np.float64(2), steps=[1.0, 2.0])
    assert type(camera.exposure) is float and camera.steps == (1.0, 2.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("exposure", "0.2"),
        ("exposure", True),
        ("exposure", float("nan")),
        ("exposure", float("inf")),
        ("exposure", 0),
        ("exposure", None),
        ("size", (1, 2.0)),
        ("size", (1, True)),
        ("size", (1, 2, 3)),
        ("size", "12"),
        ("flash", 1),
        ("flash", "true"),
        ("mode", "zoom"),
        ("steps", "all"),
        ("steps", (1.0, float("nan"))),
        ("exposre", 1.0),
    ],
)
def test_what_does_not_fit_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(UserError, match=field):
        Camera(**{field: value})
    with pytest.raises((UserError, TypeError), match=field):
        dataclasses.replace(Camera(), **{field: value})


def test_every_culprit_is_named_and_a_wrong_name_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"camera north: .*mode = 'zoom'.*exposure"):
        Camera(name="north", mode="zoom", exposre=1.0)


def test_a_field_that_is_needed_is_named() -> None:
    @settings
    class Lens:
        glass: str
        speed: float = 1.0

    with pytest.raises(UserError, match="glass is needed"):
        Lens(speed=2.0)


def test_frozen_hashable_and_plain_again() -> None:
    camera = Camera(exposure=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        camera.exposure = 2.0  # type: ignore[misc]
    assert len({camera, Camera(exposure=1.0)}) == 1
    assert Camera(**dataclasses.asdict(camera)) == camera == pickle.loads(pickle.dumps(camera))
