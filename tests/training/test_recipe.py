"""Recipes say what is wrong with them; optimizer and schedule follow them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsol.errors import UserError
from wsol.training import Recipe
from wsol.training.recipe import Optimization


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer", "adam"),
        ("schedule", "cosine"),
        ("precision", "fp8"),
        ("augment", ["crop", "blur"]),
        ("epochs", 0),
        ("batch_size", -1),
        ("step_epochs", 0),
        ("lr", -0.1),
        ("lr", 101),
        ("momentum", 1.1),
        ("weight_decay", -1),
        ("label_smoothing", 2),
        ("warmup", 1.01),
        ("gamma", 10),
        ("input_size", 48),
        ("input_size", [48]),
        ("input_size", [0, 48]),
        ("freeze", [1]),
        ("learning_rate", 0.1),
    ],
)
def test_wrong_values_are_named(key: str, value: object) -> None:
    with pytest.raises(UserError, match=key):
        Recipe(**{key: value})


def test_lists_become_tuples_and_one_word_is_a_list_of_one() -> None:
    recipe = Recipe(augment=["crop", "flip"], input_size=[48, 64], lr=1)
    assert (recipe.augment, recipe.input_size) == (("crop", "flip"), (48, 64))
    assert Recipe(augment="turn", freeze="head").augment == ("turn",)
    assert Recipe(augment=()).augment == Recipe(augment=None).augment == ()


def tools(module: nn.Module, images: int, **keys: object) -> Optimization:
    return Optimization(module, Recipe(**keys), images, torch.device("cpu"))


def learning_rates(images: int, epochs: int, **keys: object) -> list[float]:
    """Learning rate of every step, in batches of 8."""
    module = nn.Linear(2, 2)
    optimization, rates = tools(module, images, epochs=epochs, batch_size=8, **keys), []
    for _ in range(images // 8 * epochs):
        rates.append(optimization.lr)
        optimization.step(module(torch.ones(1, 2)).sum())
    return rates


def test_onecycle_rises_for_its_share_and_falls_to_almost_nothing() -> None:
    rates = learning_rates(80, epochs=10, lr=0.1, warmup=0.3)
    peak = rates.index(max(rates))
    assert peak == pytest.approx(30, abs=1)
    assert (rates[0], rates[peak]) == (pytest.approx(0.1 / 25), pytest.approx(0.1, rel=1e-2))
    assert rates[:peak] == sorted(rates[:peak]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.1 * 1e-3
    for warmup in (0.0, 1.0):
        rates = learning_rates(80, epochs=2, lr=0.1, warmup=warmup)
        assert rates == sorted(rates, reverse=warmup == 0)


def test_step_falls_after_its_epochs_and_constant_stays() -> None:
    rates = learning_rates(24, epochs=5, lr=0.1, schedule="step", step_epochs=2, gamma=0.5)
    assert rates == pytest.approx([0.1] * 6 + [0.05] * 6 + [0.025] * 3)
    assert set(learning_rates(24, epochs=5, lr=0.1, schedule="constant")) == {0.1}


def test_weight_decay_spares_biases_and_normalization() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    decayed, spared = tools(module, 8, weight_decay=0.1).optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(module[0].weight), id(module[3].weight)}
    assert len(spared["params"]) == 4


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, True), (0.0, False)])
def test_adamw_is_the_default_and_sgd_goes_with_nesterov_momentum(momentum: float, nesterov: bool) -> None:
    assert isinstance(tools(nn.Linear(2, 2), 8).optimizer, torch.optim.AdamW)
    optimizer = tools(nn.Linear(2, 2), 8, optimizer="sgd", momentum=momentum).optimizer
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (momentum, nesterov)
