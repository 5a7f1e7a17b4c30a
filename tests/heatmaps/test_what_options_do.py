"""Every option reaches what it is for: scores, seeds, chunks, and what a batch costs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from wsol.errors import UserError
from wsol.heatmaps import HeatmapExtractor, Method, make_method
from wsol.models import gapnet

TARGETS = torch.tensor([3, 1, 4])


def images(side: int = 12) -> torch.Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def gap(classes: int = 5) -> nn.Module:
    """Its scores depend on several classes each: no class has nearly all of the probability."""
    model = gapnet(classes, widths=(6, 8), strides=(2, 1), seed=0).double().eval()
    nn.init.normal_(model.classifier.weight, generator=torch.Generator().manual_seed(0))
    return model


def vit() -> nn.Module:
    torch.manual_seed(0)
    model = models.VisionTransformer(12, 4, 2, 2, 16, 24, num_classes=5).double().eval()
    nn.init.normal_(model.heads.head.weight)
    return model


def maps_of(model: nn.Module, method: Method | str, **options: object) -> torch.Tensor:
    with HeatmapExtractor(model, {"it": method}, **options) as extractor:
        return extractor(images(), TARGETS).maps["it"]


# --- scores ---

FEWER = {"smoothgrad": {"samples": 2}, "integratedgradients": {"steps": 2}, "smoothgradcampp": {"samples": 2}}
SCORED = ("gradcam", "saliency", "guidedbackprop", "deconvnet", "legrad", *FEWER)


@pytest.mark.parametrize("name", SCORED)
def test_the_score_is_what_every_method_differentiates(name: str) -> None:
    """The log of the probability is the logit of a network that ends with a log-softmax."""
    model, method = (vit() if name == "legrad" else gap()), make_method(name, **FEWER.get(name, {}))
    maps = {score: maps_of(model, method, score=score) for score in ("logit", "log_prob")}
    end = "heads" if name == "legrad" else "classifier"
    setattr(model, end, nn.Sequential(getattr(model, end), nn.LogSoftmax(1)))
    expected = maps_of(model, method, score="logit")
    torch.testing.assert_close(maps["log_prob"], expected, rtol=1e-5, atol=1e-6 * float(expected.max()))
    even = {score: heatmap / heatmap.amax((1, 2), keepdim=True) for score, heatmap in maps.items()}
    assert float((even["log_prob"] - even["logit"]).abs().max()) > 0.01, "not the same map times a number"


@pytest.mark.parametrize("name", ["gradcam", "saliency", "occlusion"])
def test_a_methods_own_score_goes_before_the_extractors(name: str) -> None:
    model, size = gap(), {"size": 0.4, "stride": 0.3} if name == "occlusion" else {}
    expected = maps_of(model, make_method(name, **size), score="log_prob")
    own = maps_of(model, make_method(name, score="log_prob", **size), score="logit")
    assert torch.equal(own, expected)
    assert not torch.allclose(own, maps_of(model, make_method(name, **size), score="logit"), rtol=1e-2)


# --- what a batch costs ---


def test_methods_of_one_layer_share_one_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("gradcam", "gradcampp", "gradcamelementwise", "xgradcam", "hirescam", "layercam")
    differentiate, calls = torch.autograd.grad, []

    def count(*args: object, **options: object) -> object:
        calls.append(args)
        return differentiate(*args, **options)

    monkeypatch.setattr(torch.autograd, "grad", count)
    with HeatmapExtractor(gap(), names) as extractor:
        extractor(images(), TARGETS)
        assert len(calls) == 1
        extractor(images(), torch.stack([TARGETS, (TARGETS + 1) % 5], 1))
        assert len(calls) == 1 + 2, "one for each class"


# --- chunk and seed ---


@pytest.mark.parametrize(("name", "options"), [("rise", {"masks": 9, "cells": 3}), ("smoothgrad", {"samples": 3})])
def test_the_extractors_seed_is_that_of_masks_and_noise(name: str, options: dict[str, int]) -> None:
    first, again, other = (maps_of(gap(), make_method(name, **options), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, rtol=1e-2)


# --- odd networks ---


class AndMaximum(nn.Module):
    """Global average pooling and one linear layer, and so much of the maximum."""

    def __init__(self, share: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features, self.head, self.share = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), nn.Linear(8, 5), share

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        maps = self.features(pictures)
        return self.head(maps.mean((2, 3))) + self.share * maps.amax((2, 3))[:, :5]


def test_a_head_that_gives_nearly_the_logits_is_none() -> None:
    pictures = images().float()
    with torch.no_grad():
        exact, nearly = (AndMaximum(share)(pictures) for share in (0, 0.002))
        apart = (nearly - exact).abs().max() / (exact - AndMaximum(0).head.bias).abs().max()
    assert 0.01 < float(apart) < 0.05
    with HeatmapExtractor(AndMaximum(0), ("cam",), "features") as extractor:
        assert extractor(pictures).maps["cam"].any()
    with (
        HeatmapExtractor(AndMaximum(0.002), ("cam",), "features") as extractor,
        pytest.raises(UserError, match="AndMaximum has no such head"),
    ):
        extractor(pictures)


@pytest.mark.parametrize("references", [1, 3])
def test_finercam_of_one_class_has_nothing_to_compare_with(references: int) -> None:
    with HeatmapExtractor(
        gap(1), {"finer": make_method("finercam", references=references), "grad": make_method("gradcam")}
    ) as extractor:
        maps = extractor(images()).maps
    assert maps["grad"].any()
    torch.testing.assert_close(maps["finer"], maps["grad"])
