"""What can be asked for beside a method: scores, eigen smoothing, versions of the image, bases and classes, blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.heatmaps import networks
from tests.heatmaps.networks import TARGETS, images, maps_of, vit
from wsol.errors import UserError
from wsol.heatmaps import HeatmapExtractor, make_method
from wsol.models import Classifier

FEWER = {"smoothgrad": {"samples": 2}, "integratedgradients": {"steps": 2}, "smoothgradcampp": {"samples": 2},
         "occlusion": {"size": 0.4, "stride": 0.3}}  # fmt: skip


def gap(classes: int = 5) -> nn.Module:
    """Its scores depend on several classes each: no class has nearly all of the probability."""
    model = networks.gap((2, 1), classes)
    nn.init.normal_(model.classifier.weight, generator=torch.Generator().manual_seed(0))
    return model


# --- scores ---


@pytest.mark.parametrize("name", ["gradcam", "saliency", "guidedbackprop", "deconvnet", "legrad", *list(FEWER)[:3]])
def test_the_score_is_what_every_method_differentiates(name: str) -> None:
    """The log of the probability is the logit of a network that ends with a log-softmax."""
    model, method = (vit(16) if name == "legrad" else gap()), {"it": {"function": name, **FEWER.get(name, {})}}
    maps = {score: maps_of(model, method, score=score)["it"] for score in ("logit", "log_prob")}
    end = "heads" if name == "legrad" else "classifier"
    setattr(model, end, nn.Sequential(getattr(model, end), nn.LogSoftmax(1)))
    expected = maps_of(model, method, score="logit")["it"]
    torch.testing.assert_close(maps["log_prob"], expected, rtol=1e-5, atol=1e-6 * float(expected.max()))
    even = {score: heatmap / heatmap.amax((1, 2), keepdim=True) for score, heatmap in maps.items()}
    assert float((even["log_prob"] - even["logit"]).abs().max()) > 0.01, "not the same map times a number"


@pytest.mark.parametrize("name", ["gradcam", "saliency", "occlusion"])
def test_a_methods_own_score_goes_before_the_extractors(name: str) -> None:
    options = FEWER.get(name, {})
    methods = {"own": {"function": name, "score": "log_prob", **options}, "extractors": {"function": name, **options}}
    maps, expected = (maps_of(gap(), methods, score=score) for score in ("logit", "log_prob"))
    assert torch.equal(maps["own"], expected["extractors"])
    assert not torch.allclose(maps["own"], maps["extractors"], rtol=1e-2)


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


# --- eigen smoothing ---


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
    "segeigencam": lambda a, g: g.abs() * a,
}


@pytest.mark.parametrize("name", PARTS)
def test_eigen_smoothing_shows_what_the_channels_parts_have_in_common(name: str) -> None:
    model = gap()
    activations = model.features(images()).requires_grad_()
    scores = model.classifier(activations.mean((2, 3))).gather(1, TARGETS[:, None])
    parts = PARTS[name](activations.detach(), torch.autograd.grad(scores.sum(), activations)[0])
    expected, total = projected(parts), parts.sum(1).numpy()
    if name == "segeigencam":  # what sticks out farthest is positive
        flip = -expected.min((1, 2), keepdims=True) > expected.max((1, 2), keepdims=True)
        np.testing.assert_allclose(maps_of(model, name), np.where(flip, -expected, expected), atol=1e-6)
        return
    expected *= np.sign((expected * total).sum((1, 2), keepdims=True))
    np.testing.assert_allclose(
        maps_of(model, {"it": {"function": name, "eigen": True}})["it"], expected.clip(0), atol=1e-6
    )


@pytest.mark.parametrize("name", ["gradcampp", "xgradcam", "shapleycam", "scorecam", "ablationcam"])
def test_eigen_smoothing_of_every_weighted_sum(name: str) -> None:
    maps = maps_of(gap(), {"smooth": {"function": name, "eigen": True}, "plain": {"function": name}})
    assert maps["smooth"].isfinite().all() and maps["smooth"].min() >= 0
    assert not torch.allclose(maps["smooth"], maps["plain"], rtol=1e-2)


# --- classes, bases, blocks ---


@pytest.mark.parametrize("base", ["gradcam", "layercam", "hirescam", "gradcampp"])
def test_finercam_with_chosen_classes_and_another_base(base: str) -> None:
    model, options = gap(), {"function": "finercam", "base": base, "gamma": 0.5}
    maps = maps_of(model, {"it": options | {"references": [0, 3, 4]}})["it"]
    weight, others = model.classifier.weight, {3: [0, 4], 1: [0, 3, 4], 4: [0, 3]}
    rows = [weight[c] - 0.5 * weight[others[c]].mean(0) for c in TARGETS.tolist()]
    weight[TARGETS] = torch.stack(rows)
    torch.testing.assert_close(maps, maps_of(model, base))
    with pytest.raises(UserError, match="finercam.*5"):
        maps_of(model, {"it": options | {"references": [5]}})
    with pytest.raises(UserError, match="base"):
        make_method("finercam", base="rise")


@pytest.mark.parametrize("references", [1, 3])
def test_finercam_of_one_class_has_nothing_to_compare_with(references: int) -> None:
    methods = {"finer": {"function": "finercam", "references": references}, "grad": {"function": "gradcam"}}
    maps = maps_of(gap(1), methods, targets=None)
    assert maps["grad"].any()
    torch.testing.assert_close(maps["finer"], maps["grad"])


def test_legrad_of_chosen_blocks() -> None:
    names = {"last": 1, "second": [1], "two": [0, 2], "first": [0], "third": [2]}
    model, options = vit(24, blocks=3), {name: {"function": "legrad", "blocks": which} for name, which in names.items()}
    maps = maps_of(model, options, images(side=24))
    torch.testing.assert_close(maps["last"], maps["third"])
    torch.testing.assert_close(maps["two"], (maps["first"] + maps["third"]) / 2)
    assert not torch.allclose(maps["second"], maps["third"], rtol=1e-2)
    with pytest.raises(UserError, match="legrad.*3"):
        maps_of(model, {"it": {"function": "legrad", "blocks": [3]}}, images(side=24))


# --- versions of the image ---


def test_versions_of_the_image_are_averaged() -> None:
    model, names = gap(), ("cam", "gradcam", "saliency")
    classifier = Classifier(name="small", module=model, layer="features", mean=(0.4,) * 3, std=(0.2,) * 3)
    views = {"scale": [1, 1.5], "brightness": [0.9, 1]}
    maps = maps_of(classifier, {name: {"function": name, "views": views} for name in names})
    total = dict.fromkeys(names, 0.0)
    for factor in (0.9, 1):
        brighter = ((images() * 0.2 + 0.4) * factor - 0.4) / 0.2
        for pictures in (brighter, functional.interpolate(brighter, (24, 24), mode="bilinear")):
            for name, heatmap in maps_of(model, dict(zip(names, names, strict=True)), pictures).items():
                side = 24 if name == "saliency" else 12
                total[name] += functional.interpolate(heatmap[:, None], (side, side), mode="bilinear")[:, 0] / 4
    for name, expected in total.items():
        torch.testing.assert_close(maps[name], expected)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"function": "gradcam", "views": {"brightness": [0.9]}}, "Classifier"),
        ({"function": "center", "views": {"scale": [2]}}, "center"),
        ({"function": "cam", "views": {"scales": [2]}}, "scales.*scale"),
        ({"function": "cam", "views": {"scale": [0]}}, "scale"),
    ],
)
def test_versions_that_can_not_be(options: dict[str, Any], culprit: str) -> None:
    with pytest.raises(UserError, match=culprit):
        maps_of(gap(), {"it": options})
