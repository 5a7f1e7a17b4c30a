"""Training methods: each against the reference's worked values and a slow twin of loops over pixels."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.toy import Tints, recipe, run, same, weights
from wsol.errors import UserError
from wsol.models import Classifier, shapes_classifier
from wsol.models import reference as networks
from wsol.settings import settings
from wsol.training import ADL, SPG, ACoL, CutMix, HaS, Recipe, Stage, TrainingMethod
from wsol.training.methods import guidance_loss, seeds
from wsol.training.recipe import Optimization

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "training.json").read_text())
METHODS = {"none": TrainingMethod(), "has": HaS(), "cutmix": CutMix(), "adl": ADL(), "acol": ACoL(), "spg": SPG()}


class Numbers:
    """A generator that gives numbers written down, in their order."""

    def __init__(self, **numbers: list[object]) -> None:
        self.numbers = numbers

    def __getattr__(self, kind: str) -> Callable[..., object]:
        def draw(*arguments: object) -> object:
            shape = arguments[0] if kind == "random" and arguments else None
            if shape is None:
                return self.numbers[kind].pop(0)
            return np.array([self.numbers[kind].pop(0) for _ in range(math.prod(shape))]).reshape(shape)

        return draw


# ---- Hide-and-Seek


def hidden_twin(images: np.ndarray, size: int, rate: float, numbers: list[float]) -> np.ndarray:
    """Cell by cell, pixel by pixel."""
    images = images.copy()
    _, _, height, width = images.shape
    for image in images:
        for top in range(0, height, size):
            for left in range(0, width, size):
                if numbers.pop(0) <= rate:
                    for y in range(top, min(top + size, height)):
                        for x in range(left, min(left + size, width)):
                            image[:, y, x] = 0
    return images


@pytest.mark.parametrize("case", [case for case in GOLDEN["has"] if case["height"] == case["width"]])
def test_hide_and_seek_as_the_reference_hides(case: dict[str, object]) -> None:
    method = HaS(grid_size=case["grid_size"], drop_rate=case["drop_rate"])
    images, labels = torch.ones(case["images"], 3, case["height"], case["width"]), torch.arange(case["images"])
    changed, targets = method.change_batch(images, labels, Numbers(random=list(case["random_numbers"])))
    assert changed[:, 0].int().tolist() == case["kept"] and torch.equal(changed[:, 0], changed[:, 2])
    assert targets is labels and bool((images == 1).all())


@pytest.mark.parametrize(("height", "width", "size"), [(8, 8, 3), (6, 10, 4), (10, 6, 4), (5, 5, 1)])
def test_hide_and_seek_is_its_twin(height: int, width: int, size: int) -> None:
    images = torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(0))
    for seed in range(3):
        numbers = np.random.default_rng(seed).random(3 * math.ceil(height / size) * math.ceil(width / size)).tolist()
        changed, _ = HaS(grid_size=size, drop_rate=0.4).change_batch(images, None, np.random.default_rng(seed))
        assert np.array_equal(changed.numpy(), hidden_twin(images.numpy(), size, 0.4, numbers))


# ---- CutMix


@pytest.mark.parametrize("case", GOLDEN["cutmix"])
def test_cutmix_as_the_reference_pastes(case: dict[str, object]) -> None:
    images = torch.stack([torch.zeros(3, case["height"], case["width"]), torch.ones(3, case["height"], case["width"])])
    labels = torch.tensor(case["target_a"])
    drawn = Numbers(random=[0.5], beta=[case["lam_drawn"]], permutation=[np.array(case["permutation"])],
                    integers=list(case["center"]))  # fmt: skip
    mixed, (first, second, share) = CutMix().change_batch(images, labels, drawn)
    assert mixed[0, 0].int().tolist() == case["first_image_after"] and torch.equal(mixed[0, 0], mixed[0, 2])
    assert share == pytest.approx(case["lam_used"])
    assert (first.tolist(), second.tolist()) == (case["target_a"], case["target_b"])
    assert not images[0].any()


def test_cutmix_counts_its_share_pixel_by_pixel() -> None:
    """Images of constant values tell which pixel came from whom."""
    images, labels = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 9, 14), torch.arange(5)
    boxes = set()
    for seed in range(30):
        mixed, (first, second, share) = CutMix(beta=0.7).change_batch(images, labels, np.random.default_rng(seed))
        for image, own, other in zip(mixed[:, 0].tolist(), first.tolist(), second.tolist(), strict=True):
            values = [value for row in image for value in row]
            assert set(values) <= {own, other}
            if own != other:
                assert values.count(own) / len(values) == pytest.approx(share)
        boxes.add(share)
    assert len(boxes) > 10


def test_cutmix_mixes_so_often_and_its_loss_both_labels() -> None:
    images, labels, golden = torch.rand(4, 3, 8, 8), torch.arange(4), GOLDEN["cutmix_loss"]
    draws = [CutMix(prob=0.3).change_batch(images, labels, np.random.default_rng(seed))[0] for seed in range(200)]
    assert 20 <= sum(not torch.equal(mixed, images) for mixed in draws) <= 75
    logits = torch.tensor(golden["logits"])
    targets = torch.tensor(golden["target_a"]), torch.tensor(golden["target_b"]), golden["lam"]
    answer, loss = CutMix().loss(lambda _: logits, images, targets, nn.CrossEntropyLoss())
    assert float(loss) == pytest.approx(golden["loss"]) and answer is logits


# ---- ADL


@pytest.mark.parametrize("case", GOLDEN["adl"])
def test_adl_as_the_reference_drops(case: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    draws = [case["random_number"]]
    monkeypatch.setattr(torch, "rand", lambda *_: torch.tensor(draws.pop(0)))
    layer = networks.ADL(case["drop_rate"], case["threshold"])
    maps = torch.tensor(case["input"], requires_grad=True)
    output = layer(maps)
    torch.testing.assert_close(output, torch.tensor(case["output"]))
    output.sum().backward()
    torch.testing.assert_close(maps.grad, torch.tensor(case["gradient_of_sum"]))
    assert layer.eval()(maps).tolist() == case["eval_output"]
    assert draws == []  # one draw for the whole batch


def adl_twin(maps: np.ndarray, drops: bool, threshold: float) -> np.ndarray:
    result = np.empty_like(maps)
    for number, image in enumerate(maps):
        channels, height, width = image.shape
        attention = [[sum(image[:, y, x]) / channels for x in range(width)] for y in range(height)]
        highest = max(max(row) for row in attention)
        for y in range(height):
            for x in range(width):
                kept = float(attention[y][x] < threshold * highest)
                result[number, :, y, x] = image[:, y, x] * (kept if drops else 1 / (1 + math.exp(-attention[y][x])))
    return result


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_adl_is_its_twin(rate: float) -> None:
    maps = torch.rand(3, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    output = networks.ADL(rate, 0.7)(maps)
    np.testing.assert_allclose(output, adl_twin(maps.numpy(), rate == 1, 0.7), rtol=1e-12)


# ---- ACoL


@pytest.mark.parametrize("case", GOLDEN["acol_erase"])
def test_acol_erases_as_the_reference_does(case: dict[str, object]) -> None:
    classifier = shapes_classifier(weights=None, num_classes=2)
    networks.adapt(classifier, "acol", threshold=case["threshold"])
    class_map = torch.tensor(case["class_map"])[:, 0]
    erased = classifier.module.erase(torch.ones(len(class_map), 7, *class_map.shape[1:]), class_map)
    assert erased[:, 3].int().tolist() == case["kept"]


def test_acols_second_head_sees_what_the_first_leaves() -> None:
    """Pixel by pixel; the loss is the sum of both heads', and none flows through the mask."""
    classifier = shapes_classifier(weights=None, num_classes=4, seed=2)
    ACoL(threshold=0.6).change_network(classifier)
    module, images, labels = classifier.module.eval(), torch.randn(3, 3, 32, 32), torch.tensor([3, 0, 1])
    logits, loss = ACoL().loss(module, images, labels, nn.CrossEntropyLoss())
    features = module.features(images)
    first = module.classifier_A(features).detach()
    left = features.clone()
    for number, label in enumerate(labels.tolist()):
        attention = first[number, label]
        low, high = float(attention.min()), float(attention.max())
        for y in range(attention.shape[0]):
            for x in range(attention.shape[1]):
                if (float(attention[y, x]) - low) / (high - low) >= 0.6:
                    left[number, :, y, x] = 0
    second = module.classifier_B(left).mean((2, 3))
    torch.testing.assert_close(logits, first.mean((2, 3)))
    expected = nn.functional.cross_entropy(logits, labels) + nn.functional.cross_entropy(second, labels)
    torch.testing.assert_close(loss, expected)
    golden = GOLDEN["acol_loss"]
    heads = {"logits": torch.tensor(golden["logits_a"]), "erased": torch.tensor(golden["logits_b"])}
    _, loss = ACoL().loss(lambda *_: heads, images, torch.tensor(golden["label"]), nn.CrossEntropyLoss())
    assert float(loss) == pytest.approx(golden["loss"])


# ---- SPG


def seeds_twin(guide: np.ndarray, high: float, low: float) -> np.ndarray:
    labels = np.full(guide.shape, 255)
    for number, image in enumerate(guide):
        cut = high if sum(value > high for value in image.ravel()) >= 30 else 0.7 * image.max()
        for place in np.ndindex(image.shape):
            if image[place] > cut:
                labels[(number, *place)] = 1
            if image[place] < low:
                labels[(number, *place)] = 0
    return labels


@pytest.mark.parametrize("case", GOLDEN["spg_mask"])
def test_spgs_targets_as_the_reference_sets_them(case: dict[str, object]) -> None:
    guide = torch.tensor(case["attention"], dtype=torch.float64)
    labels = seeds(guide, case["high"], case["low"])
    # The reference counts on 224 × 224 pixels; the case's maps are as they are.
    assert labels.tolist() == case["mask"]
    assert np.array_equal(labels, seeds_twin(guide.numpy(), case["high"], case["low"]))


def test_spgs_targets_are_their_twins() -> None:
    guide = torch.rand(4, 9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    guide[1] *= 0.3
    for high, low in ((0.7, 0.05), (0.9, 0.2), (0.5, 0.6)):
        assert np.array_equal(seeds(guide, high, low), seeds_twin(guide.numpy(), high, low))


def test_spgs_branches_learn_from_decided_pixels() -> None:
    golden = GOLDEN["spg_bce"]
    logits, labels = torch.tensor(golden["logits"]), torch.tensor(golden["labels"])
    assert float(guidance_loss(logits, labels)) == pytest.approx(golden["loss"])
    assert float(guidance_loss(logits, torch.full_like(labels, 255))) == 0  # there it is NaN


def test_spgs_loss_and_its_parts() -> None:
    golden = GOLDEN["spg_loss"]
    maps, labels = torch.tensor(golden["class_maps"]), torch.tensor(golden["label"])
    sides = {name: torch.tensor(golden[f"logits_{name}"])[:, 0].requires_grad_() for name in ("b1", "b2", "c")}
    answer = {"logits": maps.mean((2, 3)), "class_map": maps[:, golden["label"][0]].requires_grad_(), **sides}
    high, low = zip(*golden["thresholds"], strict=True)
    _, loss = SPG(high=high, low=low).loss(lambda *_: answer, maps, labels, nn.CrossEntropyLoss())
    assert float(loss) == pytest.approx(golden["total"])
    loss.backward()
    assert answer["class_map"].grad is None and all(bool(side.grad.any()) for side in sides.values())  # targets teach


def test_spg_with_a_constant_map_is_finite() -> None:
    answer = {"logits": torch.zeros(2, 3), "class_map": torch.ones(2, 4, 4), **dict.fromkeys("c", torch.zeros(2, 4, 4))}
    answer |= {"b1": torch.zeros(2, 4, 4), "b2": torch.zeros(2, 4, 4)}
    _, loss = SPG().loss(lambda *_: answer, torch.zeros(2), torch.tensor([0, 1]), nn.CrossEntropyLoss())
    assert bool(torch.isfinite(loss))


# ---- all of them


def thin(classes: int = 2, seed: int = 0) -> Classifier:
    classifier = shapes_classifier(weights=None, num_classes=classes, seed=seed)
    classifier.input_size = (32, 32)
    return classifier


@pytest.mark.parametrize("name", METHODS)
def test_one_step_changes_every_parameter_and_only_what_learns(name: str) -> None:
    classifier, method = thin(), METHODS[name]
    method.change_network(classifier)
    module = classifier.module.train()
    module.features[0].weight.requires_grad_(False)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    optimization = Optimization(module, Recipe(optimizer="sgd", lr=0.1, weight_decay=0.0), 8, torch.device("cpu"))
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 2
    changed, targets = method.change_batch(images, labels, np.random.default_rng(0))
    _, loss = method.loss(module, changed, targets, nn.CrossEntropyLoss())
    optimization.step(loss)
    same_as_before = {key for key, value in module.named_parameters() if torch.equal(value, before[key])}
    assert same_as_before == {"features.0.weight"}


def test_each_part_of_a_loss_reaches_its_own_branch() -> None:
    classifier = thin()
    ACoL().change_network(classifier)
    heads = classifier.module(torch.randn(4, 3, 32, 32), torch.arange(4) % 2)
    heads["logits"].sum().backward()
    assert classifier.module.classifier_B[0].weight.grad is None and classifier.module.classifier_A[0].weight.grad.any()
    classifier = thin()
    SPG().change_network(classifier)
    maps = classifier.module(torch.randn(4, 3, 32, 32), torch.arange(4) % 2)
    maps["b1"].sum().backward()
    reached = {name.split(".")[0] for name, value in classifier.module.named_parameters() if value.grad is not None}
    assert reached == {"features", "SPG_B_1a", "SPG_B_shared"}


@pytest.mark.parametrize(
    "name", ["cutmix", "adl", "spg", *(pytest.param(name, marks=pytest.mark.long) for name in ("has", "acol"))]
)
def test_interrupted_and_resumed_is_the_same_to_the_bit(tmp_path: Path, name: str) -> None:
    method, plan = METHODS[name], recipe(epochs=2, lr=0.01)
    stages, broken = [Stage(dataset=Tints(), recipe=plan)], Tints()
    whole = run(thin(), stages, method=method, run_dir=tmp_path / "whole", seed=3)
    broken.left = 30
    with pytest.raises(KeyboardInterrupt):
        run(thin(), [Stage(dataset=broken, recipe=plan)], method=method, run_dir=tmp_path / "parts", seed=3)
    torch.manual_seed(999)
    resumed = run(thin(seed=9), stages, method=method, run_dir=tmp_path / "parts", seed=3, resume=True)
    assert same(weights(resumed.classifier), weights(whole.classifier))
    assert not same(weights(whole.classifier), weights(run(thin(), stages, method=method, seed=4).classifier))
    other = METHODS["none"] if name in ("has", "cutmix") else type(method)(**{"high": (0.6, 0.6, 0.6)} if name == "spg"
                                                                          else {"threshold": 0.55})  # fmt: skip
    with pytest.raises(UserError, match="method"):
        run(thin(), stages, method=other, run_dir=tmp_path / "parts", seed=3, resume=True)


def test_a_method_of_ones_own() -> None:
    seen: list[tuple[int, ...]] = []

    @settings
    class Dim(TrainingMethod):
        share: float = 0.5

        def change_batch(self, images: torch.Tensor, labels: torch.Tensor, random: np.random.Generator) -> tuple:
            seen.append(tuple(images.shape))
            return images * (1 - self.share * random.random()), labels

    done = run(thin(), [Stage(dataset=Tints(), recipe=recipe(epochs=1))], method=Dim(share=0.2))
    assert seen == [(8, 3, 32, 32)] * 3 and len(done.history) == 1
    with pytest.raises(UserError, match="share"):
        Dim(share="much")
