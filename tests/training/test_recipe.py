"""Recipes say what is wrong with them; optimizer and schedule follow; augmentations do what they say and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from wsol.errors import UserError
from wsol.training import Recipe
from wsol.training.recipe import Augmentation, Optimization, augment


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


SEEDS = range(60)
KINDS = get_args(Augmentation)


def picture(height: int = 24, width: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def changed(image: np.ndarray, *kinds: str, size: tuple[int, int] = (24, 24), seed: int = 0) -> np.ndarray:
    return augment(image, kinds, size, "bilinear", np.random.default_rng(seed)).numpy()


@pytest.mark.parametrize("kinds", [(), *((kind,) for kind in KINDS), KINDS])
@pytest.mark.parametrize("size", [(24, 24), (16, 40), (5, 7)])
@pytest.mark.parametrize("source", [(24, 24), (50, 31), (1, 1)])
def test_shape_and_type(kinds: tuple[str, ...], size: tuple[int, int], source: tuple[int, int]) -> None:
    for interpolation in ("bilinear", "bicubic"):
        pixels = augment(picture(*source), kinds, size, interpolation, np.random.default_rng(0))
        assert (pixels.shape, pixels.dtype) == ((*size, 3), torch.uint8) and pixels.is_contiguous()


@pytest.mark.parametrize("kind", KINDS)
def test_same_generator_same_picture_and_the_source_is_left_alone(kind: str) -> None:
    image = picture()
    before = image.copy()
    result = [changed(image, kind, seed=seed) for seed in SEEDS]
    assert all(np.array_equal(result[seed], changed(image, kind, seed=seed)) for seed in SEEDS)
    assert np.array_equal(image, before)
    assert len({pixels.tobytes() for pixels in result}) > 1


def test_flip_is_left_to_right_in_half_of_the_cases() -> None:
    image = picture()
    assert np.array_equal(changed(image), image)
    mirrored = sum(np.array_equal(changed(image, "flip", seed=seed), image[:, ::-1]) for seed in SEEDS)
    kept = sum(np.array_equal(changed(image, "flip", seed=seed), image) for seed in SEEDS)
    assert mirrored + kept == len(SEEDS)
    assert 18 <= mirrored <= 42


def test_turn_is_by_quarters_and_leaves_oblong_input_as_it_is() -> None:
    image, oblong = picture(), picture(16, 40)
    turns = [np.rot90(image, k) for k in range(4)]
    seen = [[np.array_equal(changed(image, "turn", seed=seed), turn) for turn in turns].index(True) for seed in SEEDS]
    assert set(seen) == {0, 1, 2, 3}
    assert all(np.array_equal(changed(oblong, "turn", size=(16, 40), seed=seed), oblong) for seed in SEEDS)


def test_shift_is_by_an_eighth_at_most() -> None:
    image, places = picture(), set()
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="reflect")
    for seed in range(200):
        result = changed(image, "shift", seed=seed)
        windows = [(y, x) for y in range(7) for x in range(7) if np.array_equal(result, padded[y : y + 24, x : x + 24])]
        assert len(windows) == 1
        places.add(windows[0])
    assert {y for y, _ in places} == {x for _, x in places} == set(range(7))


def test_crop_is_a_part_of_the_stated_area_and_aspect() -> None:
    """On a ramp the corner colors say which part it was."""
    y, x = np.mgrid[:200, :160].astype(np.uint8)
    shares, lefts = [], []
    for seed in SEEDS:
        result = changed(np.stack([x, y, x], -1), "crop", size=(100, 100), seed=seed).astype(float)
        width = (result[50, 89, 0] - result[50, 10, 0]) / 79 * 100
        height = (result[89, 50, 1] - result[10, 50, 1]) / 79 * 100
        shares.append(width * height / (200 * 160))
        lefts.append(result[50, 0, 0])
        assert 0.72 < width / height < 1.40
    assert 0.33 < min(shares) < 0.5
    assert 0.8 < max(shares) <= 1.02
    assert min(lefts) < 10 < 40 < max(lefts)


def test_window_is_cut_from_the_whole_image_at_eight_sevenths() -> None:
    y, x = np.mgrid[:64, :64].astype(np.uint8)
    image, places = np.stack([x, y, x], -1), set()
    for seed in range(200):  # 64 x 64 is 56 / 0.875: nothing is resized
        result = changed(image, "window", size=(56, 56), seed=seed)
        left, top = map(int, result[0, 0, :2])
        assert np.array_equal(result, image[top : top + 56, left : left + 56])
        places.add((top, left))
    assert {top for top, _ in places} == {left for _, left in places} == set(range(9))


def test_crop_of_an_image_too_long_for_the_aspect_is_the_image() -> None:
    image = picture(1, 60)
    assert all(np.array_equal(changed(image, "crop", size=(1, 60), seed=seed), image) for seed in range(9))


def test_color_keeps_places_and_grays() -> None:
    gray = np.full((24, 24, 3), 100, np.uint8)
    levels = set()
    for seed in SEEDS:
        result = changed(gray, "color", seed=seed)
        assert len(np.unique(result)) == 1
        levels.add(int(result[0, 0, 0]))
    assert min(levels) >= 69
    assert max(levels) <= 131
    assert max(levels) - min(levels) > 30
    halves = gray.copy()
    halves[:, 12:] = (200, 60, 20)
    result = changed(halves, "color")
    assert len(np.unique(result[:, :12].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(result[:, 12:].reshape(-1, 3), axis=0)) == 1
