"""The small GAP network: its map's size, and that its class activation map is exact."""

from __future__ import annotations

import pytest
import torch

from wsol.errors import UserError
from wsol.models.gapnet import GapNet, gapnet


def test_logits_are_the_mean_of_the_class_activation_map() -> None:
    model = gapnet(7, seed=1).eval()
    images = torch.randn(2, 3, 96, 64)
    maps = model.features(images)
    assert maps.shape == (2, 128, 12, 8) and maps.min() >= 0
    cam = torch.einsum("kc,bchw->bkhw", model.classifier.weight, maps)
    torch.testing.assert_close(cam.mean((2, 3)) + model.classifier.bias, model(images))


def test_seed_repeats_and_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    first, second, other = gapnet(3, seed=5), gapnet(3, seed=5), gapnet(3, seed=6)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_widths_and_strides() -> None:
    model = GapNet(4, widths=(8, 16, 16), strides=(2, 1, 2)).eval()
    assert model.features(torch.zeros(1, 3, 20, 20)).shape == (1, 16, 5, 5)
    assert model(torch.zeros(1, 3, 20, 20)).shape == (1, 4)


@pytest.mark.parametrize(
    "wrong",
    [{"widths": (8,), "strides": (1, 2)}, {"widths": (), "strides": ()}, {"widths": (0,), "strides": (1,)}],
)
def test_bad_shapes_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match="one width and one stride"):
        GapNet(4, **wrong)
    with pytest.raises(UserError, match="at least one class"):
        GapNet(0)
