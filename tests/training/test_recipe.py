"""Recipes say what is wrong with them; optimizer and schedule follow them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from wsol.errors import UserError
from wsol.training import Recipe
from wsol.training.recipe import Optimization


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer", "adam"), ("schedule", "cosine"), ("precision", "fp8"), ("augment", ["crop", "blur"]),
        ("epochs", 0), ("batch_size", -1), ("step_epochs", 0), ("lr", -0.1), ("lr", 101), ("momentum", 1.1),
        ("weight_decay", -1), ("label_smoothing", 2), ("warmup", 1.01), ("gamma", 10), ("input_size", 48),
        ("input_size", [48]), ("input_size", [0, 48]), ("freeze", [1]), ("learning_rate", 0.1), ("groups", "choe"),
        ("lr_factors", {"fc": "ten"}), ("step_offset", -1), ("localize_every", -1), ("best", "loss"),
    ],
)  # fmt: skip
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
    optimizer = tools(module, 8, weight_decay=0.1).optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(module[0].weight), id(module[3].weight)}
    assert len(spared["params"]) == 4


GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "training.json").read_text())


@pytest.mark.parametrize("name", GOLDEN["lr_factor_of_training_epoch_1_to_n"])
def test_the_reference_decays_one_epoch_early(name: str) -> None:
    factors = GOLDEN["lr_factor_of_training_epoch_1_to_n"][name]
    keys = {"schedule": "step", "step_epochs": int(name.split()[1].strip(",")), "step_offset": 1, "lr": 0.2}
    rates = learning_rates(8, len(factors), **keys)  # one step an epoch
    assert rates == pytest.approx([0.2 * factor for factor in factors])


def test_factors_by_pattern_and_the_references_groups() -> None:
    module = nn.ModuleDict({"features": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), "head": nn.Linear(4, 2)})
    factors = {"head.bias": 0.5, "head": 10}
    for schedule in ("constant", "onecycle"):
        made = tools(module, 8, optimizer="sgd", lr=0.1, weight_decay=0.2, lr_factors=factors, schedule=schedule)
        share = 1 / 25 if schedule == "onecycle" else 1  # where one cycle begins
        assert made.optimizer.defaults["nesterov"]
        of = {id(p): group for group in made.optimizer.param_groups for p in group["params"]}
        rates = {name: of[id(p)]["lr"] / share for name, p in module.named_parameters()}
        assert rates["head.weight"] == pytest.approx(1.0) and rates["head.bias"] == pytest.approx(0.05)
        assert rates["features.0.weight"] == rates["features.1.bias"] == pytest.approx(0.1)
        assert made.lr == pytest.approx(0.1 * share)
    groups = tools(module, 8, optimizer="sgd", lr=0.1, weight_decay=0.2, groups="choe2020", schedule="constant")
    groups = groups.optimizer.param_groups
    of = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert of[id(module["head"].bias)] == (1.0, 0.2) and of[id(module["features"][1].weight)] == (0.1, 0.2)
