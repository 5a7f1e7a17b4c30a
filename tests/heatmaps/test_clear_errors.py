"""What can't give a heatmap is refused with a message that says what, where and what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from wsol import HeatmapExtractor
from wsol.errors import UserError
from wsol.heatmaps import make_method


def small() -> nn.Sequential:
    """Two convolutions, mean and head."""
    torch.manual_seed(0)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), *head).eval()


def images() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def maps(
    model: nn.Module, name: str, layer: object = None, shown: torch.Tensor | None = None, **options: object
) -> torch.Tensor:
    with HeatmapExtractor(model, {name: make_method(name, **options)}, layer) as extractor:
        return extractor(images() if shown is None else shown, torch.tensor([1, 3])).maps[name]


def refusal(run: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        run()
    return str(error.value)


class Before(nn.Module):
    """A small network with something before it."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.net, self.change = small(), change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(self.change(x))


@pytest.mark.parametrize("method", ["scorecam", "iscam", "sscam", "rise", "occlusion"])
def test_changed_images_that_have_no_finite_logits(method: str) -> None:
    model = Before(lambda x: x / x.std((1, 2, 3), keepdim=True))
    nn.init.zeros_(model.net[2].weight[0])  # a dead channel hides the whole image
    nn.init.zeros_(model.net[2].bias[0])
    options = {"rise": {"masks": 20, "cells": 1}, "occlusion": {"size": 1.0}, "sscam": {"std": 0.0, "samples": 1}}
    layer = None if method in ("rise", "occlusion") else "net.3"
    message = refusal(lambda: maps(model, method, layer, **options.get(method, {})))
    where = f"method {method} at layer net.3" if layer else f"method {method}"
    assert f"{where} gives values that are not finite for image 0 (number 0 in the batch)" in message


@pytest.mark.parametrize(
    "method", ["saliency", "guidedbackprop", "deconvnet", "guidedgradcam", "integratedgradients", "fullgrad"]
)
def test_gradients_of_pixels_that_are_not_finite(method: str) -> None:
    shown = images()
    shown[1, :, 3, 3] = 0
    message = refusal(lambda: maps(Before(lambda x: x.abs().sqrt()), method, "net.3", shown))
    assert f"method {method}" in message and "not finite for image 1 (number 1 in the batch)" in message
