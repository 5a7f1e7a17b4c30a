"""The extractor: what it takes and hands back, that it leaves no trace, and how it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from wsol.errors import UserError
from wsol.heatmaps import HeatmapExtractor, Recording, make_method
from wsol.models import Classifier, gapnet


def images(count: int = 3, side: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> nn.Module:
    net = gapnet(7, widths=(6, 8), strides=(2, 2), seed=0)
    return net.eval()


def traces(model: nn.Module) -> list[object]:
    """All that an extractor might leave behind."""
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    values = [float(value.double().sum()) for value in model.state_dict().values()]
    return [hooks, modes, flags, values, torch.is_grad_enabled()]


def half_frozen() -> nn.Module:
    model = gapnet(7, widths=(6, 8), strides=(2, 2), seed=0).train()
    model.features[1].eval()
    model.features[0].weight.requires_grad_(False)
    model.features[4].register_forward_hook(lambda module, inputs, output: None)
    return model


def test_model_is_as_before() -> None:
    model = half_frozen()
    before = traces(model)
    with HeatmapExtractor(model, ("cam", "gradcam")) as extractor:
        assert not any(module.training for module in model.modules())
        extractor(images())
        assert traces(model)[0] == before[0]
        extractor(images(), torch.tensor([[1, 2]] * 3))
    assert traces(model) == before
    assert all(parameter.grad is None for parameter in model.parameters())


def broken(recording: Recording) -> torch.Tensor:
    raise RuntimeError("broken method")


@pytest.mark.parametrize("where", ["beginning", "method", "forward", "target", "block"])
def test_model_is_as_before_also_after_an_exception(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = half_frozen()
    before = traces(model)
    if where == "beginning":
        monkeypatch.setattr("wsol.heatmaps.extractor.channels_last", lambda model: broken(model))
    method = broken if where == "method" else "gradcam"
    with pytest.raises((RuntimeError, UserError)), HeatmapExtractor(model, {"m": make_method(method)}) as extractor:
        if where == "block":
            raise RuntimeError
        pictures = images()[:, :2] if where == "forward" else images()
        extractor(pictures, torch.tensor([0, 7, 0]) if where == "target" else None)
    assert traces(model) == before


def test_outside_its_block_it_refuses(model: nn.Module) -> None:
    extractor = HeatmapExtractor(model)
    for _ in range(2):
        with pytest.raises(UserError, match="with"):
            extractor(images())
        with extractor:
            extractor(images())


def test_nothing_below_the_layer_builds_a_graph() -> None:
    model, seen = models.resnet18(num_classes=5), {}

    def keep(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _m, inputs, _o: seen.update({name: inputs[0]}))

    for name in ("conv1", "layer2", "layer3", "layer4", "fc"):
        keep(name, model.get_submodule(name))
    pictures = images(2, 64).requires_grad_()
    with HeatmapExtractor(model, layer="layer3") as extractor:
        extractor(pictures)
    for name in ("conv1", "layer2", "layer3"):
        assert not seen[name].requires_grad or seen[name] is pictures
        assert seen[name].grad_fn is None
    for name in ("layer4", "fc"):
        assert seen[name].grad_fn is not None
    assert pictures.grad is None


def test_without_gradient_methods_there_is_no_graph_at_all(model: nn.Module) -> None:
    seen = []
    model.classifier.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with HeatmapExtractor(model, ("cam", "random", "center")) as extractor:
        result = extractor(images())
    assert not seen[0].requires_grad
    assert not result.logits.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_callers_gradient_mode_does_not_matter_and_stays(model: nn.Module, mode: type) -> None:
    with HeatmapExtractor(model) as extractor:
        expected = extractor(images())
        with mode():
            before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            result = extractor(images(), expected.targets.clone())
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    assert torch.equal(result.maps["gradcam"], expected.maps["gradcam"])
    assert not result.maps["gradcam"].requires_grad


def test_logits_are_the_models_and_the_forward_pass_is_one(model: nn.Module) -> None:
    calls, methods = [], ("cam", "gradcam", "random", "center", "full")
    model.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    with HeatmapExtractor(model, methods, "features") as extractor:
        result = extractor(images())
    assert calls == [3]
    with torch.no_grad():
        torch.testing.assert_close(result.logits, model(images()))


@pytest.mark.parametrize(("classes", "columns"), [(7, 5), (3, 3)])
def test_highest_logits_unless_told(classes: int, columns: int) -> None:
    with HeatmapExtractor(gapnet(classes, widths=(6, 8), strides=(2, 2), seed=0), ("cam",)) as extractor:
        five, one = extractor(images(), targets="top5"), extractor(images())
    assert torch.equal(five.targets, five.logits.argsort(1, descending=True)[:, :columns])
    assert five.maps["cam"].shape == (3, columns, 8, 8)
    assert torch.equal(one.targets, five.targets[:, 0]) and torch.equal(one.maps["cam"], five.maps["cam"][:, 0])


@pytest.mark.parametrize(
    "targets",
    [
        torch.tensor([0, 7, 0]), torch.tensor([[0, 1], [2, 3], [4, -1]]), torch.tensor([0, 1]), torch.tensor(1),
        torch.zeros(3, 2, 2, dtype=torch.long), torch.zeros(3, 0, dtype=torch.long), torch.zeros(3),
        torch.ones(3).cfloat(), torch.tensor([True, False, True]), "top3",
    ],
)  # fmt: skip
def test_targets_that_are_none(model: nn.Module, targets: object) -> None:
    with pytest.raises(UserError, match="targets"), HeatmapExtractor(model) as extractor:
        extractor(images(), targets)


def test_targets_and_names_as_lists_and_arrays(model: nn.Module) -> None:
    with HeatmapExtractor(model, ("gradcam", "random")) as extractor:
        heatmaps = extractor(images(), torch.tensor([1, 3, 0]), ["a", "b", "c"])
        for targets in ([1, 3, 0], np.array([1, 3, 0])):
            other = extractor(images(), targets, np.array(["a", "b", "c"]))
            assert all(torch.equal(other.maps[name], heatmaps.maps[name]) for name in heatmaps.maps)
        assert extractor(images(), [[1, 2]] * 3).maps["gradcam"].shape == (3, 2, 8, 8)


def test_a_methods_layer_goes_before_the_extractors_and_that_before_the_classifiers(classifier: Classifier) -> None:
    classifier.layer = "features.2"
    with HeatmapExtractor(classifier, ("gradcam", "center")) as extractor:
        assert extractor.layers == {"gradcam": "features.2", "center": ""}
        assert extractor(images()).maps["gradcam"].shape == (3, 16, 16)
    methods = {"a": make_method("gradcam", "features.0"), "b": make_method("gradcam")}
    assert HeatmapExtractor(classifier, methods, "features.3").layers == {"a": "features.0", "b": "features.3"}


class Odd(nn.Module):
    """Layers that can't be looked at, each for another reason."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 5)
        self.unused, self.split = nn.Conv2d(3, 4, 3), Split()

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        self.unused(pictures)
        return self.head(self.pool(self.split(self.conv(pictures))[0]).flatten(1))


class Split(nn.Module):
    def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return maps, maps


@pytest.mark.parametrize("layer", ["split", "head", "unused"])
@pytest.mark.parametrize("method", ["eigencam", "gradcam"])
def test_layers_that_can_not_be_looked_at(layer: str, method: str) -> None:
    model = Odd()
    before = traces(model)
    if (layer, method) == ("unused", "eigencam"):  # nothing depends on it, but without gradients none asks
        with HeatmapExtractor(model, (method,), layer) as extractor:
            assert extractor(images()).maps[method].any()
    else:
        with pytest.raises(UserError, match=f"layer {layer}"), HeatmapExtractor(model, (method,), layer) as extractor:
            extractor(images())
    assert traces(model) == before


@pytest.mark.parametrize("method", ["cam", "gradcam", "scorecam"])
def test_what_is_not_finite_is_named(model: nn.Module, method: str) -> None:
    pictures = images()
    pictures[1, 0, 4, 4] = torch.nan
    with pytest.raises(UserError) as error, HeatmapExtractor(model, (method,)) as extractor:
        extractor(pictures, None, ["a", "b", "c"])
    assert "layer features" in str(error.value) and "image b (number 1" in str(error.value)
    model.classifier.bias.data[2] = torch.inf
    with pytest.raises(UserError, match="logits.* image a "), HeatmapExtractor(model, (method,)) as extractor:
        extractor(images(), None, ["a", "b", "c"])


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_images_of_a_batch_must_not_change_each_others_logits(kind: type[nn.Module]) -> None:
    layers = nn.Conv2d(3, 4, 3), kind(4, track_running_stats=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    with pytest.raises(UserError, match="layer 1"):
        HeatmapExtractor(nn.Sequential(*layers), ("gradcam",))
    HeatmapExtractor(nn.Sequential(layers[0], nn.InstanceNorm2d(4), *layers[2:]), ("gradcam",), "1")


def test_training_mode_inside_the_block(model: nn.Module) -> None:
    with HeatmapExtractor(model) as extractor:
        model.train()
        with pytest.raises(UserError, match="training"):
            extractor(images())


@pytest.mark.parametrize(
    "value", [None, np.zeros((3, 4, 4)), *(torch.zeros(shape) for shape in ((3,), (3, 1, 8, 8), (2, 8, 8), (3, 0, 4)))]
)
def test_own_method_that_returns_no_heatmaps_is_named(model: nn.Module, value: object) -> None:
    methods = {"mine": make_method(lambda recording: value)}
    with pytest.raises(UserError, match="method mine"), HeatmapExtractor(model, methods) as extractor:
        extractor(images())


def test_one_sample_id_per_image(model: nn.Module) -> None:
    with pytest.raises(UserError, match="2 sample_ids"), HeatmapExtractor(model, ("random",)) as e:
        e(images(), None, ["a", "b"])


def test_own_function_sees_the_recording(model: nn.Module) -> None:
    seen: list[Recording] = []

    def energy(recording: Recording, power: float = 1.0) -> torch.Tensor:
        seen.append(recording)
        return (recording.activations.abs() ** power).sum(1)

    with HeatmapExtractor(model, {"energy": make_method(energy, power=2.0)}) as extractor:
        result = extractor(images(), torch.tensor([2, 0, 4]))
    (recording,) = seen
    assert recording.model is model and recording.layer == "features"
    assert torch.equal(recording.targets, result.targets) and torch.equal(recording.logits, result.logits)
    with torch.no_grad():
        torch.testing.assert_close(recording.activations, model.features(images()))
    torch.testing.assert_close(result.maps["energy"], (recording.activations**2).sum(1))


def test_a_classifiers_own_class_map_is_what_cam_gives() -> None:
    """For its own layer only; the tables call it what it calls itself; gradient methods see the network as ever."""

    def own(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return features[torch.arange(len(targets)), targets]  # (B, h, w)

    own.layer = "features:own"
    module, images = gapnet(3, widths=(6, 8), strides=(2, 2), seed=0), torch.rand(2, 3, 32, 32)
    classifier = Classifier(name="small", module=module, layer="features", class_map=own)
    methods = {"cam": "cam", "earlier": make_method("cam", layer="features.5"), "gradcam": "gradcam"}
    with HeatmapExtractor(classifier, methods) as extractor:
        heatmaps = extractor(images, torch.tensor([[1, 2], [0, 1]]))
        assert extractor.layers == {"cam": "features:own", "earlier": "features.5", "gradcam": "features"}
        maps = module.features(images)
        expected = torch.stack([maps[torch.arange(2), column] for column in heatmaps.targets.T], 1)
        torch.testing.assert_close(heatmaps.maps["cam"], expected)
    with HeatmapExtractor(module, methods, layer="features") as extractor:
        plain = extractor(images, heatmaps.targets)
    assert not torch.allclose(plain.maps["cam"], heatmaps.maps["cam"])
    for name in ("earlier", "gradcam"):
        assert torch.equal(plain.maps[name], heatmaps.maps[name])
