"""Methods by name, by dotted path, as functions; and what is said about names that are none."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wsol.errors import UserError
from wsol.heatmaps import Recording, make_method


def test_ours_by_name() -> None:
    needs = {
        "cam": "activations",
        "gradcam": "gradients",
        "center": "images",
        "full": "images",
        "random": "activations",
    }
    for name, needed in needs.items():
        method = make_method(name)
        assert (method.function_name, method.requirements.needs) == (name, needed)
        assert method.baseline == (name if name in ("center", "full", "random") else None)
    assert make_method("cam", layer="layer3").layer == "layer3"


@pytest.mark.parametrize(
    ("name", "near"),
    [("grad-cam", "gradcam"), ("gradcam++", "gradcam"), ("rolout", "rollout"), ("centre", "center")],
)
def test_unknown_name_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UserError, match=rf"{re.escape(name)}.*\b{near}\b"):
        make_method(name)


def test_name_like_none_lists_all() -> None:
    with pytest.raises(UserError, match="cam, eigencam, .*, shapleycam, .*center, random, full"):
        make_method("zzzz")


def test_own_function_by_dotted_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_methods.py").write_text("number = 3\ndef energy(recording, power=1):\n    return power\n")
    monkeypatch.syspath_prepend(tmp_path)
    method = make_method("my_methods.energy", power=5)
    assert method.function(None) == 5
    assert method.requirements.needs == "gradients"
    with pytest.raises(UserError, match=r"my_methods\.nothing.*--config-dir"):
        make_method("my_methods.nothing")
    with pytest.raises(UserError, match=r"no_such_module.*--config-dir"):
        make_method("no_such_module.energy")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gradcam", {"power": 2}),
        ("iscam", {"steps": "many"}),
        ("iscam", {"steps": 2.5}),
        ("iscam", {"steps": True}),
        ("iscam", {"steps": 0}),
        ("fem", {"sigmas": "2.0"}),
        ("fem", {"sigmas": math.nan}),
        ("kpcacam", {"gamma": 0}),
        ("kpcacam", {"kernel": "cosine"}),
        ("eigencam", {"center": 1}),
        ("sscam", {"smooth": "input"}),
        ("finercam", {"references": -1}),
        ("finercam", {"gamma": math.inf}),
        ("rise", {"keep": 1.5}),
        ("rollout", {"keep": 1.0}),
        ("legrad", {"blocks": 0}),
        ("occlusion", {"size": 1.2}),
        ("occlusion", {"stride": 0}),
    ],
)
def test_options_of_another_type_or_out_of_range(name: str, options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=rf"{name}.*{next(iter(options))}"):
        make_method(name, **options)


def test_options_of_the_right_type() -> None:
    for name, options in (("fem", {"sigmas": 2}), ("kpcacam", {"gamma": None}), ("kpcacam", {"gamma": 1})):
        assert make_method(name, **options).requirements is not None


@pytest.mark.parametrize(("layer", "options"), [("layer4", {}), (None, {"sigma": 3})])
@pytest.mark.parametrize("name", ["center", "full"])
def test_baselines_take_no_options(name: str, layer: str | None, options: dict[str, int]) -> None:
    with pytest.raises(UserError, match="sees no network"):
        make_method(name, layer, **options)


def test_names_of_functions_for_the_store() -> None:
    def energy(recording: Recording) -> torch.Tensor:
        return recording.activations.sum(1)

    class Callable:
        def __call__(self, recording: Recording) -> torch.Tensor:
            return recording.activations.sum(1)

    assert [make_method(what).function_name for what in ("cam", "center", energy)] == ["cam", "center", "energy"]
    assert "Callable" in make_method(Callable()).function_name


def test_cards_and_baselines_need_no_torch() -> None:
    code = """
import sys
from wsol.heatmaps import make_method
from wsol.heatmaps.method import method_cards
assert method_cards()[make_method("center").baseline].title
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
