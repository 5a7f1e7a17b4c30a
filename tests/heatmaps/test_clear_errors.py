"""What can't give a heatmap is refused with a message that says what, where and what to do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models
from torchvision.models import swin_transformer

from wsol import HeatmapExtractor
from wsol.errors import UserError
from wsol.heatmaps import make_method
from wsol.models import default_layer, find_layer


def small() -> nn.Sequential:
    """Two convolutions, mean and head."""
    torch.manual_seed(0)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), *head).eval()


def images() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def maps(
    model: nn.Module, name: str, layer: object = None, shown: torch.Tensor | None = None, **options: object
) -> torch.Tensor:
    with HeatmapExtractor(model, {name: make_method(name, **options)}, layer) as extractor:
        return extractor(images() if shown is None else shown, torch.tensor([1, 3])).maps[name]


def refusal(run: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        run()
    return str(error.value)


class Before(nn.Module):
    """A small network with something before it."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.net, self.change = small(), change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(self.change(x))


@pytest.mark.parametrize("method", ["scorecam", "iscam", "sscam", "rise", "occlusion"])
def test_changed_images_that_have_no_finite_logits(method: str) -> None:
    model = Before(lambda x: x / x.std((1, 2, 3), keepdim=True))
    nn.init.zeros_(model.net[2].weight[0])  # a dead channel hides the whole image
    nn.init.zeros_(model.net[2].bias[0])
    options = {"rise": {"masks": 20, "cells": 1}, "occlusion": {"size": 1.0}, "sscam": {"std": 0.0, "samples": 1}}
    layer = None if method in ("rise", "occlusion") else "net.3"
    message = refusal(lambda: maps(model, method, layer, **options.get(method, {})))
    where = f"method {method} at layer net.3" if layer else f"method {method}"
    assert f"{where} gives values that are not finite for image 0 (number 0 in the batch)" in message


@pytest.mark.parametrize(
    "method", ["saliency", "guidedbackprop", "deconvnet", "guidedgradcam", "integratedgradients", "fullgrad"]
)
def test_gradients_of_pixels_that_are_not_finite(method: str) -> None:
    shown = images()
    shown[1, :, 3, 3] = 0
    message = refusal(lambda: maps(Before(lambda x: x.abs().sqrt()), method, "net.3", shown))
    assert f"method {method}" in message and "not finite for image 1 (number 1 in the batch)" in message


@pytest.mark.parametrize("method", ["guidedbackprop", "deconvnet"])
def test_relus_that_no_gradient_passes_do_not_count(method: str) -> None:
    kinds = {
        "block": swin_transformer.SwinTransformerBlockV2,
        "downsample_layer": swin_transformer.PatchMergingV2,  # version 2 has ReLUs in what makes its position biases
    }
    model = models.SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4], num_classes=5, **kinds)
    shown = torch.randn(2, 3, 32, 32)
    assert "SwinTransformer runs none between the pixels" in refusal(lambda: maps(model, method, shown=shown))


class Clipped(nn.Module):
    """A small network whose ReLUs are another function."""

    def __init__(self, clip: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.net, self.clip = small(), clip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for convolution in (self.net[0], self.net[2]):
            x = convolution(x)
            self.clip(x)
        return self.net[4:](x)


@pytest.mark.parametrize("method", ["guidedbackprop", "deconvnet"])
def test_hardtanh_in_place_is_a_relu6(method: str) -> None:
    wanted = maps(Clipped(lambda x: functional.relu6(x, inplace=True)), method)
    found = maps(Clipped(lambda x: functional.hardtanh_(x, 0, 6)), method)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(maps(Clipped(lambda x: functional.hardtanh_(x, min_val=0, max_val=6)), method), wanted)


class Scripted(nn.Module):
    """A small network one part of which is a script."""

    def __init__(self) -> None:
        super().__init__()
        net = small()
        self.first, self.script, self.head = net[:2], torch.jit.script(net[2:4]), net[4:]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.script(self.first(x)))


@pytest.mark.parametrize("method", ["guidedbackprop", "deconvnet", "guidedgradcam", "fullgrad", "ablationcam"])
def test_scripted_parts_hide_what_a_method_needs(method: str) -> None:
    layer = "first" if method in ("guidedgradcam", "ablationcam") else None
    message = refusal(lambda: maps(Scripted(), method, layer))
    assert "layer script of this Scripted is a torch.jit script or trace" in message


def test_scripted_parts_beside_the_target_layer() -> None:
    torch.testing.assert_close(maps(Scripted(), "gradcam", "first"), maps(small(), "gradcam", "1"))
    torch.testing.assert_close(maps(Scripted(), "saliency"), maps(small(), "saliency"))
    assert default_layer(Scripted(), (16, 16)) == "first"
    assert "layer script is a torch.jit script" in refusal(lambda: maps(Scripted(), "gradcam", "script"))
    broken = Scripted()
    nn.init.constant_(broken.first[0].weight, torch.nan)
    assert "activations of layer first.0 are not finite" in refusal(lambda: maps(broken, "saliency"))


class Cut(nn.Module):
    """A small network whose backbone runs without gradients."""

    def __init__(self, without: Callable[[], AbstractContextManager[object]]) -> None:
        super().__init__()
        net = small()
        self.backbone, self.head, self.without = net[:2], net[2:], without

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.without():
            features = self.backbone(x)
        return self.head(features.clone())


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "method",
    ["saliency", "guidedbackprop", "deconvnet", "guidedgradcam", "smoothgrad", "integratedgradients", "fullgrad"],
)
def test_backbone_without_gradients(method: str, without: Callable[[], AbstractContextManager[object]]) -> None:
    layer = "head.3" if method == "guidedgradcam" else None
    message = refusal(lambda: maps(Cut(without), method, layer))
    assert "the logits have no gradient with respect to the pixels" in message and "gradcam" in message
    assert maps(Cut(without), "gradcam", "head.3").any()


def test_network_that_does_not_look_at_the_pixels() -> None:
    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.own = small(), torch.ones(1, 3, 16, 16, requires_grad=True)  # no parameter: never frozen

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(self.own.expand_as(x))

    assert "no gradient with respect to the pixels" in refusal(lambda: maps(Blind(), "saliency"))
    assert "no gradient with respect to the pixels" in refusal(lambda: maps(Blind(), "fullgrad"))


@pytest.mark.parametrize(("option", "value"), [("seed", -1), ("seed", 1.5), ("chunk", 2.5), ("chunk", 0)])
def test_seed_and_chunk(option: str, value: float) -> None:
    message = refusal(lambda: HeatmapExtractor(small(), ("saliency",), **{option: value}))
    assert f"{option}={value}: pass a whole number" in message
    assert HeatmapExtractor(small(), ("saliency",), seed=np.int64(3), chunk=np.int64(3)).seed == 3


def test_layers_whose_names_are_numbers() -> None:
    wanted = maps(small(), "gradcam", "3")
    torch.testing.assert_close(maps(small(), "gradcam", 3), wanted)
    assert make_method("gradcam", layer=3).layer == "3"
    assert make_method("gradcam", layer=[2, "3"], fuse="max").layer == ("2", "3")
    assert list(HeatmapExtractor(small(), ("gradcam",), [0, 3]).methods) == ["gradcam@0", "gradcam@3"]
    assert HeatmapExtractor(small(), ("gradcam",), 0).layers == {"gradcam": "0"}
    model = small()
    assert find_layer(model, 3) is model[3]  # training.freeze=[3]
    for wrong in (2.5, True, nn.ReLU(), nn.Sequential(nn.ReLU()), [None]):
        assert "pass a layer's dotted name" in refusal(lambda wrong=wrong: make_method("gradcam", layer=wrong))


@pytest.mark.parametrize("targets", [["0", "1"], [[1], [1, 2]], np.array(["0", "1"]), [None, 1]])
def test_targets_that_are_no_numbers(targets: object) -> None:
    with HeatmapExtractor(small(), ("gradcam",), "3") as extractor:
        assert f"targets of type {type(targets).__name__} make no tensor" in refusal(
            lambda: extractor(images(), targets)
        )
        assert extractor(images(), [1, 3]).maps["gradcam"].shape == (2, 12, 12)
        assert extractor(images(), np.array([[1, 2], [3, 4]])).maps["gradcam"].shape == (2, 2, 12, 12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_images_of_another_type_than_the_weights(dtype: torch.dtype) -> None:
    message = refusal(lambda: maps(small(), "gradcam", "3", images().to(dtype)))
    assert f"images of {dtype} for a network whose weights are torch.float32" in message
    converts = Before(lambda x: x.float())
    assert maps(converts, "gradcam", "net.3", images().to(dtype)).isfinite().all()


@pytest.mark.parametrize("method", ["gradcam", "cam", "ablationcam", "scorecam"])
def test_layer_with_two_names(method: str) -> None:
    model = Before(lambda x: x)
    model.alias = model.net
    torch.testing.assert_close(maps(model, method, "alias.3"), maps(model, method, "net.3"))


def test_sample_ids_of_numpy() -> None:
    with HeatmapExtractor(small(), ("random",), "2") as extractor:
        named = extractor(images(), sample_ids=np.array(["a", "b"])).maps["random"]
        assert torch.equal(named, extractor(images(), sample_ids=["a", "b"]).maps["random"])
        assert "0 sample_ids for 2 images" in refusal(lambda: extractor(images(), sample_ids=[]))


def test_layers_with_one_value_for_the_whole_image() -> None:
    for name in ("gradcam", "eigencam", "scorecam"):
        with HeatmapExtractor(small(), (name,), "4") as extractor:
            message = refusal(lambda opened=extractor: opened(images()))
        assert "one value for the whole image; choose a layer before the pooling" in message


@pytest.mark.parametrize("name", ["cam", "eigencam", "kpcacam", "fem", "finercam", "rollout"])
def test_methods_that_look_at_no_score(name: str) -> None:
    assert f"method {name} looks at no score" in refusal(lambda: make_method(name, score="log_prob"))


def test_second_derivatives_that_are_not_finite() -> None:
    class Bent(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.abs().pow(1.5)  # its second derivative at 0 is not finite

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Bent(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    with HeatmapExtractor(model.eval(), ("gradcam", "shapleycam"), "1") as extractor:
        message = refusal(lambda: extractor(images()))
    assert "second derivatives of the logits with respect to layer 1 are not finite for image 0" in message
