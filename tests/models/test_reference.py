"""Networks for training methods are those of Choe et al.'s code: names, sizes, groups; and its files load."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from wsol.errors import UserError
from wsol.heatmaps import HeatmapExtractor
from wsol.models import (
    Classifier,
    inception_v3_gap,
    save_checkpoint,
    shapes_classifier,
    tiny_resnet18,
    torchvision_classifier,
    vgg16_gap,
)
from wsol.models.reference import ADL, adapt, is_slow

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "training.json").read_text())
MAKERS = {"vgg16": vgg16_gap, "resnet50": partial(torchvision_classifier, "resnet50"), "inception_v3": inception_v3_gap}


def reference(architecture: str, method: str, large: bool, classes: int = 200) -> Classifier:
    """A network on no device at all: only its names and sizes."""
    with torch.device("meta"):
        classifier = MAKERS[architecture](num_classes=classes, output_stride=8 if large else 16)
        if method != "cam":
            adapt(classifier, method)
    return classifier


def their_name(name: str, classifier: Classifier) -> str:
    """The reference's name of a parameter of ours: only the plain VGG has others."""
    if "gap" not in classifier.name or "vgg" not in classifier.name or not hasattr(classifier.module, "classifier"):
        return name
    last = max(int(key.split(".")[1]) for key in classifier.module.state_dict() if key.startswith("features."))
    return name.replace(f"features.{last}.", "conv6.").replace("classifier.", "fc.")


@pytest.mark.parametrize("golden", GOLDEN["networks_200_classes"], ids=lambda g: f"{g['architecture']}-{g['method']}")
def test_names_sizes_and_learning_rates_of_all_24_networks(golden: dict[str, object]) -> None:
    classifier = reference(golden["architecture"], golden["method"], golden["large_feature_map"])
    module = classifier.module
    names = {their_name(name, classifier): value for name, value in module.state_dict().items()}
    parameters = {their_name(name, classifier): value for name, value in module.named_parameters()}
    assert (len(names), len(parameters)) == (golden["tensors_in_state_dict"], golden["parameter_tensors"])
    assert sum(value.numel() for value in parameters.values()) == golden["parameters"]
    assert golden["first_last_keys"][0] in names and golden["first_last_keys"][1] in names
    with_parameters = {name.split(".")[0] for name in parameters}
    assert with_parameters <= set(golden["top_level"])
    fast = {their_name(name, classifier) for name, _ in module.named_parameters() if not is_slow(name, module)}
    assert sorted({name.rpartition(".")[0] for name in fast}) == golden["modules_at_10x"]
    assert sum(parameters[name].numel() for name in fast) == golden["parameters_at_10x"]
    at = golden["adl_at"] if golden["method"] == "adl" else []
    assert [name for name, layer in module.named_modules() if isinstance(layer, ADL)] == at
    sizes = []
    layer = module.get_submodule(classifier.layer)
    layer.register_forward_hook(lambda _m, _i, output: sizes.append(list(output.shape[2:])))
    with torch.no_grad():
        assert module.eval()(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 200)
    assert sizes == [golden["cam_size"]]


@pytest.mark.parametrize("golden", GOLDEN["vgg_pretrained_keys"], ids=lambda g: g["method"])
def test_where_torchvisions_vgg_weights_land(golden: dict[str, object]) -> None:
    """The convolutions of the plain network keep their order through every method."""
    classifier = reference("vgg16", golden["method"], golden["large_feature_map"])
    theirs = golden["torchvision_to_here"]
    in_order = [theirs[name] for name in sorted(theirs, key=lambda name: int(name.split(".")[1]))]
    names = [their_name(name, classifier) for name, value in classifier.module.state_dict().items() if value.ndim == 4]
    assert names[:13] == in_order


@pytest.mark.parametrize("method", ["adl", "spg"])
def test_shifted_blocks_of_resnet(method: str) -> None:
    with torch.device("meta"):
        plain = MAKERS["resnet50"](num_classes=2)
    before = dict(plain.module.named_parameters())
    adapt(plain, method)
    after = {id(value): name for name, value in plain.module.named_parameters()}
    for name, shifted in GOLDEN[f"resnet_{method}_keys"].items():
        assert after[id(before[name])] == shifted


@pytest.mark.parametrize("method", ["cam", "adl", "acol", "spg"])
@pytest.mark.parametrize(
    ("architecture", "large"), [("vgg16", False), ("vgg16", True), ("resnet50", True), ("inception_v3", False)]
)
@pytest.mark.long
def test_files_of_the_reference_load_and_say_what_they_are(
    tmp_path: Path, architecture: str, method: str, large: bool
) -> None:
    """As torch.save writes its checkpoints, with no word about the method: nothing is missing, nothing left over."""
    make = partial(MAKERS[architecture], output_stride=8 if large else 16)
    original = make(num_classes=3, seed=4)
    if method != "cam":
        adapt(original, method)
    state = {their_name(name, original): value for name, value in original.module.state_dict().items()}
    torch.save({"architecture": architecture, "epoch": 3, "state_dict": state}, tmp_path / "last_checkpoint.pth.tar")
    loaded = make(checkpoint=tmp_path / "last_checkpoint.pth.tar")
    # Parameterless ADL leaves no trace in Inception's names.
    expected = {} if method == "cam" or (architecture, method) == ("inception_v3", "adl") else {"name": method}
    assert loaded.training_method == expected and loaded.layer == original.layer
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(images), original.module.eval()(images))


OWN = {
    "shapes": partial(shapes_classifier, weights=None, num_classes=3),
    "tiny_resnet18": partial(tiny_resnet18, num_classes=3),
    "vgg16_gap": partial(vgg16_gap, num_classes=3),
    "resnet18": partial(torchvision_classifier, "resnet18", num_classes=3),
    "inception_v3_gap": partial(inception_v3_gap, num_classes=3),
}
SMALL = ("shapes", "tiny_resnet18")
NAMES = [pytest.param(name, marks=[] if name in SMALL else pytest.mark.long) for name in OWN]


@pytest.mark.parametrize("method", ["adl", "acol", "spg"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_built_again_and_explained(tmp_path: Path, name: str, method: str) -> None:
    classifier = OWN[name](seed=1)
    adapt(classifier, method, **({} if method == "spg" else {"threshold": 0.6}))
    save_checkpoint(classifier, tmp_path / "weights.safetensors")
    keyword = "weights" if name == "shapes" else "checkpoint"
    loaded = OWN[name].func(*OWN[name].args, **{keyword: tmp_path / "weights.safetensors"})
    assert loaded.training_method["name"] == method and loaded.layer == classifier.layer
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([2, 0])
    with HeatmapExtractor(loaded, ("cam", "gradcam", "layercam")) as extractor:
        heatmaps = extractor(images, targets)
        with torch.no_grad():
            torch.testing.assert_close(heatmaps.logits, classifier.module.eval()(images), atol=1e-4, rtol=1e-3)
        assert extractor.layers["cam"] == ("acol:both" if method == "acol" else loaded.layer)
    if method == "acol":
        assert heatmaps.maps["cam"].min() >= 0 and heatmaps.maps["cam"].amax((1, 2)).tolist() == [1, 1]
    else:  # the mean of a class's map is its logit
        bias = 0 if method == "spg" else [m for m in loaded.module.modules() if hasattr(m, "bias")][-1].bias[targets]
        logits = heatmaps.logits[torch.arange(2), targets]
        torch.testing.assert_close(heatmaps.maps["cam"].mean((1, 2)) + bias, logits, atol=1e-4, rtol=1e-3)


def test_acols_map_at_test() -> None:
    golden = GOLDEN["acol_test"]
    classifier = shapes_classifier(weights=None, num_classes=1)
    adapt(classifier, "acol")
    maps = iter([golden["map_a"], golden["map_b"]])

    class Fixed(nn.Module):
        def forward(self, _features: torch.Tensor) -> torch.Tensor:
            return torch.tensor(next(maps))

    classifier.module.classifier_A, classifier.module.classifier_B = Fixed(), Fixed()
    result = classifier.class_map(torch.ones(1, 128, 2, 2), torch.tensor([0]))
    torch.testing.assert_close(result, torch.tensor(golden["score"])[:, 0])


def test_acols_constant_map_is_empty() -> None:
    classifier = shapes_classifier(weights=None, num_classes=2)
    adapt(classifier, "acol")
    with torch.no_grad():
        classifier.module.classifier_A[4].weight.zero_()
        heatmap = classifier.class_map(torch.rand(1, 128, 4, 4), torch.tensor([1]))
    assert torch.equal(heatmap, torch.zeros(1, 4, 4))


@pytest.mark.parametrize(
    ("make", "strides", "side", "cells"),
    [
        (partial(torchvision_classifier, "resnet18", num_classes=2), (32, 16, 8), 64, (2, 4, 8)),
        (partial(torchvision_classifier, "resnet50", num_classes=2), (32, 16, 8), 64, (2, 4, 8)),
        (partial(tiny_resnet18, num_classes=2), (8, 4), 64, (8, 16)),
        (partial(shapes_classifier, weights=None), (8, 4, 2), 64, (8, 16, 32)),
    ],
)
def test_output_stride(make: partial, strides: tuple[int, ...], side: int, cells: tuple[int, ...]) -> None:
    for stride, cell in zip(strides, cells, strict=True):
        with torch.device("meta"):
            classifier = make(output_stride=stride)
        assert not any(getattr(layer, "dilation", (1, 1)) != (1, 1) for layer in classifier.module.modules()
                       if isinstance(layer, nn.Conv2d))  # fmt: skip
        shapes = []
        layer = classifier.module.get_submodule(classifier.layer)
        layer.register_forward_hook(lambda _m, _i, output, to=shapes: to.append(tuple(output.shape[2:])))
        classifier.module(torch.empty(1, 3, side, side, device="meta"))
        assert shapes == [(cell, cell)]


@pytest.mark.parametrize(
    "make",
    [
        partial(torchvision_classifier, "resnet18", num_classes=2, output_stride=64),
        partial(torchvision_classifier, "squeezenet1_1", num_classes=2, output_stride=8),
        partial(tiny_resnet18, num_classes=2, output_stride=32),
        partial(vgg16_gap, num_classes=2, output_stride=32),
        partial(inception_v3_gap, num_classes=2, output_stride=32),
        partial(shapes_classifier, weights=None, output_stride=16),
    ],
)
def test_strides_that_can_not_be_are_refused(make: partial) -> None:
    with torch.device("meta"), pytest.raises(UserError, match="output_stride"):
        make()


def test_networks_that_a_method_does_not_know_are_refused() -> None:
    classifier = torchvision_classifier("squeezenet1_1", num_classes=2)
    for method in ("adl", "acol", "spg"):
        with pytest.raises(UserError, match=r"squeezenet1_1"):
            adapt(classifier, method)
    adapt(classifier, "adl", layers=["features.9"])
    assert isinstance(classifier.module.features[10], ADL)
    with pytest.raises(UserError, match="adl"):
        adapt(classifier, "acol")
    with pytest.raises(UserError, match=r"features\.9\.squeeze"):
        adapt(torchvision_classifier("squeezenet1_1", num_classes=2), "adl", layers=["features.9.squeeze"])
