"""What peers offer beside a method's formula: eigen smoothing, versions of the image, bases and classes, blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from wsol.errors import UserError
from wsol.heatmaps import HeatmapExtractor, make_method
from wsol.models import Classifier, gapnet

TARGETS = torch.tensor([3, 1])


def images(side: int = 24) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def model() -> nn.Module:
    network = gapnet(5, widths=(6, 8), strides=(2, 1), seed=0).double().eval()
    nn.init.normal_(network.classifier.weight, generator=torch.Generator().manual_seed(0))
    return network


def maps_of(model: nn.Module | Classifier, pictures: torch.Tensor | None = None, **methods) -> dict[str, torch.Tensor]:
    with HeatmapExtractor(model, {name: make_method(**options) for name, options in methods.items()}) as extractor:
        return extractor(images() if pictures is None else pictures, TARGETS).maps


def parts_of(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """A and G of the class scores, by plain autograd."""
    activations = model.features(images()).detach().requires_grad_()
    scores = model.classifier(activations.mean((2, 3))).gather(1, TARGETS[:, None])
    return activations.detach(), torch.autograd.grad(scores.sum(), activations)[0]


def projected(parts: torch.Tensor) -> np.ndarray:
    """What the parts have in common, (B, h, w), of either sign: a decomposition of each image's h·w × K matrix."""
    maps = []
    for one in parts.numpy():
        rows = one.reshape(len(one), -1).T
        rows = rows - rows.mean(0)
        maps.append((rows @ np.linalg.svd(rows)[2][0]).reshape(one.shape[1:]))
    return np.stack(maps)


PARTS = {
    "gradcam": lambda a, g: g.mean((2, 3), keepdim=True) * a,
    "gradcamelementwise": lambda a, g: (g * a).relu(),
    "hirescam": lambda a, g: g * a,
    "layercam": lambda a, g: g.relu() * a,
}


@pytest.mark.parametrize("name", PARTS)
def test_eigen_smoothing_shows_what_the_channels_parts_have_in_common(name: str, model: nn.Module) -> None:
    parts = PARTS[name](*parts_of(model))
    expected, total = projected(parts), parts.sum(1).numpy()
    expected *= np.sign((expected * total).sum((1, 2), keepdims=True))
    found = maps_of(model, smooth={"function": name, "eigen": True}, plain={"function": name})
    np.testing.assert_allclose(found["smooth"], expected.clip(0), atol=1e-6)
    assert (found["smooth"] - found["plain"]).abs().max() > 0.01


@pytest.mark.parametrize("name", ["gradcampp", "xgradcam", "shapleycam", "scorecam", "ablationcam"])
def test_eigen_smoothing_of_every_weighted_sum(name: str, model: nn.Module) -> None:
    found = maps_of(model, smooth={"function": name, "eigen": True}, plain={"function": name})
    assert found["smooth"].isfinite().all() and found["smooth"].min() >= 0
    assert not torch.allclose(found["smooth"], found["plain"], rtol=1e-2)


def test_segeigencam_is_positive_where_it_sticks_out(model: nn.Module) -> None:
    activations, gradients = parts_of(model)
    expected = projected(gradients.abs() * activations)
    flip = -expected.min((1, 2), keepdims=True) > expected.max((1, 2), keepdims=True)
    found = maps_of(model, it={"function": "segeigencam"})["it"]
    np.testing.assert_allclose(found, np.where(flip, -expected, expected), atol=1e-6)


@pytest.mark.parametrize("base", ["gradcam", "layercam", "hirescam", "gradcampp"])
def test_finercam_with_chosen_classes_and_another_base(base: str, model: nn.Module) -> None:
    found = maps_of(model, it={"function": "finercam", "references": [0, 3, 4], "base": base, "gamma": 0.5})["it"]
    weight, others = model.classifier.weight.detach(), {3: [0, 4], 1: [0, 3, 4]}
    rows = [weight[c] - 0.5 * weight[others[c]].mean(0) for c in TARGETS.tolist()]
    with torch.no_grad():
        model.classifier.weight[TARGETS] = torch.stack(rows)
    torch.testing.assert_close(found, maps_of(model, it={"function": base})["it"])
    with pytest.raises(UserError, match="finercam.*5"):
        maps_of(model, it={"function": "finercam", "references": [5]})
    with pytest.raises(UserError, match="base"):
        make_method("finercam", base="rise")


def test_legrad_of_chosen_blocks() -> None:
    torch.manual_seed(0)
    vit = models.VisionTransformer(24, 8, 3, 2, 16, 24, num_classes=5).double().eval()
    nn.init.normal_(vit.heads.head.weight)
    names = {"last": 1, "second": [1], "two": [0, 2], "first": [0], "third": [2]}
    found = maps_of(vit, **{name: {"function": "legrad", "blocks": blocks} for name, blocks in names.items()})
    torch.testing.assert_close(found["last"], found["third"])
    torch.testing.assert_close(found["two"], (found["first"] + found["third"]) / 2)
    assert not torch.allclose(found["second"], found["third"], rtol=1e-2)
    with pytest.raises(UserError, match="legrad.*3"):
        maps_of(vit, it={"function": "legrad", "blocks": [3]})


def test_versions_of_the_image_are_averaged(model: nn.Module) -> None:
    classifier = Classifier(name="small", module=model, layer="features", mean=(0.4,) * 3, std=(0.2,) * 3)
    views = {"scale": [1, 1.5], "brightness": [0.9, 1]}
    found = maps_of(classifier, **{name: {"function": name, "views": views} for name in ("cam", "gradcam", "saliency")})
    total = dict.fromkeys(found, 0.0)
    for factor in (0.9, 1):
        brighter = ((images() * 0.2 + 0.4) * factor - 0.4) / 0.2
        for pictures in (brighter, functional.interpolate(brighter, (36, 36), mode="bilinear")):
            for name, heatmap in maps_of(model, pictures, **{name: {"function": name} for name in found}).items():
                side = 36 if name == "saliency" else 18
                total[name] += functional.interpolate(heatmap[:, None], (side, side), mode="bilinear")[:, 0] / 4
    for name, expected in total.items():
        torch.testing.assert_close(found[name], expected)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"function": "gradcam", "views": {"brightness": [0.9]}}, "Classifier"),
        ({"function": "center", "views": {"scale": [2]}}, "center"),
        ({"function": "cam", "views": {"scales": [2]}}, "scales.*scale"),
        ({"function": "cam", "views": {"scale": [0]}}, "scale"),
    ],
)
def test_versions_that_can_not_be(options: dict, culprit: str, model: nn.Module) -> None:
    with pytest.raises(UserError, match=culprit):
        maps_of(model, it=options)


def test_a_network_of_one_size_takes_no_other() -> None:
    vit = models.VisionTransformer(24, 8, 1, 2, 16, 24, num_classes=5).double()
    with pytest.raises(UserError, match="views.*36 x 36"):
        maps_of(vit, it={"function": "gradcam", "views": {"scale": [1.5]}})
