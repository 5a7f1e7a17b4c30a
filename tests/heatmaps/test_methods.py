"""CAM and Grad-CAM against their formulas, written plainly in float64, on the networks that people use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from wsol.errors import UserError
from wsol.heatmaps import HeatmapExtractor, Recording, make_method
from wsol.models import alexnet_gap, gapnet


def images(side: int = 64, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def resnet() -> nn.Module:
    return models.resnet18(num_classes=5)


def densenet() -> nn.Module:
    return models.densenet121(num_classes=5)


def gap() -> nn.Module:
    return gapnet(5, widths=(6, 8), strides=(2, 2))


def build(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().double().eval()


def pick(model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """The best class of the first image, the second best of the next, and so on: heatmaps that are not all zero."""
    with torch.no_grad():
        order = model(pictures).argsort(1, descending=True)
    return torch.stack([order[i, i % 2] for i in range(len(order))])


def plain(model: nn.Module, layer: str, pictures: torch.Tensor, targets: torch.Tensor) -> tuple[np.ndarray, ...]:
    """A and G (B, K, h, w) of the last map, by autograd alone; the ReLU behind DenseNet's layer is part of it."""
    if isinstance(model, models.ResNet):
        stem = model.maxpool(model.relu(model.bn1(model.conv1(pictures))))
        A = model.layer4(model.layer3(model.layer2(model.layer1(stem))))
        head = model.fc
    else:
        A, head = model.features(pictures), model.classifier
        A = torch.relu(A) if isinstance(model, models.DenseNet) else A
    A = A.detach().requires_grad_()
    logits = head(A.mean((2, 3)))
    scores = logits[torch.arange(len(targets)), targets]
    return A.detach().numpy(), torch.autograd.grad(scores.sum(), A)[0].numpy(), head.weight.detach().numpy()


def scaled(maps: torch.Tensor | np.ndarray) -> np.ndarray:
    maps = np.asarray(maps, np.float64)
    largest = np.abs(maps).max((1, 2), keepdims=True)
    assert (largest > 0).all()  # an empty map would agree with anything
    return maps / largest


NETWORKS = pytest.mark.parametrize(
    ("make", "layer"), [(resnet, "layer4"), (densenet, "features.norm5"), (gap, "features")]
)


@NETWORKS
def test_formulas(make: Callable[[], nn.Module], layer: str) -> None:
    model, pictures = build(make), images()
    targets = pick(model, pictures)
    A, G, weight = plain(model, layer, pictures, targets)
    cam = np.zeros((3, *A.shape[2:]))
    gradcam = np.zeros_like(cam)
    for i, c in enumerate(targets.tolist()):
        for k in range(A.shape[1]):
            cam[i] += weight[c, k] * A[i, k]
            gradcam[i] += G[i, k].mean() * A[i, k]
    gradcam = np.maximum(gradcam, 0)
    with HeatmapExtractor(model, ("cam", "gradcam"), layer) as extractor:
        found = extractor(pictures, targets)
    np.testing.assert_allclose(scaled(found.maps["cam"]), scaled(cam), atol=1e-6)
    np.testing.assert_allclose(scaled(found.maps["gradcam"]), scaled(gradcam), atol=1e-6)
    np.testing.assert_allclose(found.maps["gradcam"].numpy(), gradcam, rtol=1e-4, atol=1e-6 * gradcam.max())


@NETWORKS
def test_gradcam_is_the_positive_part_of_cam(make: Callable[[], nn.Module], layer: str) -> None:
    model, pictures = build(make).float(), images().float()
    with HeatmapExtractor(model, ("cam", "gradcam")) as extractor:
        assert set(extractor.layers.values()) == {layer}
        found = extractor(pictures, pick(model, pictures))
    cam, gradcam = found.maps["cam"], found.maps["gradcam"]
    assert (cam < 0).any()
    np.testing.assert_allclose(scaled(gradcam), scaled(cam.relu()), atol=1e-5)
    cells = cam.shape[1] * cam.shape[2]
    np.testing.assert_allclose(gradcam * cells, cam.relu(), rtol=1e-3, atol=1e-4 * float(cam.abs().max()))


@NETWORKS
def test_mean_of_cam_and_bias_is_the_logit(make: Callable[[], nn.Module], layer: str) -> None:
    model = build(make)
    bias = (model.fc if isinstance(model, models.ResNet) else model.classifier).bias.detach()
    with HeatmapExtractor(model, ("cam",)) as extractor:
        found = extractor(images(), torch.tensor([2, 0, 4]))
    logits = found.maps["cam"].double().mean((1, 2)) + bias[found.targets]
    np.testing.assert_allclose(logits, found.logits[torch.arange(3), found.targets], rtol=1e-5, atol=1e-5)


def test_layer_below_the_last() -> None:
    """No head behind it: Grad-CAM still follows its formula there."""
    model, pictures = build(resnet), images()
    targets = pick(model, pictures)
    stem = model.maxpool(model.relu(model.bn1(model.conv1(pictures))))
    A = model.layer2(model.layer1(stem)).detach().requires_grad_()
    logits = model.fc(model.layer4(model.layer3(A)).mean((2, 3)))
    G = torch.autograd.grad(logits[torch.arange(3), targets].sum(), A)[0]
    wanted = (G.mean((2, 3), keepdim=True) * A.detach()).sum(1).relu()
    with HeatmapExtractor(model, layer="layer2") as extractor:
        found = extractor(pictures, targets).maps["gradcam"]
    np.testing.assert_allclose(scaled(found), scaled(wanted), atol=1e-6)


class Chain(nn.Module):
    """Convolutions, some followed by ReLUs in place, which change the very tensor that is recorded."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.third, self.norm = nn.Conv2d(6, 6, 3, 2, padding=1), nn.BatchNorm2d(6)
        self.relu, self.head = nn.ReLU(inplace), nn.Linear(6, 5)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        a = self.relu(self.first(pictures))
        b = self.second(a)
        b += a
        b = self.relu(b)
        return self.head(self.relu(self.norm(self.third(b))).mean((2, 3)))


def test_several_layers_with_operations_in_place() -> None:
    model, pictures = build(lambda: Chain(True)), images(16)
    targets = pick(model, pictures)
    a = torch.relu(model.first(pictures)).detach().requires_grad_()
    b = torch.relu(model.second(a) + a)
    c = torch.relu(model.norm(model.third(b)))
    scores = model.head(c.mean((2, 3)))[torch.arange(3), targets].sum()
    wanted = {}
    for name, A in (("first", a), ("second", b), ("norm", c)):
        G = torch.autograd.grad(scores, A, retain_graph=True)[0]
        wanted[name] = (G.mean((2, 3), keepdim=True) * A).sum(1).relu().detach()
    methods = {name: make_method("gradcam", layer=name) for name in wanted} | {"cam": make_method("cam", "norm")}
    with HeatmapExtractor(model, methods) as extractor:
        found = extractor(pictures, targets).maps
    for name, maps in wanted.items():
        np.testing.assert_allclose(found[name], maps, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(scaled(found["cam"].relu()), scaled(wanted["norm"]), atol=1e-6)


def test_one_layer_alone_gives_the_same_as_among_others() -> None:
    model, pictures = build(resnet), images()
    targets = pick(model, pictures)
    together = {f"{m}@{layer}": make_method(m, layer) for m, layer in (("gradcam", "layer3"), ("cam", "layer4"))}
    with HeatmapExtractor(model, together) as extractor:
        both = extractor(pictures, targets).maps
    for name, method in together.items():
        with HeatmapExtractor(model, {name: method}) as extractor:
            assert torch.equal(extractor(pictures, targets).maps[name], both[name])


def vit() -> nn.Module:
    model = models.VisionTransformer(224, 16, 2, 2, 32, 64, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # torchvision starts with zeros, which have no heatmap
    return model


def test_vit_tokens_become_a_map() -> None:
    """The class token left out, the others row by row."""
    model, pictures = build(vit), images(224)
    targets = pick(model, pictures)
    blocks = model.encoder.layers
    tokens = torch.cat([model.class_token.expand(3, -1, -1), model._process_input(pictures)], 1)
    tokens = blocks[0](tokens + model.encoder.pos_embedding)
    A = blocks[1].ln_1(tokens).detach().requires_grad_()
    mixed = tokens.detach() + blocks[1].self_attention(A, A, A, need_weights=False)[0]
    mixed = model.encoder.ln(mixed + blocks[1].mlp(blocks[1].ln_2(mixed)))
    scores = model.heads(mixed[:, 0])[torch.arange(3), targets].sum()
    G = torch.autograd.grad(scores, A)[0][:, 1:].numpy()
    A = A.detach()[:, 1:].numpy()
    wanted = np.zeros((3, 14, 14))
    for token in range(196):
        wanted[:, token // 14, token % 14] = (G.mean(1) * A[:, token]).sum(1)
    with HeatmapExtractor(model) as extractor:
        found = extractor(pictures, targets).maps["gradcam"]
    assert found.shape == (3, 14, 14)
    assert (found.amax((1, 2)) > 0).all()
    np.testing.assert_allclose(scaled(found), scaled(np.maximum(wanted, 0)), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "side", "size"),
    [
        (lambda: models.googlenet(num_classes=5, init_weights=False), 64, (2, 2)),
        (lambda: models.inception_v3(num_classes=5, init_weights=False), 139, (3, 3)),
    ],
    ids=["googlenet", "inception"],
)
def test_networks_with_auxiliary_outputs(make: Callable[[], nn.Module], side: int, size: tuple[int, int]) -> None:
    model = build(make).float().train()
    with HeatmapExtractor(model, ("cam", "gradcam")) as extractor:
        found = extractor(images(side, 2).float(), torch.tensor([1, 3]))
    assert found.logits.shape == (2, 5)
    assert found.maps["cam"].shape == (2, *size)
    np.testing.assert_allclose(
        found.maps["gradcam"] * size[0] * size[1], found.maps["cam"].relu(), rtol=1e-3, atol=1e-5
    )
    assert model.training


def small_vgg() -> nn.Module:
    with torch.device("meta"):  # its own 138 million weights are not needed
        model = models.vgg16()
    model.features = nn.Sequential(nn.Conv2d(3, 512, 3, 16), nn.ReLU(), nn.MaxPool2d(2))
    model.classifier = nn.Sequential(nn.Linear(512 * 49, 8), nn.ReLU(), nn.Linear(8, 5))
    return model


@pytest.mark.parametrize(("make", "layer"), [(small_vgg, "features.1"), (vit, "encoder.layers.encoder_layer_1.ln_1")])
def test_cam_is_refused_without_its_head_naming_what_works(make: Callable[[], nn.Module], layer: str) -> None:
    model = build(make).float()
    with pytest.raises(UserError) as error, HeatmapExtractor(model, ("cam",)) as extractor:
        extractor(images(224, 1).float())
    for part in (layer, type(model).__name__, "use gradcam", "vgg16_gap"):
        assert part in str(error.value)
    with HeatmapExtractor(model) as extractor:
        assert extractor(images(224, 1).float()).maps["gradcam"].shape[1:] == (14, 14)


def test_cam_is_refused_below_the_last_map() -> None:
    with pytest.raises(UserError, match="behind layer3"), HeatmapExtractor(build(resnet), ("cam",), "layer3") as e:
        e(images())


def test_cam_is_refused_where_something_stands_between_map_and_head() -> None:
    """A linear layer of the right shape is no proof: here a ReLU and a maximum come before it."""
    model = build(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 5)))
    with pytest.raises(UserError, match="no such head"), HeatmapExtractor(model, ("cam",), "0") as extractor:
        extractor(images(16))


def test_cam_of_a_published_gap_network() -> None:
    with HeatmapExtractor(alexnet_gap(num_classes=5), ("cam", "gradcam")) as extractor:
        found = extractor(images(96, 2).float())
    np.testing.assert_allclose(scaled(found.maps["gradcam"]), scaled(found.maps["cam"].relu()), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    model, pictures = build(gap), images(32)
    targets = pick(model, pictures)
    with HeatmapExtractor(model, ("cam", "gradcam", "random")) as extractor:
        exact = extractor(pictures, targets).maps
    with HeatmapExtractor(model.to(dtype), ("cam", "gradcam", "random")) as extractor:
        rough = extractor(pictures.to(dtype), targets).maps
    for name in ("cam", "gradcam"):
        assert rough[name].dtype == torch.float32
        np.testing.assert_allclose(scaled(rough[name]), scaled(exact[name]), atol=0.1)


def test_own_function_sees_the_recording() -> None:
    seen: list[Recording] = []

    def energy(recording: Recording, power: float = 1.0) -> torch.Tensor:
        seen.append(recording)
        return (recording.activations.abs() ** power).sum(1)

    model, targets = build(gap), torch.tensor([2, 0, 4])
    with HeatmapExtractor(model, {"energy": make_method(energy, power=2.0)}) as extractor:
        found = extractor(images(32), targets)
    (recording,) = seen
    assert recording.model is model
    assert recording.layer == "features"
    assert torch.equal(recording.targets, targets)
    assert torch.equal(recording.logits, found.logits)
    with torch.no_grad():
        A = model.features(images(32))
    torch.testing.assert_close(recording.activations, A)
    np.testing.assert_allclose(found.maps["energy"], (A**2).sum(1), rtol=1e-6)


def test_layer_without_influence_is_named() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            self.unused(pictures)
            return self.head(self.used(pictures).mean((2, 3)))

    methods = {layer: make_method("gradcam", layer) for layer in ("used", "unused")}
    with HeatmapExtractor(build(Aside), methods) as extractor, pytest.raises(UserError) as error:
        extractor(images(8))
    assert "the logits do not depend on layer unused" in str(error.value)
    methods["unused"] = make_method("eigencam", "unused")
    with HeatmapExtractor(build(Aside), methods) as extractor:  # a method without gradients may look at it
        assert extractor(images(8)).maps["unused"].any()
