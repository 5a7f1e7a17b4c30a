"""What networks and callers do to the tensors and modules that heatmaps share with them."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

import wsol
from wsol import HeatmapExtractor
from wsol.datasets import Shapes
from wsol.errors import UserError
from wsol.models import Classifier
from wsol.models.inference import prefer_channels_last


def pictures(count: int = 2, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def maps(model: nn.Module, name: str, layer: str | None, images: torch.Tensor, **options: object) -> torch.Tensor:
    with HeatmapExtractor(model, (name,), layer, **options) as extractor:
        return extractor(images, torch.arange(len(images)) % 2).maps[name]


def refusal(run: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        run()
    return str(error.value)


class Flattened(nn.Module):
    """Reads its maps with `view`, which maps in channels-last memory can't be."""

    def __init__(self, side: int = 16, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        convolution, norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.features = nn.Sequential(convolution, norm, nn.ReLU(), nn.AdaptiveMaxPool2d(side))
        self.fc = nn.Linear(8 * side * side, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        return self.fc(x.view(x.size(0), -1))


# --- memory formats ---


@pytest.mark.parametrize("name", ["gradcam", "saliency", "ablationcam", "scorecam"])
def test_networks_that_do_not_run_in_channels_last_memory(name: str) -> None:
    model, images = Flattened().eval(), pictures(4)  # as many as normalizations are folded for
    strides = model.features[0].weight.stride()
    wanted = maps(model, name, "features", images, channels_last=False)
    torch.testing.assert_close(maps(model, name, "features", images), wanted)
    shown = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(maps(model, name, "features", shown), wanted)
    assert wanted.any() and model.features[0].weight.stride() == strides
    assert model.training is False and all(parameter.requires_grad for parameter in model.parameters())


def test_evaluation_leaves_weights_where_they_lie() -> None:
    model = Flattened(8, 10).eval()
    strides = model.features[0].weight.stride()
    classifier = Classifier(name="flattened", module=model, layer="features", input_size=(64, 64))
    options = {"methods": ["gradcam"], "protocols": ["choe2020"], "class_map": "position", "progress": False}
    assert len(wsol.evaluate(Shapes(length=4), classifier, **options).per_image) == 4
    assert model.features[0].weight.stride() == strides


def test_training_prefers_channels_last_where_the_network_runs_in_it() -> None:
    for model, expected in ((Flattened(), False), (nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten()), True)):
        model.train()
        prefer_channels_last(model, (16, 16), torch.device("cpu"))
        (weight,) = (weight for weight in model.parameters() if weight.ndim == 4)
        assert weight.is_contiguous(memory_format=torch.channels_last) == expected
        assert weight.is_contiguous() != expected and model.training and weight.requires_grad


def test_a_model_that_is_converted_inside_the_block_stays_so() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    with HeatmapExtractor(model, ("gradcam",), "1"):
        model.double()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}


# --- tensors that are worked on in place ---


class Normalizing(nn.Module):
    """Brings its images to mean 0 by itself, in place or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.in_place = in_place
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.sub_(0.45).div_(0.22) if self.in_place else (x - 0.45) / 0.22
        return self.fc(self.conv(x).relu().mean((2, 3)))


NORMALIZED = ["saliency", "occlusion", "integratedgradients", "fullgrad", "guidedbackprop", "smoothgrad", "rise"]


@pytest.mark.parametrize("name", [*NORMALIZED, "scorecam", "ablationcam", "gradcam", "smoothgradcampp"])
def test_networks_that_normalize_their_images_in_place(name: str) -> None:
    images, layer = pictures().contiguous(memory_format=torch.channels_last), "conv"
    before = images.clone()
    wanted = maps(Normalizing(False), name, layer, images)
    torch.testing.assert_close(maps(Normalizing(True), name, layer, images), wanted, rtol=1e-4, atol=1e-6)
    assert wanted.any() and torch.equal(images, before)


def test_ablation_with_shortcuts_that_are_masked_in_place() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
            self.fc = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            skip = self.a(x)
            skip.masked_fill_(self.b(x).mean(1, keepdim=True) < 0, 0)
            return self.fc(skip.mean((2, 3)))

    model, images = Masked(), pictures() - 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of writing to expanded tensors
        together, one_by_one = (maps(model, "ablationcam", "b", images, chunk=chunk) for chunk in (32, 1))
    torch.testing.assert_close(together, one_by_one)
    assert together.any()


def test_ablation_is_proved_whatever_the_bias() -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.fc = nn.Linear(8, 4)
            nn.init.constant_(self.fc.bias, 20.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            skip = self.a(x)
            y = self.b(skip.relu())
            y += skip
            return self.fc(y.relu().mean((2, 3)))

    for model, images in ((Added(), pictures()), (Added().double(), pictures().double())):
        message = refusal(lambda model=model, images=images: maps(model, "ablationcam", "b", images))
        assert "what stands behind layer b gives other logits" in message


def test_ablation_beside_values_that_have_no_batch() -> None:
    class Temperature(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.tensor([2.0]))

        def forward(self) -> torch.Tensor:
            return self.value * 1

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.temperature, self.conv, self.fc = Temperature(), nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            temperature = self.temperature()
            return self.fc(self.conv(x).relu().mean((2, 3))) / temperature

    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
            self.memory = _Memory()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.memory(self.inner(x))
            return self.fc(torch.cat([self.conv(x), self.memory.saved], 2).mean((2, 3)))

    assert maps(Scaled(), "ablationcam", "conv", pictures()).any()
    message = refusal(lambda: maps(Remembers(), "ablationcam", "conv", pictures()))
    assert "what stands behind layer conv does not run alone on" in message


class _Memory(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.saved = x
        return x


@pytest.mark.parametrize("layer", ["enc.layers.0", "enc.layers.1", "enc.layers.1.norm1", "enc.layers.1.linear2"])
def test_ablation_inside_a_transformer_that_calculates_around_its_parts(layer: str) -> None:
    class Vit(nn.Module):
        def __init__(self, batch_first: bool = True) -> None:
            super().__init__()
            torch.manual_seed(0)
            block = nn.TransformerEncoderLayer(16, 4, 32, batch_first=batch_first, dropout=0.0)
            self.patches, self.fc = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 4)
            self.enc = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.enc(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    model, images = Vit().double().eval(), pictures().double()
    wanted = torch.zeros(2, 4, 4, dtype=torch.float64)
    tokens: list[torch.Tensor] = []
    watch = model.get_submodule(layer).register_forward_hook(lambda _, __, output: tokens.append(output.detach()))
    with torch.no_grad():
        whole = model(images)
        for channel in range(tokens[0].shape[2]):

            def ablate(_: nn.Module, __: object, output: torch.Tensor, channel: int = channel) -> torch.Tensor:
                return output.index_fill(2, torch.tensor([channel]), 0)

            handle = model.get_submodule(layer).register_forward_hook(ablate)
            lost = (whole - model(images))[[0, 1], [0, 1]] / whole[[0, 1], [0, 1]]
            handle.remove()
            wanted += lost[:, None, None] * tokens[0][:, :, channel].unflatten(1, (4, 4))
    watch.remove()
    found = maps(model, "ablationcam", layer, images).double()
    wanted = wanted.relu()
    assert wanted.any()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert "batch_first=True" in refusal(lambda: maps(Vit(False).eval(), "gradcam", layer, pictures(16)))


def test_layers_that_hand_on_their_own_input() -> None:
    class Block(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            self.drop, self.relu, self.conv = nn.Dropout(0.1), nn.ReLU(in_place), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.conv(self.relu(self.drop(x)))

    def network(in_place: bool) -> nn.Module:
        torch.manual_seed(0)
        head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        return nn.Sequential(nn.Conv2d(3, 8, 3), Block(in_place), *head).eval()

    assert "layer 1.drop hands on its own input" in refusal(
        lambda: maps(network(True), "gradcam", "1.drop", pictures())
    )
    assert maps(network(False), "gradcam", "1.drop", pictures()).any()
    assert maps(network(True), "gradcam", "1.relu", pictures()).any()  # in place itself, and nobody minds a copy


# --- layouts ---


class TurnedNorm(nn.LayerNorm):
    """Takes and yields (B, K, h, w)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = functional.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return turned.permute(0, 3, 1, 2)


@pytest.mark.parametrize(("norm", "width"), [(nn.LayerNorm((8, 12, 18)), 18), (TurnedNorm(8), 16)])
def test_norms_whose_maps_have_channels_first(norm: nn.Module, width: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    assert maps(model, "gradcam", "1", pictures(2, 12, width)).shape == (2, 12, width)


def test_perceptrons_whose_maps_have_channels_last() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)
            self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.mlp(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))

    for layer in ("conv", "mlp", "mlp.1", "mlp.2"):
        assert maps(Turned(), "gradcam", layer, pictures(2, 12, 18)).shape == (2, 12, 18)


def test_channels_before_places_in_a_row_are_no_tokens() -> None:
    class Row(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.row, self.fc = nn.Conv2d(3, 16, 3, padding=1), nn.Conv1d(16, 16, 1), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.row(self.conv(x).flatten(2)).mean(2))

    message = refusal(lambda: maps(Row(), "gradcam", "row", pictures(2, 12, 12)))
    assert "layer row (Conv1d) yields shape (2, 16, 144), channels before places" in message
