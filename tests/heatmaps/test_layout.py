"""How layers' outputs become maps: channels first, channels last, tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from wsol.errors import UserError
from wsol.heatmaps import HeatmapExtractor
from wsol.heatmaps.recording import Layout, layout_of, record
from wsol.models.inference import frozen

PLAIN = nn.Sequential(nn.Identity())


@pytest.mark.parametrize("shape", [(2, 8), (2, 12, 4), (2, 2, 4), (2, 1, 1, 1, 1)])
def test_no_spatial_layout(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="layer 0"):
        layout_of(PLAIN, "0", torch.zeros(shape), torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize("skipped", [0, 1, 2])
def test_tokens_row_by_row_without_those_that_stand_for_no_place(skipped: int) -> None:
    tokens = torch.arange(skipped + 6).float().reshape(1, -1, 1) - skipped
    layout = layout_of(PLAIN, "0", tokens, torch.zeros(1, 3, 32, 48))
    assert layout == Layout(grid=(2, 3), skipped=skipped)
    assert layout.as_map(tokens)[0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def swin() -> models.SwinTransformer:
    torch.manual_seed(0)
    return models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=5).eval()


@pytest.mark.parametrize(
    ("layer", "channels_last"),
    [("features.0", True), ("features.0.0", False), ("features.1", True), ("features.3.0", True), ("norm", True),
     ("permute", False)],
)  # fmt: skip
def test_swins_stages_are_channels_last(layer: str, channels_last: bool) -> None:
    model, seen = swin(), []
    model.get_submodule(layer).register_forward_hook(lambda _m, _i, output: seen.append(output))
    images = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        model(images)
    layout = layout_of(model, layer, seen[0], images)
    assert layout.channels_last == channels_last
    height, width = layout.as_map(seen[0]).shape[2:]
    assert width == height * 48 // 32


@pytest.mark.parametrize("name", ["gradcam", "layercam", "hirescam"])
@pytest.mark.parametrize(
    ("before", "after", "size"),
    [("norm", "permute", (4, 6)), ("features.0.0", "features.0.1", (8, 12))],
    ids=["last stage", "first stage"],
)
def test_swins_stages_give_the_same_maps_before_and_after_a_permutation(
    before: str, after: str, size: tuple[int, int], name: str
) -> None:
    with HeatmapExtractor(swin(), (name,), [before, after]) as extractor:
        maps = extractor(torch.rand(2, 3, 32, 48)).maps
    assert maps[f"{name}@{before}"].shape == (2, *size)
    assert maps[f"{name}@{before}"].any()
    torch.testing.assert_close(maps[f"{name}@{before}"], maps[f"{name}@{after}"])


@pytest.mark.parametrize(("place", "last"), [(0, False), (1, True), (3, True), (4, True), (5, True), (6, False)])
def test_blocks_that_turn_their_maps(place: int, last: bool) -> None:
    model, layer = models.convnext_tiny(num_classes=5).eval(), f"features.5.0.block.{place}"
    images = torch.rand(1, 3, 64, 64)
    with frozen(model):
        output = record(model, [layer], images, None).output
    layout = layout_of(model, layer, output, images)
    assert layout.channels_last == last
    assert layout.as_map(output).shape[2:] == (4, 4)
