"""The head behind a layer: result and proved for every family that has one, refused for the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision import models

from wsol.errors import UserError
from wsol.heatmaps import HeatmapExtractor, make_method
from wsol.models import alexnet_gap, gapnet, tiny_resnet18, vgg16_gap

WITH_HEAD: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: models.resnet18(num_classes=7),
    "densenet121": lambda: models.densenet121(num_classes=7),
    "googlenet": lambda: models.googlenet(num_classes=7, init_weights=False),
    "inception_v3": lambda: models.inception_v3(num_classes=7, init_weights=False),
    "mobilenet_v2": lambda: models.mobilenet_v2(num_classes=7),
    "efficientnet_b0": lambda: models.efficientnet_b0(num_classes=7),
    "regnet_y_400mf": lambda: models.regnet_y_400mf(num_classes=7),
    "convnext_tiny": lambda: models.convnext_tiny(num_classes=7),
    "swin": lambda: models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=7),
    "squeezenet1_1": lambda: models.squeezenet1_1(num_classes=7),
    "shufflenet": lambda: models.shufflenet_v2_x0_5(num_classes=7),
    "alexnet_gap": lambda: alexnet_gap(num_classes=7).module,
    "vgg16_gap": lambda: vgg16_gap(num_classes=7, channels=16).module,
    "gapnet": lambda: gapnet(7),
    "tiny_resnet18": lambda: tiny_resnet18(num_classes=7).module,
}
PLAIN = ("googlenet", "inception_v3", "efficientnet_b0", "regnet_y_400mf", "shufflenet")  # a head like resnet18's


def shown(name: str) -> torch.Tensor:
    side = 139 if name in ("inception_v3", "little but the bias") else 96  # more than one place is left
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def lively(model: nn.Module) -> nn.Module:
    """Some heads begin at zero, and batch normalization at mean 0 and variance 1: give every parameter noise."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.LayerNorm | nn.BatchNorm2d):
            for parameter in module.parameters(recurse=False):
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in PLAIN else name for name in WITH_HEAD]
)
def test_mean_of_cam_and_bias_is_the_logit(name: str) -> None:
    torch.manual_seed(0)
    model = lively(WITH_HEAD[name]())
    seen = []

    def keep(recording: object) -> torch.Tensor:
        seen.append(recording)
        return torch.zeros(2, 1, 1)

    targets = torch.tensor([5, 2])
    with HeatmapExtractor(model, {"cam": make_method("cam"), "keep": make_method(keep)}) as extractor:
        result = extractor(shown(name), targets)
        head = seen[0].head
    bias = head.bias[targets] if head.bias.ndim == 1 else head.bias[range(2), targets]
    maps = result.maps["cam"] + bias[:, None, None]
    logits = (maps.relu() if head.relu else maps).mean((1, 2))
    torch.testing.assert_close(logits, result.logits[range(2), targets], rtol=1e-3, atol=1e-3)
    assert head.relu == (name == "squeezenet1_1")
    assert result.maps["cam"].abs().max() > 0


def test_squeezenets_own_channel_is_cam_at_its_last_convolution_too() -> None:
    """There the layer has a channel for each class; its ReLU works in place, so it is part of what was recorded."""
    torch.manual_seed(0)
    model = models.squeezenet1_1(num_classes=7).eval()
    targets = torch.tensor([5, 2])
    methods = {"a": make_method("cam"), "b": make_method("cam", layer="classifier.1")}
    with HeatmapExtractor(model, methods) as extractor:
        result = extractor(shown("squeezenet"), targets).maps
    bias = model.classifier[1].bias.detach()[targets]
    torch.testing.assert_close(result["b"], (result["a"] + bias[:, None, None]).relu(), rtol=1e-4, atol=1e-5)


def network_in_network(inplace: bool) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout(), nn.Conv2d(8, 7, 1), nn.ReLU(inplace)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ).eval()


@pytest.mark.parametrize("inplace", [False, True])
def test_network_in_networks_own_channel_before_its_relu(inplace: bool) -> None:
    model, targets = network_in_network(inplace), torch.tensor([5, 2])
    methods = {"default": make_method("cam"), "convolution": make_method("cam", layer="3")}
    with HeatmapExtractor(model, methods) as extractor:
        assert extractor.layers["default"] == "2"
        result = extractor(shown(""), targets).maps
    with torch.no_grad():
        own = model[:4](shown(""))[range(2), targets]
    assert own.min() < 0
    bias = model[3].bias.detach()[targets][:, None, None]
    torch.testing.assert_close(result["default"], own - bias)
    torch.testing.assert_close(result["convolution"], own.relu() if inplace else own)


def pooled(*parts: nn.Module, weight: float = 1.0) -> nn.Sequential:
    linear = nn.Linear(8, 7)
    linear.weight.data *= weight
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *parts, nn.Flatten(), linear)


class Hidden(nn.Module):
    """A hidden layer behind the pooling, and a large bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.hidden, self.fc = nn.Conv2d(3, 16, 3), nn.Linear(16, 16), nn.Linear(16, 4)
        self.fc.bias.data *= 1000

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.hidden(self.conv(x).relu().mean((2, 3))).relu())


def vit() -> nn.Module:
    return models.VisionTransformer(96, 16, 2, 2, 16, 32, num_classes=7)


NOT_PROVED: dict[str, tuple[Callable[[], nn.Module], str | None]] = {
    "a head of zeros, as torchvision's ViT begins": (vit, "encoder.layers.encoder_layer_1.ln_1"),
    "little but the bias": (lambda: models.inception_v3(num_classes=7, init_weights=False), "Mixed_7b"),
    "a maximum": (lambda: lively(pooled(nn.AdaptiveMaxPool2d(1))), None),
    "a maximum with small weights": (lambda: pooled(nn.AdaptiveMaxPool2d(1), weight=1e-4), "1"),
    "a hidden layer of its own": (lambda: lively(models.mobilenet_v3_small(num_classes=7)), None),
    "the class token": (lambda: lively(vit()), None),
    **{f"a hidden layer, {dtype}": (lambda dtype=dtype: Hidden().to(dtype), "conv")
       for dtype in (torch.float32, torch.float16, torch.bfloat16)},
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_PROVED)
def test_what_is_not_proved_is_refused_and_the_error_says_what_works(name: str) -> None:
    make, layer = NOT_PROVED[name]
    torch.manual_seed(0)
    model = make().eval()
    with (
        pytest.raises(UserError, match="has no such head there .*use gradcam"),
        HeatmapExtractor(model, ("cam",), layer) as extractor,
    ):
        extractor(shown(name).to(next(model.parameters()).dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_folded_norm_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    setting = [models.convnext.CNBlockConfig(8, 16, 1), models.convnext.CNBlockConfig(16, None, 1)]
    model, targets = lively(models.ConvNeXt(setting, num_classes=7)), torch.tensor([5, 2])
    with HeatmapExtractor(model, ("cam",)) as extractor:
        exact = extractor(shown(""), targets).maps["cam"]
    with HeatmapExtractor(model.to(dtype), ("cam",)) as extractor:
        rough = extractor(shown("").to(dtype), targets).maps["cam"]
    assert rough.dtype == torch.float32
    assert float((rough - exact).abs().max() / exact.abs().max()) < 0.3
