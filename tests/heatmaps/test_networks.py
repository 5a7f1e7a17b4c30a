"""Networks that do what most don't: the right map, or an error that names the culprit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models, ops
from torchvision.models import swin_transformer

from wsol import HeatmapExtractor
from wsol.errors import UserError
from wsol.heatmaps import Recording, make_method
from wsol.heatmaps.pixel import full_gradients
from wsol.heatmaps.recording import record
from wsol.models import default_layer
from wsol.models.inference import frozen


def small(*behind: nn.Module, classes: int = 5) -> nn.Sequential:
    """Two convolutions, what is asked for behind them, mean and head."""
    torch.manual_seed(0)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), *(behind or (nn.ReLU(),)), *head).eval()


def images(count: int = 2, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def maps(
    model: nn.Module, name: str, layer: str | None = None, pictures: torch.Tensor | None = None, **settings: object
) -> torch.Tensor:
    pictures = images() if pictures is None else pictures
    with HeatmapExtractor(model, (name,), layer, **settings) as extractor:
        return extractor(pictures, torch.arange(len(pictures)) % 2 * 2 + 1).maps[name]


class Before(nn.Module):
    """A small network with something before it."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.net, self.change = small(), change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(self.change(x))


# --- values that are not finite ---


@pytest.mark.parametrize("name", ["scorecam", "iscam", "sscam", "rise", "occlusion"])
def test_changed_images_that_have_no_finite_logits(name: str) -> None:
    model = Before(lambda x: x / x.std((1, 2, 3), keepdim=True))
    nn.init.zeros_(model.net[2].weight[0])  # a dead channel hides the whole image
    nn.init.zeros_(model.net[2].bias[0])
    options = {"rise": {"masks": 20, "cells": 1}, "occlusion": {"size": 1.0}, "sscam": {"std": 0.0, "samples": 1}}
    method = make_method(name, **options.get(name, {}))
    with HeatmapExtractor(model, {name: method}, "net.3") as extractor, pytest.raises(UserError, match=rf"{name}.*a1"):
        extractor(images(), sample_ids=["a1", "a2"])


@pytest.mark.parametrize("name", ["saliency", "guidedbackprop", "deconvnet", "guidedgradcam", "integratedgradients"])
def test_gradients_of_pixels_that_are_not_finite(name: str) -> None:
    pictures = images()
    pictures[1, :, 3, 3] = 0
    with pytest.raises(UserError, match=rf"{name}.*image 1"):
        maps(Before(lambda x: x.abs().sqrt()), name, "net.3", pictures)


@pytest.mark.parametrize(("name", "power"), [("gradcam", 0.5), ("layercam", 0.5), ("shapleycam", 1.5)])
def test_derivatives_that_are_not_finite(name: str, power: float) -> None:
    class Power(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -x.pow(power)

    with pytest.raises(UserError, match=rf"{name}.*layer 3.*image 0"):
        maps(small(nn.ReLU(), Power()), name, "3")


# --- parts that run without gradients, as scripts, more than once ---


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
@pytest.mark.parametrize("name", ["saliency", "guidedbackprop", "smoothgrad", "integratedgradients", "fullgrad"])
def test_backbone_without_gradients(name: str, without: Callable[[], AbstractContextManager[object]]) -> None:
    with pytest.raises(UserError, match="pixels"):
        maps(Cut(without), name)
    assert maps(Cut(without), "gradcam", "head.3").any()


def test_scripts_show_no_layers() -> None:
    partly = small()
    expected = {name: maps(partly, name, "3") for name in ("gradcam", "cam", "saliency", "ablationcam")}
    partly[0] = torch.jit.script(partly[0])
    for name, heatmap in expected.items():
        torch.testing.assert_close(maps(partly, name, "3"), heatmap)
    for model, layer, name in ((partly, "0", "gradcam"), (torch.jit.trace(small(), images()), "3", "gradcam")):
        with pytest.raises(UserError, match="torch.jit"):
            maps(model, name, layer)
    for name in ("guidedbackprop", "deconvnet"):  # whose ReLUs may run unseen
        with pytest.raises(UserError, match="layer 0"):
            maps(partly, name)


@pytest.mark.parametrize("name", ["guidedbackprop", "deconvnet"])
def test_relus_that_no_gradient_passes_do_not_count(name: str) -> None:
    kinds = {
        "block": swin_transformer.SwinTransformerBlockV2,
        "downsample_layer": swin_transformer.PatchMergingV2,  # version 2 has ReLUs in what makes its position biases
    }
    model = models.SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4], num_classes=5, **kinds)
    with pytest.raises(UserError, match="SwinTransformer"):
        maps(model, name, pictures=images(2, 32, 32))


def test_one_relu_for_the_whole_network() -> None:
    relu, head = nn.ReLU(), (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, *head)
    assert default_layer(model, (16, 16)) == "4:input"
    for name in ("cam", "gradcam", "ablationcam"):  # its last run is the pooling's input
        torch.testing.assert_close(maps(model, name), maps(model, name, "1"))


@pytest.mark.parametrize("name", ["rise", "occlusion"])
def test_one_logit_is_always_certain(name: str) -> None:
    with HeatmapExtractor(small(classes=1), (name,)) as extractor, pytest.raises(UserError, match="score=prob"):
        extractor(images())
    with HeatmapExtractor(small(classes=1), {name: make_method(name, score="logit")}) as extractor:
        assert extractor(images()).maps[name].std() > 0


def test_fullgrad_leaves_linear_layers_out_wherever_they_stand() -> None:
    class Pointwise(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    model = small(Pointwise(8, 8), nn.ReLU())
    with frozen(model):
        parts = full_gradients(record(model, [], images(1), None), torch.tensor([0]))
    assert [part.ndim for part in parts] == [4, 4, 4, 2, 2]


def frozen_norm() -> nn.Module:
    norm = ops.FrozenBatchNorm2d(8)
    norm.running_mean += 1
    return norm


@pytest.mark.parametrize("behind", [nn.GELU, nn.SiLU, lambda: nn.LayerNorm([8, 12, 12]), frozen_norm, nn.Sigmoid])
def test_fullgrad_whose_parts_do_not_add_up(behind: Callable[[], nn.Module]) -> None:
    with pytest.raises(UserError, match="fullgrad"):
        maps(small(behind(), nn.ReLU()), "fullgrad")


# --- precision and modes ---


def test_formulas_are_not_calculated_in_half_precision_under_autocast() -> None:
    seen: list[tuple[torch.dtype, torch.Tensor]] = []

    def probe(recording: Recording) -> torch.Tensor:
        again = recording.run(recording.images)
        seen.append((again.dtype, (recording.logits - again).abs().max()))
        weights = recording.gradients.double().mean((2, 3))
        return torch.einsum("bk,bkhw->bhw", weights, recording.activations.double()).relu()

    methods = {"exact": make_method(probe), "gradcam": make_method("gradcam")}
    with HeatmapExtractor(small(), methods, "3") as extractor, torch.autocast("cpu", torch.bfloat16):
        heatmaps = extractor(images()).maps
    torch.testing.assert_close(heatmaps["gradcam"], heatmaps["exact"], rtol=1e-5, atol=1e-6)
    assert seen[0][0] == torch.bfloat16 and not seen[0][1], "the network itself runs as its user wants it"


# --- memory formats and what works in place ---


class Flattened(nn.Module):
    """Reads its maps with `view`, which maps in channels-last memory can't be."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8 * 16 * 16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        return self.fc(x.view(x.size(0), -1))


@pytest.mark.parametrize("name", ["gradcam", "saliency", "ablationcam", "scorecam"])
def test_networks_that_do_not_run_in_channels_last_memory(name: str) -> None:
    model, pictures = Flattened().eval(), images(4)  # as many as normalizations are folded for
    strides = model.features[0].weight.stride()
    expected = maps(model, name, "features", pictures, channels_last=False)
    torch.testing.assert_close(maps(model, name, "features", pictures), expected)
    turned = pictures.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(maps(model, name, "features", turned), expected)
    assert expected.any() and model.features[0].weight.stride() == strides


class Normalizing(nn.Module):
    """Brings its images to mean 0 by itself, in place or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.in_place = in_place
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.sub_(0.45).div_(0.22) if self.in_place else (x - 0.45) / 0.22
        return self.fc(self.conv(x).relu().mean((2, 3)))


@pytest.mark.parametrize(
    "name",
    ["saliency", "occlusion", "integratedgradients", "guidedbackprop", "smoothgrad", "scorecam",
     "ablationcam", "gradcam", "smoothgradcampp"],
)  # fmt: skip
def test_networks_that_normalize_their_images_in_place(name: str) -> None:
    pictures = images().contiguous(memory_format=torch.channels_last)
    before = pictures.clone()
    expected = maps(Normalizing(False), name, "conv", pictures)
    torch.testing.assert_close(maps(Normalizing(True), name, "conv", pictures), expected, rtol=1e-4, atol=1e-6)
    assert expected.any() and torch.equal(pictures, before)


def test_ablation_behind_a_layer_whose_output_is_worked_on_in_place() -> None:
    rectified = [maps(small(nn.ReLU(inplace)), "ablationcam", "2") for inplace in (False, True)]
    assert rectified[1].any()  # a ReLU may run again on what it has rectified
    doubled = small()
    doubled[2].register_forward_hook(lambda module, inputs, output: 2 * output)
    for model, layer in (
        (small(nn.SiLU(inplace=True)), "2"),
        (doubled, "2"),
        (models.resnet18(num_classes=5).eval(), "layer4.1.bn2"),
    ):
        with pytest.raises(UserError, match=rf"layer {layer}"):
            maps(model, "ablationcam", layer)


def test_ablation_beside_a_shortcut_that_is_masked_in_place() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
            self.fc = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            skip = self.a(x)
            skip.masked_fill_(self.b(x).mean(1, keepdim=True) < 0, 0)
            return self.fc(skip.mean((2, 3)))

    model, pictures = Masked(), images()
    together, one_by_one = (maps(model, "ablationcam", "b", pictures, chunk=chunk) for chunk in (32, 1))
    torch.testing.assert_close(together, one_by_one)
    assert together.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ablation_is_proved_whatever_the_bias(dtype: torch.dtype) -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.fc = nn.Linear(8, 4)
            nn.init.constant_(self.fc.bias, 20.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            skip = self.a(x)
            y = self.b(skip.relu())
            y += skip
            return self.fc(y.relu().mean((2, 3)))

    with pytest.raises(UserError, match="layer b"):
        maps(Added().to(dtype), "ablationcam", "b", images().to(dtype))


@pytest.mark.parametrize("layer", ["enc.layers.0", "enc.layers.1.norm1", "enc.layers.1.linear2"])
def test_ablation_inside_a_transformer_that_calculates_around_its_parts(layer: str) -> None:
    class Vit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            block = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
            self.patches, self.fc = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 4)
            self.enc = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.enc(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    model, pictures = Vit().double().eval(), images().double()
    expected = torch.zeros(2, 4, 4, dtype=torch.float64)
    tokens: list[torch.Tensor] = []
    watch = model.get_submodule(layer).register_forward_hook(lambda _, __, output: tokens.append(output.detach()))
    with torch.no_grad():
        whole = model(pictures)[[0, 1], [1, 3]]
        for channel in range(tokens[0].shape[2]):

            def ablate(_: nn.Module, __: object, output: torch.Tensor, channel: int = channel) -> torch.Tensor:
                return output.index_fill(2, torch.tensor([channel]), 0)

            handle = model.get_submodule(layer).register_forward_hook(ablate)
            lost = (whole - model(pictures)[[0, 1], [1, 3]]) / whole.abs()
            handle.remove()
            expected += lost[:, None, None] * tokens[0][:, :, channel].unflatten(1, (4, 4))
    watch.remove()
    assert expected.relu().any()
    heatmaps = maps(model, "ablationcam", layer, pictures).double()
    torch.testing.assert_close(heatmaps, expected.relu(), rtol=1e-5, atol=1e-6)


# --- layouts ---


class TurnedNorm(nn.LayerNorm):
    """Takes and yields (B, K, h, w)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = functional.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return turned.permute(0, 3, 1, 2)


@pytest.mark.parametrize(("norm", "width"), [(nn.LayerNorm((8, 12, 18)), 18), (TurnedNorm(8), 16)])
def test_norms_whose_maps_have_channels_first(norm: nn.Module, width: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    assert maps(model, "gradcam", "1", images(2, 12, width)).shape == (2, 12, width)


def test_layers_with_one_value_for_the_whole_image() -> None:
    for name in ("gradcam", "eigencam", "scorecam"):
        with pytest.raises(UserError, match="layer 4"):
            maps(small(), name, "4")


def test_windows_are_no_image() -> None:
    model = models.MaxVit((64, 64), 8, 2, [8, 8], [1, 1], 4, 0.0, num_classes=5).eval()
    block = "blocks.1.layers.0.layers"
    for inner in ("window_attention.mlp_layer.1", "grid_attention.attn_layer.0"):
        with pytest.raises(UserError, match=rf"layer {block}.{inner} "):
            maps(model, "gradcam", f"{block}.{inner}", images(1, 64, 64))


def test_places_before_the_batch_are_no_tokens() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.fc = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 4)
            self.block = nn.TransformerEncoderLayer(16, 4, 32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.block(self.patches(x).flatten(2).permute(2, 0, 1)).mean(0))

    with pytest.raises(UserError, match="layer block"):
        maps(Turned().eval(), "gradcam", "block", images(9))
