"""The sign of the first principal component: chosen by what it is told to go with, never by rounding."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision import models

from wsol.heatmaps import HeatmapExtractor, make_method
from wsol.heatmaps.activation import first_component, kpcacam


@pytest.mark.parametrize("sign", [1, -1])
def test_it_goes_with_what_it_is_told(sign: int) -> None:
    maps = torch.rand(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    like = sign * maps.mean(1)
    assert ((first_component(maps, like) * like).sum((1, 2)) > 0).all()


def kernel_component(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return kpcacam(SimpleNamespace(activations=maps))


@pytest.mark.parametrize("component", [first_component, kernel_component])
def test_where_that_tells_nothing_the_side_that_sticks_out_is_positive(component) -> None:
    maps = torch.zeros(2, 2, 3, 3)
    maps[0, 0, 1, 1], maps[1, 0, 1, 1] = 5, -5
    maps[:, 1] = -maps[:, 0]  # the mean over channels is 0
    for noise in (0, 1e-9, -1e-9):
        found = component(maps, maps.mean(1) + noise * torch.randn(2, 3, 3))
        assert (found[:, 1, 1] > 0).all()


@pytest.mark.parametrize("name", ["eigencam", "kpcacam", "centered"])
def test_eigencam_of_layer_normalized_tokens_is_not_upside_down(name: str) -> None:
    """Their channels' mean is 0 but for rounding, which differs from machine to machine."""
    torch.manual_seed(0)
    model = models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5).eval()
    nn.init.constant_(model.encoder.pos_embedding, 0.5)
    method = make_method("eigencam", center=True) if name == "centered" else make_method(name)
    with HeatmapExtractor(model, {"it": method}) as extractor:
        maps = extractor(torch.randn(8, 3, 32, 32)).maps["it"].double()
    assert ((maps**3).sum((1, 2)) > 0).all()
