"""Running on from a layer gives what the whole network gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision import models

from tests.heatmaps.networks import densenet, lively, resnet
from wsol.heatmaps.recording import record
from wsol.heatmaps.replay import Replay
from wsol.models import find_layer
from wsol.models.inference import frozen


def googlenet() -> nn.Module:
    return models.googlenet(num_classes=5, init_weights=False)


NETWORKS: list[tuple[Callable[[], nn.Module], str]] = [
    (resnet, "layer4"),
    (resnet, "layer3.1.conv1"),
    (resnet, "layer4.0.downsample.0"),
    (lambda: densenet(2), "features.norm5"),
    (googlenet, "inception4a.branch2"),
    (googlenet, "inception5b"),
    (lambda: models.mobilenet_v3_small(num_classes=5), "features.4"),
    (lambda: models.VisionTransformer(64, 16, 3, 2, 16, 32, num_classes=5), "encoder.layers.encoder_layer_1.ln_1"),
    (lambda: models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=5), "features.1"),
]


def replay_of(model: nn.Module, layer: str, images: torch.Tensor) -> Replay:
    with frozen(model):
        return record(model, [layer], images, None, gradients=False).replay()


@pytest.mark.parametrize(("make", "layer"), NETWORKS, ids=lambda value: value if isinstance(value, str) else "")
def test_it_is_the_whole_network(make: Callable[[], nn.Module], layer: str) -> None:
    model, images = lively(make()), torch.rand(2, 3, 64, 64, dtype=torch.float64)
    changed: list[torch.Tensor] = []

    def change(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        changed.append(output * torch.rand(3, *output.shape[1:], dtype=output.dtype))
        return changed[0].clone()

    handle = find_layer(model, layer).register_forward_hook(change)
    with torch.no_grad():
        expected = model(images[1:].expand(3, -1, -1, -1))
    handle.remove()
    replay = replay_of(model, layer, images)
    before = changed[0].clone()
    for _ in range(2):
        torch.testing.assert_close(replay(changed[0], image=1), expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(changed[0], before)
    assert not any("forward" in vars(module) for module in model.modules())


def test_nothing_below_the_layer_runs_again() -> None:
    model, images = models.resnet18(num_classes=5).eval(), torch.rand(2, 3, 64, 64)
    replay, ran = replay_of(model, "layer4", images), []
    for name in ("conv1", "layer1.0.conv1", "layer3.1.conv2", "layer4.0.conv1", "fc"):
        find_layer(model, name).register_forward_hook(lambda *_, name=name: ran.append(name))
    replay(torch.rand(4, 512, 2, 2), image=0)
    assert ran.count("layer1.0.conv1") == 1  # the image itself, once
    ran.clear()
    replay(torch.rand(4, 512, 2, 2), image=0)
    assert "fc" in ran
    assert not {"layer1.0.conv1", "layer3.1.conv2", "layer4.0.conv1"} & set(ran)


def test_a_forward_of_the_modules_own_is_put_back() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    own = lambda value: value.relu() + 1  # noqa: E731
    model[1].forward = own
    replay = replay_of(model, "1", torch.rand(1, 3, 8, 8))
    with pytest.raises(IndexError):
        replay(torch.rand(1), image=0)
    assert model[1].forward is own


class InPlace(nn.Module):
    """Adds to the image, and to what a module below the target layer made, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.target, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        beside = self.below(x)
        beside += self.target(x.mul_(2))
        return self.head(beside.relu_().mean((2, 3)))


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_shared_is_not_written_to(count: int) -> None:
    model, images = InPlace().eval(), torch.rand(1, 3, 8, 8)
    replay, changed, before = replay_of(model, "target", images), torch.rand(count, 4, 8, 8), images.clone()
    with torch.no_grad():
        expected = model.head((model.below(images) + changed).relu().mean((2, 3)))
    for _ in range(2):
        torch.testing.assert_close(replay(changed, image=0), expected)
    assert torch.equal(images, before)
