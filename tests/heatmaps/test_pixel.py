"""Methods that go to the pixels, with other rules for ReLUs, with averages and with biases, against their formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.heatmaps.networks import TARGETS, densenet, derivative, gap, images, lively, maps_of, recorded, resnet
from wsol.errors import UserError
from wsol.heatmaps import gradient, pixel
from wsol.heatmaps.pixel import full_gradients, fullgrad


def test_saliency_is_the_derivative() -> None:
    expected = derivative(gap(), images()).abs().amax(1)
    np.testing.assert_allclose(pixel.saliency(recorded(gap(), "", images())), expected, rtol=1e-10)


# --- guided backpropagation and deconvnet ---


class Rectified(nn.Module):
    """Three ReLUs of any spelling, for images whose values reach a ceiling."""

    def __init__(self, *rectify: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3), nn.Conv2d(8, 8, 1)
        self.head, self.rectify = nn.Linear(8, 5), rectify or (nn.ReLU(),)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, conv in enumerate((self.conv1, self.conv2, self.conv3)):
            x = self.rectify[number % len(self.rectify)](conv(x))
        return self.head(x.mean((2, 3)))


def without_result(x: torch.Tensor) -> torch.Tensor:
    x.relu_()
    return x


SPELLINGS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], ...]] = {
    "modules": (nn.ReLU(), nn.ReLU(inplace=True)),
    "calls": (functional.relu, torch.relu, torch.Tensor.relu, lambda x: functional.relu(input=x)),
    "in place": (lambda x: functional.relu(x, inplace=True), torch.relu_, without_result),
    "thresholds": (nn.Threshold(0, 0), nn.Threshold(0, 0, inplace=True)),
    "clamps": (lambda x: x.clamp(min=0), lambda x: x.clamp_(0), lambda x: torch.clamp_min(x, 0)),
    "hardtanh": (nn.Hardtanh(0, 1e6), lambda x: functional.hardtanh_(x, 0, 1e6)),
    "ceilings": (nn.ReLU6(), nn.Hardtanh(0.0, 0.3), lambda x: torch.clip(x, 0, 0.3), functional.relu6),
    "beside SiLU": (nn.SiLU(), nn.ReLU()),
}


class _ByHand(torch.autograd.Function):
    """The rule, written out: x, its ceiling, and whether to look at what went in."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rectified: torch.Tensor, guided: bool) -> torch.Tensor:
        ctx.guided = guided
        ctx.save_for_backward((x > 0) & (rectified == x))
        return rectified

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        kept = gradients[0] * (gradients[0] > 0)
        return (kept * ctx.saved_tensors[0] if ctx.guided else kept), None, None


RULES = pytest.mark.parametrize(("method", "guided"), [("guidedbackprop", True), ("deconvnet", False)])


@RULES
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_relus_of_every_spelling_follow_the_rule(spelling: str, method: str, guided: bool) -> None:
    model, pictures = lively(Rectified(*SPELLINGS[spelling])), 20 * images()
    ordinary = derivative(model, pictures).abs().amax(1)
    by_hand = [
        rule if isinstance(rule, nn.SiLU) else
        lambda x, rule=rule: _ByHand.apply(x, rule(x.detach().clone()), guided) for rule in model.rectify
    ]  # fmt: skip
    expected = derivative(lively(Rectified(*by_hand)), pictures).abs().amax(1)
    assert float((expected - ordinary).abs().max()) > 0.01 * float(ordinary.max())
    torch.testing.assert_close(getattr(pixel, method)(recorded(model, "", pictures)), expected)
    torch.testing.assert_close(derivative(model, pictures).abs().amax(1), ordinary)


@pytest.mark.parametrize("name", ["guidedbackprop", "deconvnet", "guidedgradcam"])
@pytest.mark.parametrize("other", [nn.SiLU(), nn.Hardtanh(), lambda x: x.clamp(max=1)])
def test_network_without_relu_is_refused(name: str, other: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with pytest.raises(UserError, match="Rectified runs none between the pixels and the logits"):
        maps_of(Rectified(other).double(), name, layer="conv3")


def test_guidedgradcam_is_the_product() -> None:
    model = gap()
    recording = recorded(model, "features", images())
    coarse = gradient.gradcam(recording)
    fine = functional.interpolate(coarse[:, None], (16, 16), mode="bilinear")[:, 0]
    expected = pixel.guidedbackprop(recording) * fine
    np.testing.assert_allclose(pixel.guidedgradcam(recording), expected, rtol=1e-10)
    assert float(expected.max()) > 0


# --- averages ---


def noise(n: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng((0, n)).standard_normal((3, 16, 16), np.float32)).double()


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
    model, pictures = lively(Rectified()), images()
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
    model = gap(scale=1e-18).float()
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
        self.classifier = nn.Sequential(nn.Linear(200, 10), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(10, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


@pytest.mark.parametrize(("make", "side"), [(gap, 16), (resnet, 32), (Maxout, 16), (densenet, 32)])
def test_image_and_biases_together_are_the_logit(make: Callable[[], nn.Module], side: int) -> None:
    model, pictures = lively(make()), images(side=side)
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
    expected = torch.zeros(3, 16, 16, dtype=torch.float64)
    for i in range(3):
        for part in parts:
            size = part[i].abs()
            for channel in size:
                among = size if jointly else channel
                even = (
                    (channel - among.min()) / (among.max() - among.min()) if among.max() > among.min() else 0 * channel
                )
                expected[i] += functional.interpolate(even[None, None], (16, 16), mode="bilinear")[0, 0]
    np.testing.assert_allclose(fullgrad(recorded(model, "", pictures), jointly), expected, rtol=1e-9)
