"""How layers' outputs become maps: channels first, channels last, tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.heatmaps import networks
from wsol.errors import UserError
from wsol.heatmaps import HeatmapExtractor
from wsol.models.trace import Layout, trace


class Fixed(nn.Module):
    """Yields one tensor of a shape, which depends on the image or not."""

    def __init__(self, shape: tuple[int, ...], same: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.shape, self.same, self.inner = shape, same, nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        values = torch.rand(self.shape, generator=generator) * (1 + images.mean())
        values = torch.stack([values * (1 + image.mean()) for image in images])
        values[:, list(self.same)] = 1
        return self.inner(values).flatten(1)[:, :3]


@pytest.mark.parametrize("shape", [(8,), (12, 4), (2, 4), (1, 1, 1, 1), (8, 3, 6), (1, 8, 8, 8), (5, 1, 1)])
def test_no_spatial_layout(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="layer inner"):
        trace(Fixed(shape), (32, 32)).layout("inner")


@pytest.mark.parametrize("same", [(), (0,), (0, 1), (0, 1, 2, 3, 4), (6,), (3,), (0, 7)])
def test_tokens_row_by_row_without_those_that_stand_for_no_place(same: tuple[int, ...]) -> None:
    count, patches = len(same) + 6, [place for place in range(len(same) + 6) if place not in same]
    layout = trace(Fixed((count, 5), same), (32, 48)).layout("inner")
    assert layout == Layout(grid=(2, 3), dropped=same)
    maps = layout.as_map(torch.arange(count).float().reshape(1, -1, 1))
    assert maps[0, 0].flatten().tolist() == patches


def swin() -> nn.Module:
    torch.manual_seed(0)
    return networks.swin().eval()


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
    layout = trace(model, (32, 48)).layout(layer)
    assert layout.channels_last == channels_last
    height, width = layout.as_map(seen[0]).shape[2:]
    assert width == height * 48 // 32


@pytest.mark.parametrize("name", ["gradcam", "layercam"])
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
