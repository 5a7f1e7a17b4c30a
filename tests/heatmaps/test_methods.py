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
from wsol.models import gapnet


def images(side: int = 64, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


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


@pytest.mark.parametrize(
    ("make", "layer"), [(models.resnet18, "layer4"), (models.densenet121, "features.norm5"), (gap, "features")]
)
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
        result = extractor(pictures, targets)
    np.testing.assert_allclose(scaled(result.maps["cam"]), scaled(cam), atol=1e-6)
    np.testing.assert_allclose(scaled(result.maps["gradcam"]), scaled(gradcam), atol=1e-6)
    np.testing.assert_allclose(result.maps["gradcam"].numpy(), gradcam, rtol=1e-4, atol=1e-6 * gradcam.max())


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
    expected = np.zeros((3, 14, 14))
    for token in range(196):
        expected[:, token // 14, token % 14] = (G.mean(1) * A[:, token]).sum(1)
    with HeatmapExtractor(model) as extractor:
        result = extractor(pictures, targets).maps["gradcam"]
    assert result.shape == (3, 14, 14)
    assert (result.amax((1, 2)) > 0).all()
    np.testing.assert_allclose(scaled(result), scaled(np.maximum(expected, 0)), atol=1e-6)


def test_own_function_sees_the_recording() -> None:
    seen: list[Recording] = []

    def energy(recording: Recording, power: float = 1.0) -> torch.Tensor:
        seen.append(recording)
        return (recording.activations.abs() ** power).sum(1)

    model, targets = build(gap), torch.tensor([2, 0, 4])
    with HeatmapExtractor(model, {"energy": make_method(energy, power=2.0)}) as extractor:
        result = extractor(images(32), targets)
    (recording,) = seen
    assert recording.model is model
    assert recording.layer == "features"
    assert torch.equal(recording.targets, targets)
    assert torch.equal(recording.logits, result.logits)
    with torch.no_grad():
        A = model.features(images(32))
    torch.testing.assert_close(recording.activations, A)
    np.testing.assert_allclose(result.maps["energy"], (A**2).sum(1), rtol=1e-6)


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
