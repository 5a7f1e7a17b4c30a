"""Networks that do what most don't: the right map, or an error that names the culprit.

Of the first 66 tests 55 failed at commit 9b991df: of 12 networks that are refused here maps were made without a word,
and of every transformer the default layer was a dropout inside attention.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.nn import quantized
from torch.nn import functional
from torchvision import models, ops
from torchvision.models import swin_transformer

from tests.heatmaps import networks
from wsol import HeatmapExtractor, UserError, evaluate
from wsol.datasets import Shapes
from wsol.heatmaps import Recording, make_method
from wsol.heatmaps.pixel import full_gradients
from wsol.heatmaps.recording import record
from wsol.models import Classifier, default_layer
from wsol.models.inference import frozen


def images(count: int = 2, side: int = 16, channels: int = 3, width: int | None = None) -> torch.Tensor:
    return networks.images(count, side, channels, width).float()


class Net(nn.Module):
    """Maps (B, 8, 16, 16) of a convolution, what is done with them, and a head of five classes."""

    def __init__(self, step: Callable[[Any, torch.Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu, self.pool = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)
        for name, part in parts.items():
            self.add_module(name, part)
        self.step = step

    def forward(self, x: torch.Tensor) -> Any:
        return self.step(self, self.conv(x))

    def head(self, maps: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(maps).flatten(1))


def maps(
    model: nn.Module, layer: str | None = None, method: Any = "gradcam", pictures: torch.Tensor | None = None,
    **settings: Any,
) -> torch.Tensor:  # fmt: skip
    """Of classes 1 and 3 by turns."""
    pictures = images() if pictures is None else pictures
    asked = {str(method): method} if isinstance(method, str) else {"it": method}
    targets = torch.arange(len(pictures)) % 2 * 2 + 1
    return next(iter(networks.maps_of(model.eval(), asked, pictures, targets, layer, **settings).values()))


class Attention(nn.Module):
    """Self-attention with modules where an output of one looks like a map: 16 tokens of 16 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.q_norm, self.drop, self.proj = nn.LayerNorm(16), nn.Dropout(), nn.Linear(16, 16)
        self.bias = Positions()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        q = self.q_norm(tokens)[:, None]
        scores = self.drop((q @ q.transpose(2, 3)).softmax(-1) + self.bias(q))
        return self.proj((scores @ q)[:, 0])


class Positions(nn.Module):
    def forward(self, like: torch.Tensor) -> torch.Tensor:
        side = like.shape[2]
        return torch.linspace(0, 1, side * side).reshape(1, 1, side, side).expand(len(like), -1, -1, -1)


class Vit(nn.Module):
    """A transformer of 4 × 4 patches and tokens that stand for no place, at these positions; the first is looked at."""

    def __init__(self, places: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.norm = nn.Conv2d(3, 16, 4, 4), nn.LayerNorm(16)
        self.attn, self.fc = Attention(), nn.Linear(16, 5)
        self.places, self.tokens = places, nn.Parameter(torch.randn(len(places), 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = list(self.patches(x).flatten(2).unbind(2))
        for place, token in zip(self.places, self.tokens, strict=True):
            tokens.insert(place, token.expand(len(x), -1))
        tokens = torch.stack(tokens, 1)
        tokens = tokens + self.attn(self.norm(tokens))
        return self.fc(tokens[:, self.places[0]] if self.places else tokens.mean(1))


class Twice(nn.Module):
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.flatten(1)[:, None].expand(-1, 3, -1).reshape(-1, 8, 16, 16)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8, batch_first=True)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        assert not torch.backends.cudnn.enabled, "it differentiates recurrent layers in training only"
        return self.lstm(maps.flatten(2).transpose(1, 2))[0].transpose(1, 2).unflatten(2, maps.shape[2:])


def through(*names: str) -> Callable[[Net, torch.Tensor], torch.Tensor]:
    def step(net: Net, x: torch.Tensor) -> torch.Tensor:
        for name in names:
            x = net.get_submodule(name)(x)
        return net.head(x)

    return step


class Turned(nn.Module):
    """Its tokens (places, B, K) come before the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.fc, self.block = (
            nn.Conv2d(3, 16, 4, 4),
            nn.Linear(16, 5),
            nn.TransformerEncoderLayer(16, 4, 32),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.block(self.patches(x).flatten(2).permute(2, 0, 1)).mean(0))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str | None]] = {
    "attention's scores": (Vit, "attn.drop"),
    "queries": (lambda: Vit(()), "attn.q_norm"),
    "attention's output": (Vit, "attn.proj"),
    "a bias of positions": (Vit, "attn.bias"),
    "what does not depend on the image": (lambda: Net(lambda n, x: n.head(x * n.p(x))[:, :], p=Positions()), "p"),
    "parts of the images in the batch": (lambda: Net(lambda n, x: n.head(n.cut(x)[::3]), cut=Twice()), "cut"),
    "another aspect": (lambda: Net(through("strip"), strip=nn.AdaptiveAvgPool2d((16, 2))), "strip"),
    "a strip of one row": (lambda: Net(through("strip"), strip=nn.AdaptiveAvgPool2d((1, 16))), "strip"),
    "one value an image": (lambda: Net(through("one"), one=nn.AdaptiveAvgPool2d(1)), "one"),
    "what never runs": (lambda: Net(through(), idle=nn.ReLU()), "idle"),
    "no layer of that name": (lambda: Net(through()), "convv"),
    "dropout in evaluation": (lambda: Net(lambda n, x: n.head(functional.dropout(x, 0.5))), "conv"),
    "noise in evaluation": (lambda: Net(lambda n, x: n.head(x + torch.randn_like(x))), None),
    "features and logits": (lambda: Net(lambda n, x: (n.pool(x).flatten(1), n.head(x))), "conv"),
    "logits under another key": (lambda: Net(lambda n, x: {"scores": n.head(x)}), "conv"),
    "places before the batch": (lambda: Turned(), "block"),
    "a script": (lambda: torch.jit.trace(Net(through("relu")).eval(), images()), None),
    "whole numbers": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), quantized.Linear(8, 5)), None,
    ),
    "branches of other patches": (lambda: Branches(), None),
}  # fmt: skip


class Branches(nn.Module):
    """Two transformers side by side that know of each other, as CrossViT has."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.ModuleList([nn.Conv2d(3, 16, size, size) for size in (4, 8)])
        self.norms = nn.ModuleList([nn.LayerNorm(16) for _ in range(4)])
        self.token, self.fc = nn.Parameter(torch.randn(1, 1, 16)), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        token = self.token.expand(len(x), -1, -1)
        sides = [torch.cat([token, patch(x).flatten(2).transpose(1, 2)], 1) for patch in self.patches]
        for index, norm in enumerate(self.norms):
            side = norm(sides[index % 2])
            sides[index % 2] = side + (side @ side.transpose(1, 2)).softmax(-1) @ side
        return self.fc(sides[0][:, 0] + sides[1][:, 0])


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    make, layer = REFUSED[what]
    with pytest.raises(UserError, match=None if layer is None or "logits" in what or "evaluation" in what else layer):
        maps(make(), layer)


def test_windows_are_no_image() -> None:
    model = models.MaxVit((64, 64), 8, 2, [8, 8], [1, 1], 4, 0.0, num_classes=5)
    for inner in ("window_attention.mlp_layer.1", "grid_attention.attn_layer.0"):
        with pytest.raises(UserError, match=rf"layer blocks.1.layers.0.layers.{inner} "):
            maps(model, f"blocks.1.layers.0.layers.{inner}", pictures=images(1, 64))


def test_unknown_layers_are_refused_when_the_extractor_is_made() -> None:
    with pytest.raises(UserError, match="convv"):
        HeatmapExtractor(Net(through()), ("gradcam",), "convv:input")
    with pytest.raises(UserError, match="fcc"):
        HeatmapExtractor(Net(through()), ("random",), ["conv", "fcc"])


def test_which_of_several_outputs() -> None:
    pair = lambda: Net(lambda n, x: (n.pool(x).flatten(1), n.head(x)))  # noqa: E731
    expected = maps(Net(through()), "conv")
    torch.testing.assert_close(maps(pair(), "conv", output=1), expected)
    named = Net(lambda n, x: {"features": n.pool(x), "scores": n.head(x)})
    torch.testing.assert_close(maps(named, "conv", output="scores"), expected)
    classifier = Classifier.from_module(pair().eval(), input_size=(16, 16), output=1)
    assert classifier.layer == "conv"
    torch.testing.assert_close(maps(classifier.module, "conv"), expected)
    with pytest.raises(UserError, match="output=7"):
        maps(pair(), "conv", output=7)


@pytest.mark.parametrize(
    "places",
    [(), (0, 1, 2, 3, 4), (16,), (3, 9), *(pytest.param(places, marks=pytest.mark.long) for places in ((0,), (8,)))],
)
def test_tokens_that_stand_for_no_place_wherever_they_stand(places: tuple[int, ...]) -> None:
    model = Vit(places).eval()
    assert default_layer(model, (16, 16)) == "norm"
    kept: list[torch.Tensor] = []
    handle = model.norm.register_forward_hook(lambda _, __, output: (output.retain_grad(), kept.append(output))[0])
    model(images().requires_grad_())[[0, 1], [1, 3]].sum().backward()
    handle.remove()
    patches = [place for place in range(16 + len(places)) if place not in places]
    A, G = (tensor[:, patches].transpose(1, 2).unflatten(2, (4, 4)) for tensor in (kept[0].detach(), kept[0].grad))
    expected = torch.einsum("bk,bkhw->bhw", G.mean((2, 3)), A).relu()
    torch.testing.assert_close(maps(model), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(maps(model, "norm", prefix_tokens=list(places)), expected, rtol=1e-5, atol=1e-7)
    if len(places) == 1:
        assert maps(model, "norm", "ablationcam").any()


def test_what_is_said_of_tokens_goes_first() -> None:
    model = Vit(()).eval()  # 16 tokens: a grid, or 7 that stand for nothing and 9 patches
    assert maps(model, "norm").shape == (2, 4, 4)
    assert maps(model, "norm", prefix_tokens=7).shape == (2, 3, 3)
    with pytest.raises(UserError, match="norm"):
        maps(model, "norm", prefix_tokens=5)


SAME: dict[str, tuple[Callable[[], nn.Module], str | None]] = {
    "the pooling's input": (lambda: Net(lambda n, x: n.fc(n.pool(functional.relu(x)).flatten(1))), "pool:input"),
    "an activation that serves twice": (lambda: Net(lambda n, x: n.head(n.relu(n.relu(x)))), "relu"),
    "the input of one that serves twice": (lambda: Net(lambda n, x: n.head(n.relu(n.relu(x)))), "pool:input"),
    "by default": (lambda: Net(lambda n, x: n.head(n.relu(n.relu(x) + 0))), None),
    "functional": (lambda: Net(lambda n, x: n.fc(n.pool(functional.relu(x, inplace=True)).flatten(1))), None),
}


@pytest.mark.parametrize("name", ["cam", "gradcam", "ablationcam", "layercam"])
@pytest.mark.parametrize("what", SAME)
def test_the_map_behind_the_activation(what: str, name: str) -> None:
    make, layer = SAME[what]
    plain = Net(through("relu"))
    torch.testing.assert_close(maps(make(), layer, name), maps(plain, "relu", name))


def test_recurrent_layers_have_gradients() -> None:
    assert torch.backends.cudnn.enabled
    assert maps(Net(through("part"), part=Recurrent()), "conv").any()


def test_precision_stays() -> None:
    with HeatmapExtractor(Net(through("relu")).double().eval(), ("gradcam", "cam", "random")) as extractor:
        heatmaps = extractor(images().double(), torch.tensor([1, 3])).maps
    assert heatmaps["gradcam"].dtype == heatmaps["cam"].dtype == torch.float64


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(channels: int) -> None:
    model = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    with HeatmapExtractor(model.eval(), ("gradcam",)) as extractor:
        assert extractor.layers == {"gradcam": "1"}
        assert extractor(images(channels=channels)).maps["gradcam"].shape == (2, 14, 14)
    with pytest.raises(UserError, match=f"{channels} channels"):
        Classifier.from_module(model, input_size=(16, 16))
    named = Classifier(name="other", module=model, layer="1", input_size=(16, 16))
    with pytest.raises(UserError, match="model other"):
        evaluate(Shapes(length=2), named, ["gradcam"], progress=False)


# --- values that are not finite ---


class Before(nn.Module):
    """A small network with something before it."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.net, self.change = Net(through("relu")), change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(self.change(x))


class Power(nn.Module):
    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -x.pow(self.power)


def divided() -> nn.Module:
    """A hidden image has no finite logits."""
    model = Before(lambda x: x / x.std((1, 2, 3), keepdim=True))
    nn.init.zeros_(model.net.conv.weight[0])  # a dead channel hides the whole image
    nn.init.zeros_(model.net.conv.bias[0])
    return model


HIDING: dict[str, dict[str, Any]] = {
    "scorecam": {}, "iscam": {}, "sscam": {"std": 0.0, "samples": 1}, "rise": {"masks": 20, "cells": 1},
    "occlusion": {"size": 1.0},
}  # fmt: skip
PIXELS = ("saliency", "guidedbackprop", "deconvnet", "guidedgradcam", "integratedgradients")
NOT_FINITE: list[tuple[Callable[[], nn.Module], str, str, dict[str, Any]]] = [
    *[(divided, "net.conv", name, options) for name, options in HIDING.items()],
    *[(lambda: Before(lambda x: x.abs().sqrt()), "net.conv", name, {}) for name in PIXELS],
    *[(lambda p=power: Net(through("relu", "power"), power=Power(p)), "relu", name, {})
      for name, power in (("gradcam", 0.5), ("layercam", 0.5), ("shapleycam", 1.5))],
]  # fmt: skip


@pytest.mark.parametrize(("make", "layer", "name", "options"), NOT_FINITE, ids=[case[2] for case in NOT_FINITE])
def test_values_that_are_not_finite(make: Callable[[], nn.Module], layer: str, name: str, options: Any) -> None:
    pictures = images()
    pictures[0, :, 3, 3] = 0
    with pytest.raises(UserError, match="finite for image 0"):
        maps(make(), layer, make_method(name, **options), pictures)


# --- parts that run without gradients, as scripts, with one logit ---


class Cut(nn.Module):
    """A network whose backbone runs without gradients."""

    def __init__(self, without: Callable[[], AbstractContextManager[object]]) -> None:
        super().__init__()
        self.backbone, self.head, self.without = nn.Conv2d(3, 3, 3), Net(through("relu")), without

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.without():
            features = self.backbone(x)
        return self.head(features.clone())


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_backbone_without_gradients(without: Callable[[], AbstractContextManager[object]]) -> None:
    assert maps(Cut(without), "head.conv").any()
    for name in ("saliency", "guidedbackprop", "integratedgradients", "fullgrad"):
        with pytest.raises((RuntimeError, UserError)):
            maps(Cut(without), None, name)


def test_scripts_show_no_layers() -> None:
    partly, plain = Net(through("part", "relu"), part=torch.jit.script(nn.Conv2d(8, 8, 1))), Net(through("relu"))
    plain.step = lambda net, x: net.head(net.relu(partly.part(x)))
    for name in ("gradcam", "cam", "saliency", "ablationcam"):
        torch.testing.assert_close(maps(partly, "relu", name), maps(plain, "relu", name))
    for layer, name in (("part", "gradcam"), ("relu", "guidedbackprop"), ("relu", "deconvnet")):
        with pytest.raises(UserError, match="torch.jit"):
            maps(partly, layer if name == "gradcam" else None, name)


@pytest.mark.parametrize("name", ["guidedbackprop", "deconvnet"])
def test_relus_that_no_gradient_passes_do_not_count(name: str) -> None:
    kinds = {
        "block": swin_transformer.SwinTransformerBlockV2,
        "downsample_layer": swin_transformer.PatchMergingV2,  # version 2 has ReLUs in what makes its position biases
    }
    model = models.SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4], num_classes=5, **kinds)
    with pytest.raises(UserError, match="SwinTransformer"):
        maps(model, None, name, images(2, 32))


@pytest.mark.parametrize("name", ["rise", "occlusion"])
def test_one_logit_is_always_certain(name: str) -> None:
    model = Net(through("relu"), fc=nn.Linear(8, 1))
    options = {"masks": 20} if name == "rise" else {"size": 0.5, "stride": 0.5}
    for score in (None, "logit"):
        method = make_method(name, score=score, **options)
        with HeatmapExtractor(model, {name: method}) as extractor:
            if score:
                assert extractor(images()).maps[name].std() > 0
            else:
                with pytest.raises(UserError, match="score=prob"):
                    extractor(images())


class Pointwise(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_fullgrad_leaves_linear_layers_out_wherever_they_stand() -> None:
    model = Net(through("part", "relu"), part=Pointwise(8, 8)).eval()
    with frozen(model):
        parts = full_gradients(record(model, [], images(1), None), torch.tensor([0]))
    assert [part.ndim for part in parts] == [4, 4, 2, 2]


def frozen_norm() -> nn.Module:
    norm = ops.FrozenBatchNorm2d(8)
    norm.running_mean += 1
    return norm


@pytest.mark.parametrize("behind", [nn.GELU, nn.SiLU, lambda: nn.LayerNorm([8, 16, 16]), frozen_norm, nn.Sigmoid])
def test_fullgrad_whose_parts_do_not_add_up(behind: Callable[[], nn.Module]) -> None:
    with pytest.raises(UserError, match="fullgrad"):
        maps(Net(through("part", "relu"), part=behind()), None, "fullgrad")


# --- precision and modes ---


def test_formulas_are_not_calculated_in_half_precision_under_autocast() -> None:
    seen: list[tuple[torch.dtype, torch.Tensor]] = []

    def probe(recording: Recording) -> torch.Tensor:
        again = recording.run(recording.images)
        seen.append((again.dtype, (recording.logits - again).abs().max()))
        weights = recording.gradients.double().mean((2, 3))
        return torch.einsum("bk,bkhw->bhw", weights, recording.activations.double()).relu()

    methods = {"exact": make_method(probe), "gradcam": make_method("gradcam")}
    with (
        HeatmapExtractor(Net(through("relu")).eval(), methods, "conv") as extractor,
        torch.autocast("cpu", torch.bfloat16),
    ):
        heatmaps = extractor(images()).maps
    torch.testing.assert_close(heatmaps["gradcam"], heatmaps["exact"], rtol=1e-5, atol=1e-6)
    assert seen[0][0] == torch.bfloat16 and not seen[0][1], "the network itself runs as its user wants it"


# --- memory formats and what works in place ---


def viewed(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Maps in channels-last memory can't be read with `view`."""
    return net.flat(net.relu(net.norm(x)).view(len(x), -1))


@pytest.mark.parametrize("name", ["gradcam", "saliency", "ablationcam", "scorecam"])
def test_networks_that_do_not_run_in_channels_last_memory(name: str) -> None:
    model, pictures = Net(viewed, norm=nn.BatchNorm2d(8), flat=nn.Linear(8 * 16 * 16, 5)), images(4)  # enough to fold
    strides = model.conv.weight.stride()
    expected = maps(model, "relu", name, pictures, channels_last=False)
    torch.testing.assert_close(maps(model, "relu", name, pictures), expected)
    turned = pictures.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(maps(model, "relu", name, turned), expected)
    assert expected.any() and model.conv.weight.stride() == strides


@pytest.mark.parametrize(
    "name",
    ["saliency", "occlusion", "integratedgradients", "guidedbackprop", "smoothgrad", "scorecam",
     "ablationcam", "gradcam", "smoothgradcampp"],
)  # fmt: skip
def test_networks_that_normalize_their_images_in_place(name: str) -> None:
    pictures = images().contiguous(memory_format=torch.channels_last)
    before = pictures.clone()
    expected = maps(Before(lambda x: (x - 0.45) / 0.22), "net.conv", name, pictures)
    in_place = maps(Before(lambda x: x.sub_(0.45).div_(0.22)), "net.conv", name, pictures)
    torch.testing.assert_close(in_place, expected, rtol=1e-4, atol=1e-6)
    assert expected.any() and torch.equal(pictures, before)


def doubled() -> nn.Module:
    model = Net(through("relu"))
    model.conv.register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


def added_in_place(net: Net, x: torch.Tensor) -> torch.Tensor:
    y = net.behind(x.relu())
    y += x
    return net.head(y.relu())


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (lambda: Net(through("part"), part=nn.SiLU(inplace=True)), "conv"),
        (doubled, "conv"),
        (networks.resnet, "layer4.1.bn2"),
        (lambda: Net(added_in_place, behind=nn.Conv2d(8, 8, 3, padding=1)), "behind"),
    ],
)
@pytest.mark.parametrize("bias", [0.0, 20.0])  # which proves nothing
def test_ablation_behind_a_layer_whose_output_is_worked_on_in_place(
    make: Callable[[], nn.Module], layer: str, bias: float
) -> None:
    model = make()
    nn.init.constant_(model.fc.bias, bias)
    with pytest.raises(UserError, match=rf"layer {layer}"):
        maps(model, layer, "ablationcam")


def masked_in_place(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.head(x.masked_fill_(net.beside(x).mean(1, keepdim=True) < 0, 0))


def test_ablation_beside_a_shortcut_that_is_masked_in_place() -> None:
    model = Net(masked_in_place, beside=nn.Conv2d(8, 8, 3, padding=1))
    together, one_by_one = (maps(model, "beside", "ablationcam", chunk=chunk) for chunk in (32, 1))
    torch.testing.assert_close(together, one_by_one)
    assert together.any()


# --- layouts ---


class TurnedNorm(nn.LayerNorm):
    """Takes and yields (B, K, h, w)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = functional.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return turned.permute(0, 3, 1, 2)


@pytest.mark.parametrize(("norm", "width"), [(nn.LayerNorm((8, 12, 18)), 18), (TurnedNorm(8), 16)])
def test_norms_whose_maps_have_channels_first(norm: nn.Module, width: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    assert maps(model, "1", pictures=images(2, 12, width=width)).shape == (2, 12, width)
