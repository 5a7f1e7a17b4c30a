"""Recipes say what is wrong with them; optimizer and schedule follow them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from wsol.errors import UserError
from wsol.training import Recipe
from wsol.training.optimization import Tools, make_tools
from wsol.training.progress_file import Standing


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"optimizer": "adam"}, "training.optimizer=adam: there are adamw, sgd"),
        ({"schedule": "cosine"}, "training.schedule=cosine: there are onecycle, step, constant"),
        ({"precision": "fp8"}, "training.precision=fp8: there are fp32, bf16, fp16"),
        ({"augment": ["crop", "blur"]}, "training.augment: unknown 'blur'; there are crop, shift, flip, turn, color"),
        ({"augment": "blur"}, "training.augment: unknown 'blur'"),
        ({"epochs": 0}, "training.epochs=0: pass a whole number from 1"),
        ({"epochs": 1.5}, "training.epochs=1.5: pass a whole number from 1"),
        ({"epochs": "3"}, "training.epochs=3: pass a whole number from 1"),
        ({"batch_size": -1}, "training.batch_size=-1: pass a whole number from 1"),
        ({"step_epochs": 0}, "training.step_epochs=0: pass a whole number from 1"),
        ({"lr": -0.1}, r"training.lr=-0.1: pass a number in \[0, 100\]"),
        ({"lr": float("nan")}, "training.lr=nan: pass a number"),
        ({"lr": float("inf")}, "training.lr=inf: pass a number"),
        ({"lr": "fast"}, "training.lr=fast: pass a number"),
        ({"lr": None}, "training.lr=None: pass a number"),
        ({"momentum": 1.1}, r"training.momentum=1.1: pass a number in \[0, 1\]"),
        ({"label_smoothing": 2}, "training.label_smoothing=2: pass a number"),
        ({"warmup": 1.01}, "training.warmup=1.01: pass a number"),
        ({"gamma": 10}, "training.gamma=10: pass a number"),
        ({"input_size": 48}, "training.input_size=48: pass two whole numbers"),
        ({"input_size": [48]}, r"training.input_size=\[48\]: pass two whole numbers"),
        ({"input_size": [0, 48]}, r"training.input_size=\[0, 48\]: pass two whole numbers"),
        ({"input_size": "48"}, "training.input_size=48: pass two whole numbers"),
    ],
)
def test_wrong_values_are_named(keys: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe(**keys)


def test_lists_become_tuples_and_one_word_is_a_list_of_one() -> None:
    recipe = Recipe(augment=["crop", "flip"], input_size=[48, 64])
    assert (recipe.augment, recipe.input_size) == (("crop", "flip"), (48, 64))
    assert Recipe(augment="turn").augment == ("turn",)
    assert Recipe(augment=()).augment == ()


def test_names_are_the_fields() -> None:
    assert Recipe.names() == tuple(field.name for field in dataclasses.fields(Recipe))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().lr = 1.0


def tools(module: nn.Module, images: int, **keys: object) -> Tools:
    return make_tools(module, Recipe(**keys), images, torch.device("cpu"), Standing())


def rates(images: int, epochs: int, **keys: object) -> list[float]:
    """Learning rate of every step, in batches of 8."""
    module = nn.Linear(2, 2)
    made, found = tools(module, images, epochs=epochs, batch_size=8, **keys), []
    for _ in range(images // 8 * epochs):
        found.append(made.optimizer.param_groups[0]["lr"])
        made.step(module(torch.ones(1, 2)).sum())
    return found


def test_onecycle_rises_for_its_share_and_falls_to_almost_nothing() -> None:
    found = rates(80, epochs=10, lr=0.1, warmup=0.3)
    peak = found.index(max(found))
    assert found[0] == pytest.approx(0.1 / 25)
    assert max(found) == pytest.approx(0.1, rel=1e-2)
    assert peak == pytest.approx(30, abs=1)
    assert found[:peak] == sorted(found[:peak])
    assert found[peak:] == sorted(found[peak:], reverse=True)
    assert found[-1] < 0.1 * 1e-3


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_onecycle_without_rise_or_without_fall(warmup: float) -> None:
    found = rates(80, epochs=2, lr=0.1, warmup=warmup)
    assert found == sorted(found, reverse=warmup == 0)


def test_step_falls_after_its_epochs() -> None:
    found = rates(24, epochs=5, lr=0.1, schedule="step", step_epochs=2, gamma=0.5)
    assert found == pytest.approx([0.1] * 6 + [0.05] * 6 + [0.025] * 3)


def test_constant_stays() -> None:
    assert set(rates(24, epochs=5, lr=0.1, schedule="constant")) == {0.1}


def test_weight_decay_spares_biases_and_normalization() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    decayed, spared = tools(module, 8, weight_decay=0.1).optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(module[0].weight), id(module[3].weight)}
    assert len(spared["params"]) == 4


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, True), (0.0, False)])
def test_sgd_goes_with_nesterov_momentum(momentum: float, nesterov: bool) -> None:
    optimizer = tools(nn.Linear(2, 2), 8, optimizer="sgd", momentum=momentum).optimizer
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (momentum, nesterov)


def test_adamw_is_the_default() -> None:
    assert isinstance(tools(nn.Linear(2, 2), 8).optimizer, torch.optim.AdamW)


def test_step_goes_down_the_gradient() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    made = tools(module, 8, optimizer="sgd", momentum=0.0, lr=0.5, schedule="constant", weight_decay=0.0)
    made.step(3 * module.weight.sum())
    assert module.weight.item() == pytest.approx(1 - 0.5 * 3)
