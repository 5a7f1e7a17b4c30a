"""Methods that go to the pixels, with other rules for ReLUs, with averages and with biases, against their formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models
from torchvision.models.googlenet import BasicConv2d as GoogLeNetsConv2d
from torchvision.models.inception import BasicConv2d as InceptionsConv2d

from wsol.errors import UserError
from wsol.heatmaps import HeatmapExtractor, Recording, gradient, make_method, pixel
from wsol.heatmaps.pixel import full_gradients, fullgrad
from wsol.heatmaps.recording import record
from wsol.models import gapnet

TARGETS = torch.tensor([3, 1, 4])


def images(side: int = 12, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def lively(model: nn.Module) -> nn.Module:
    """In float64, frozen, with biases and running statistics that are none of them 0 or 1."""
    torch.manual_seed(0)
    model = model.double().eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.bias.normal_(0, 0.3)
    return model


def gap() -> nn.Module:
    return lively(gapnet(5, widths=(6, 8), strides=(2, 1), seed=0))


def recorded(
    model: nn.Module, layer: str, pictures: torch.Tensor, targets: torch.Tensor = TARGETS, chunk: int = 5
) -> Recording:
    return record(model, [layer] if layer else [], pictures, targets, chunk=chunk)


def derivative(model: nn.Module, pictures: torch.Tensor, targets: torch.Tensor = TARGETS) -> torch.Tensor:
    """∂y_c/∂X by autograd alone."""
    leaf = pictures.clone().requires_grad_()
    return torch.autograd.grad(model(leaf)[range(len(leaf)), targets].sum(), leaf)[0]


def test_saliency_is_the_difference_that_a_pixel_makes() -> None:
    model, pictures = gap(), images(6, 1)
    expected, step = np.zeros((6, 6)), 1e-6
    for i in range(6):
        for j in range(6):
            for color in range(3):
                more, less = pictures.clone(), pictures.clone()
                more[0, color, i, j] += step
                less[0, color, i, j] -= step
                slope = float(model(more)[0, 2] - model(less)[0, 2]) / (2 * step)
                expected[i, j] = max(expected[i, j], abs(slope))
    result = pixel.saliency(recorded(model, "", pictures, torch.tensor([2])))
    np.testing.assert_allclose(result[0], expected, atol=1e-8)
    assert expected.max() > 1e-3


# --- guided backpropagation and deconvnet ---


class Modules(nn.Module):
    """Three ReLUs as modules, which tell their gradients to hooks."""

    def __init__(self, relu: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3), nn.Conv2d(8, 8, 1)
        self.head, self.relus = nn.Linear(8, 5), nn.ModuleList([relu() for _ in range(3)])

    def rectify(self, x: torch.Tensor, which: int) -> torch.Tensor:
        return self.relus[which](x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(self.rectify(self.conv1(x), 0), 2)
        x = self.rectify(self.conv3(self.rectify(self.conv2(x), 1)), 2)
        return self.head(x.mean((2, 3)))


class Functional(Modules):
    """The same network; ReLUs are calls, some in place, one without a use of what it returns."""

    def rectify(self, x: torch.Tensor, which: int) -> torch.Tensor:
        if which == 0:
            return functional.relu(x, inplace=True)
        if which == 1:
            x.relu_()
            return x
        return torch.relu(x)


class Mixed(Modules):
    """The same again, with in-place modules and the other spellings."""

    def rectify(self, x: torch.Tensor, which: int) -> torch.Tensor:
        return (nn.ReLU(inplace=True), torch.relu_, torch.Tensor.relu)[which](x)


@contextmanager
def hooked(model: nn.Module, guided: bool) -> Iterator[None]:
    """The rule by hooks on the modules: G · [x > 0] is what a ReLU hands back itself."""

    def change(module: nn.Module, inward: tuple[torch.Tensor, ...], outward: tuple[torch.Tensor, ...]) -> Any:
        return ((inward if guided else outward)[0].clamp(min=0),)

    kinds = (nn.ReLU, nn.ReLU6, nn.Hardtanh)
    hooks = [m.register_full_backward_hook(change) for m in model.modules() if isinstance(m, kinds)]
    yield
    for hook in hooks:
        hook.remove()


RULES = pytest.mark.parametrize(("method", "guided"), [(pixel.guidedbackprop, True), (pixel.deconvnet, False)])


@RULES
@pytest.mark.parametrize("network", [Modules, Functional, Mixed])
def test_relus_of_every_spelling_follow_the_rule(
    network: type[Modules], method: Callable[[Recording], torch.Tensor], guided: bool
) -> None:
    plain, model, pictures = lively(Modules()), lively(network()), images()
    with hooked(plain, guided):
        expected = derivative(plain, pictures).abs().amax(1)
    ordinary = derivative(plain, pictures).abs().amax(1)
    assert float((expected - ordinary).abs().max()) > 0.01 * float(ordinary.max())
    np.testing.assert_allclose(method(recorded(model, "", pictures)), expected, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(derivative(model, pictures).abs().amax(1), ordinary, rtol=1e-10, atol=1e-14)


@RULES
@pytest.mark.parametrize("relu", [nn.ReLU6, lambda: nn.Hardtanh(0.0, 0.3)])
def test_ceilings_hold(
    relu: Callable[[], nn.Module], method: Callable[[Recording], torch.Tensor], guided: bool
) -> None:
    model, pictures = lively(Modules(relu)), 20 * images()
    with hooked(model, guided):
        expected = derivative(model, pictures).abs().amax(1)
    recording = recorded(model, "", pictures)
    np.testing.assert_allclose(method(recording), expected, rtol=1e-10, atol=1e-14)


@RULES
@pytest.mark.parametrize(
    ("make", "unit", "side"),
    [(models.googlenet, GoogLeNetsConv2d, 32), (models.inception_v3, InceptionsConv2d, 75)],
    ids=["googlenet", "inception_v3"],
)
def test_googlenet_and_inception_are_caught(
    make: Callable[..., nn.Module],
    unit: type[nn.Module],
    side: int,
    method: Callable[[Recording], torch.Tensor],
    guided: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their ReLUs are calls in `BasicConv2d.forward`: for comparison they are swapped for modules with hooks."""
    model = lively(make(num_classes=5, aux_logits=False, init_weights=False))
    pictures, targets = images(side, 1), TARGETS[:1]
    result = method(recorded(model, "", pictures, targets))
    for module in list(model.modules()):
        if isinstance(module, unit):
            module.relu = nn.ReLU()
    monkeypatch.setattr(unit, "forward", lambda self, x: self.relu(self.bn(self.conv(x))))
    with hooked(model, guided):
        expected = derivative(model, pictures, targets).abs().amax(1)
    np.testing.assert_allclose(result, expected, rtol=1e-8, atol=1e-10 * float(expected.max()))


@pytest.mark.parametrize("name", ["guidedbackprop", "deconvnet", "guidedgradcam"])
def test_network_without_relu_is_refused(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    message = "Sequential runs none between the pixels and the logits; use saliency, smoothgrad or integratedgradients"
    with pytest.raises(UserError, match=message), HeatmapExtractor(model, (name,), "1") as extractor:
        extractor(images().float())
    assert float(torch.relu(torch.tensor(-1.0))) == 0


def test_silu_is_as_it_was() -> None:
    """Beside a ReLU, which is caught, other activations keep their own gradients."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = lively(nn.Sequential(*layers, nn.Linear(4, 5)))
    with hooked(model, True):
        expected = derivative(model, images()).abs().amax(1)
    np.testing.assert_allclose(pixel.guidedbackprop(recorded(model, "", images())), expected, rtol=1e-10)


def test_guidedgradcam_is_the_product() -> None:
    model = gap()
    recording = recorded(model, "features", images())
    coarse = gradient.gradcam(recording)
    fine = functional.interpolate(coarse[:, None], (12, 12), mode="bilinear", align_corners=False)[:, 0]
    with hooked(model, True):
        expected = derivative(model, images()).abs().amax(1) * fine
    np.testing.assert_allclose(pixel.guidedgradcam(recording), expected, rtol=1e-10)
    assert float(expected.max()) > 0


# --- averages ---


def noise(n: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng((0, n)).standard_normal((3, 12, 12), np.float32)).double()


def noisy(pictures: torch.Tensor, n: int, share: float) -> torch.Tensor:
    return torch.stack([p + share * (p.max() - p.min()) * noise(n) for p in pictures])


def test_smoothgrad_is_its_formula() -> None:
    model, pictures = gap(), images()
    recording = recorded(model, "", pictures)
    total = sum(derivative(model, noisy(pictures, n, 0.2)) for n in range(4))
    result = pixel.smoothgrad(recording, samples=4, noise=0.2)
    np.testing.assert_allclose(result, total.abs().amax(1) / 4, rtol=1e-10)
    saliency = pixel.saliency(recording)
    np.testing.assert_allclose(pixel.smoothgrad(recording, samples=2, noise=0.0), saliency, rtol=1e-10)
    assert float((result - saliency).abs().max()) > 1e-3 * float(saliency.max())


@pytest.mark.parametrize("baseline", [0.0, -1.5])
def test_integratedgradients_is_its_formula_and_complete(baseline: float) -> None:
    model, pictures = lively(Modules()), images()
    recording, start = recorded(model, "", pictures), torch.full_like(pictures, baseline)
    total = torch.zeros_like(pictures)
    for i in range(7):
        total += derivative(model, start + (i + 0.5) / 7 * (pictures - start)) / 7
    result = pixel.integratedgradients(recording, steps=7, baseline=baseline)
    np.testing.assert_allclose(result, ((pictures - start) * total).sum(1), rtol=1e-9, atol=1e-13)
    absolute = pixel.integratedgradients(recording, steps=7, baseline=baseline, absolute=True)
    np.testing.assert_allclose(absolute, result.abs())

    fine = pixel.integratedgradients(recording, steps=400, baseline=baseline)
    difference = (model(pictures) - model(start))[range(3), TARGETS]
    np.testing.assert_allclose(fine.sum((1, 2)), difference, atol=2e-3 * float(difference.abs().max()))


@pytest.mark.parametrize("layer", ["features", "features.2"])
def test_smoothgradcampp_is_its_formula(layer: str) -> None:
    model, pictures = gap(), images()
    recording = recorded(model, layer, pictures)
    A = recording.activations.numpy()
    D = np.zeros((4, *A.shape))
    for n in range(3):
        G = recorded(model, layer, noisy(pictures, n, 0.5)).gradients.numpy()
        for p in (1, 2, 3):
            D[p] += G**p / 3
    expected = np.zeros((3, *A.shape[2:]))
    for i in range(3):
        for k in range(A.shape[1]):
            weight = 0.0
            for place in np.ndindex(A.shape[2:]):
                d1, d2, d3 = (D[p][(i, k, *place)] for p in (1, 2, 3))
                below = 2 * d2 + A[i, k].sum() * d3
                weight += d2 / below * max(d1, 0) if below != 0 else 0
            expected[i] += weight * A[i, k]
    result = gradient.smoothgradcampp(recording, samples=3, noise=0.5)
    np.testing.assert_allclose(result, np.maximum(expected, 0), rtol=1e-7, atol=1e-12)
    assert float(result.max()) > 0
    still = gradient.smoothgradcampp(recording, samples=2, noise=0.0)
    np.testing.assert_allclose(still, gradient.gradcampp(recording), rtol=1e-7, atol=1e-12)


def test_smoothgradcampp_of_tiny_gradients_does_not_vanish() -> None:
    model = gap().float()
    model.classifier.weight *= 1e-18
    result = gradient.smoothgradcampp(recorded(model, "features", images().float()), samples=2)
    assert float(result.max()) > 0


# --- FullGrad ---


class Maxout(nn.Module):
    """VGG's parts: convolutions with biases, in-place ReLUs, max-pooling, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(72, 10), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(10, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


def densenet() -> nn.Module:
    return models.DenseNet(growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=8, num_classes=5)


@pytest.mark.parametrize(
    ("make", "side"), [(gap, 12), (lambda: models.resnet18(num_classes=5), 32), (Maxout, 12), (densenet, 32)]
)
def test_image_and_biases_together_are_the_logit(make: Callable[[], nn.Module], side: int) -> None:
    model, pictures = lively(make()), images(side)
    recording = recorded(model, "", pictures)
    parts = full_gradients(recording, torch.arange(3))
    whole = sum(part.flatten(1).sum(1) for part in parts)
    np.testing.assert_allclose(whole, model(pictures)[range(3), TARGETS], rtol=1e-9, atol=1e-10)
    assert float(sum(part.flatten(1).sum(1) for part in parts[1:]).abs().min()) > 0.01  # what biases add
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("jointly", [False, True])
def test_fullgrad_is_its_formula(jointly: bool) -> None:
    model, pictures = Maxout(), images()
    model = lively(model)
    conv1, conv2 = model.features[0], model.features[3]
    outputs: list[torch.Tensor] = []
    leaf = pictures.clone().requires_grad_()
    outputs.append(conv1(leaf))
    outputs.append(conv2(functional.max_pool2d(torch.relu(outputs[0]), 2)))
    logits = model.classifier(torch.relu(outputs[1]).flatten(1))
    gradients = torch.autograd.grad(logits[range(3), TARGETS].sum(), [leaf, *outputs])
    parts = [pictures * gradients[0]]
    parts += [conv.bias[:, None, None] * G for conv, G in zip((conv1, conv2), gradients[1:], strict=True)]
    expected = torch.zeros(3, 12, 12, dtype=torch.float64)
    for i in range(3):
        for part in parts:
            size = part[i].abs()
            for channel in size:
                among = size if jointly else channel
                even = (
                    (channel - among.min()) / (among.max() - among.min()) if among.max() > among.min() else 0 * channel
                )
                expected[i] += functional.interpolate(even[None, None], (12, 12), mode="bilinear")[0, 0]
    np.testing.assert_allclose(fullgrad(recorded(model, "", pictures), jointly), expected, rtol=1e-9)


# --- all of them ---

FEWER = {"smoothgrad": {"samples": 3}, "integratedgradients": {"steps": 3}, "smoothgradcampp": {"samples": 3}}


def maps(name: str, recording: Recording) -> torch.Tensor:
    return make_method(name, **FEWER.get(name, {})).function(recording)


@pytest.mark.parametrize("name", ["saliency", "guidedbackprop", "deconvnet", "guidedgradcam", "fullgrad", *FEWER])
def test_neither_chunks_nor_the_batch_matter(name: str) -> None:
    model, pictures = gap(), images()
    expected = maps(name, recorded(model, "features", pictures, chunk=64))
    assert expected.shape == ((3, 6, 6) if name == "smoothgradcampp" else (3, 12, 12))
    assert float(expected.max()) > 0
    few = maps(name, recorded(model, "features", pictures, chunk=2))
    np.testing.assert_allclose(few, expected, rtol=1e-9, atol=1e-12)
    order = [2, 0]
    other = maps(name, recorded(model, "features", pictures[order], TARGETS[order], chunk=7))
    np.testing.assert_allclose(other, expected[order], rtol=1e-9, atol=1e-12)
