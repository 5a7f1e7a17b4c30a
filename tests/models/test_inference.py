"""What a network is like while heatmaps are made and afterwards, and that folding changes no answer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import models

from wsol import HeatmapExtractor, UserError
from wsol.heatmaps.recording import record
from wsol.models import gapnet, logits_of
from wsol.models.inference import FEWEST, Folding, channels_last, choose_device, frozen, prefer_channels_last


def test_devices_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="gpu"):
        choose_device("gpu")


@pytest.mark.parametrize("output", [torch.zeros(2, 3), (torch.zeros(2, 3), None), {"logits": torch.zeros(2, 3)}])
def test_logits_are_found_in_what_networks_return(output: object) -> None:
    assert logits_of(output).shape == (2, 3)


@pytest.mark.parametrize("output", [torch.zeros(2, 3, 4), {"out": torch.zeros(2, 3)}, None, ()])
def test_answers_without_logits_name_the_network(output: object) -> None:
    with pytest.raises(UserError, match="model mine"):
        logits_of(output, "model mine")


def test_frozen_networks_are_as_before_also_after_an_exception() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[1].eval().weight.requires_grad_(False)
    with pytest.raises(KeyError), frozen(model):
        assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
        raise KeyError
    assert model.training and model[0].training and not model[1].training
    assert model[0].weight.requires_grad and not model[1].weight.requires_grad and model[1].bias.requires_grad


class Merging(nn.Linear):
    """Merges its weights while it is evaluated, as LoRA does."""

    merged = False

    def train(self, mode: bool = True) -> Merging:
        self.merged = not mode
        return super().train(mode)


def test_a_mode_that_does_more_than_set_its_flag_is_asked_for() -> None:
    model = nn.Sequential(Merging(4, 5))
    with frozen(model):
        assert model[0].merged
    assert model[0].training and not model[0].merged


def test_weights_have_their_own_memory_back() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last))
    places = [layer.weight.data_ptr() for layer in model]
    with channels_last(model):
        assert all(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in model)
        model[0].weight.data.fill_(3)
    assert [layer.weight.data_ptr() for layer in model] == places
    assert (model[0].weight == 3).all()


@pytest.mark.parametrize("views", [False, True])
def test_networks_that_read_maps_as_they_lie_keep_their_memory(views: bool) -> None:
    class Head(nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return maps.view(len(maps), -1) if views else maps.reshape(len(maps), -1)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Head())
    prefer_channels_last(model, (8, 8), torch.device("cpu"))
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last) != views


class CountNormalizations(TorchDispatchMode):
    """How many batch normalizations run."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "batch_norm" in str(func)
        return func(*args, **(kwargs or {}))


def trained(model: nn.Module) -> nn.Module:
    """Give every normalization statistics and weights as if it had been trained."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                if tensor is not None:
                    tensor.data += torch.randn(tensor.shape, generator=generator) / 5
            if module.running_var is not None:
                module.running_var *= torch.rand(module.running_var.shape, generator=generator) + 0.5
    return model.eval()


def fold(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Output of a network with folded pairs, and the number of normalizations that ran all the same."""
    before = [set(vars(module)) for module in model.modules()]
    with torch.no_grad(), Folding(model).active(FEWEST), CountNormalizations() as normalizations:
        output = model(images)
    assert [set(vars(module)) for module in model.modules()] == before
    return output, normalizations.count


FAMILIES = (
    "resnet18",
    "mobilenet_v2",
    "efficientnet_b0",
    "regnet_y_400mf",
    "shufflenet_v2_x0_5",
    "googlenet",
    "densenet121",
    *(pytest.param(name, marks=pytest.mark.long) for name in ("resnet50", "vgg11_bn", "inception_v3")),
)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_answers_the_same_with_its_normalizations_folded(name: str) -> None:
    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = trained(models.get_model(name, weights=None, **options)).double()
    side = 96 if name == "inception_v3" else 64
    images = torch.randn(2, 3, side, side).double()
    plain = model(images).detach()
    folded, count = fold(model, images)
    torch.testing.assert_close(folded, plain, rtol=1e-9, atol=1e-9 * float(plain.abs().max()))
    # DenseNet's norm1 of each of 58 layers, of 3 transitions, and norm5 stand before their ReLUs.
    assert count == (62 if name == "densenet121" else 0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("options", [{"affine": False}, {"eps": 0.1}, {"track_running_stats": False}])
def test_each_kind_of_normalization(options: dict[str, object], bias: bool) -> None:
    convolution = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect", stride=2, bias=bias)
    model, images = trained(nn.Sequential(convolution, nn.BatchNorm2d(4, **options)).double()), torch.rand(3, 3, 9, 9)
    folded, count = fold(model, images.double())
    torch.testing.assert_close(folded, model(images.double()).detach())
    assert count == ("track_running_stats" in options)


class OneByOne(nn.Sequential):
    """Calls its children itself, and uses a convolution's output twice."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        before = self[0](images)
        return self[1](before) + before


class OwnBlock(models.resnet.BasicBlock):
    """A block of torchvision's with a forward method of its own."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        before = self.conv1(maps)
        return self.bn1(before) + before


class Doubling(nn.Conv2d):
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(maps)


SHARED = nn.Conv2d(3, 3, 1)
NOT_FOLDED = {
    "called one by one": OneByOne(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
    "a block's own forward method": OwnBlock(3, 3),
    "a convolution with two normalizations": nn.Sequential(SHARED, nn.BatchNorm2d(3), SHARED, nn.BatchNorm2d(3)),
    "a convolution in two places": nn.Sequential(nn.Sequential(SHARED, nn.ReLU()), SHARED, nn.BatchNorm2d(3)),
    "a convolution's own forward method": nn.Sequential(Doubling(3, 4, 3), nn.BatchNorm2d(4)),
    "half precision": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).bfloat16(),
    "scripted": torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()),
}


@pytest.mark.parametrize("case", NOT_FOLDED)
def test_what_others_see_is_not_folded(case: str) -> None:
    model = trained(NOT_FOLDED[case])
    images = torch.rand(2, 3, 8, 8).to(next(model.parameters()).dtype)
    assert torch.equal(fold(model, images)[0], model(images).detach())


def test_pairs_with_hooks_and_under_autocast_are_not_folded() -> None:
    model, images, seen = trained(gapnet(10)), torch.rand(4, 3, 48, 48), []
    with torch.autocast("cpu", torch.bfloat16):
        assert fold(model, images)[1] == 6
    model.features[3].register_forward_hook(lambda *call: seen.append(call[-1].detach().clone()))
    model(images)
    assert fold(model, images)[1] == 1
    torch.testing.assert_close(seen[1], seen[0])


@pytest.mark.parametrize("layer", ["layer2", "layer4", "layer4.1.conv1"])
def test_recorded_activations_and_gradients_are_those_of_the_network_itself(layer: str) -> None:
    model, images = trained(models.resnet18(num_classes=7)).double(), torch.randn(4, 3, 64, 64).double()
    with frozen(model):
        recording = record(model, [layer], images, None)
    kept: list[torch.Tensor] = []
    model.get_submodule(layer).register_forward_hook(lambda *call: kept.append(call[-1]))
    (gradients,) = torch.autograd.grad(model(images.requires_grad_()).amax(1).sum(), kept)
    torch.testing.assert_close(recording.activations, kept[0].detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(recording.gradients, gradients, rtol=1e-9, atol=1e-12)


def test_weights_that_change_between_batches_are_folded_anew() -> None:
    model, images = trained(gapnet(10)), torch.rand(4, 3, 48, 48)
    with HeatmapExtractor(model, ("cam",), "features") as extractor:
        before = extractor(images).logits
        model.features[0].weight.data.mul_(0.5)  # as randomization tests do: no counter of changes sees it
        after = extractor(images).logits
    torch.testing.assert_close(after, model(images).detach(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, after)


def test_a_few_images_are_not_worth_it() -> None:
    model = trained(gapnet(10))
    for count in (1, FEWEST - 1, FEWEST):
        with torch.no_grad(), Folding(model).active(count), CountNormalizations() as normalizations:
            model(torch.rand(count, 3, 48, 48))
        assert (normalizations.count == 0) == (count == FEWEST)


def test_nothing_stays_behind_after_an_exception_and_forward_methods_of_others_are_kept() -> None:
    model = trained(gapnet(10))
    with pytest.raises(RuntimeError):
        fold(model, torch.rand(1, 5, 16, 16))
    assert not any("forward" in vars(module) for module in model.modules())
    double = model.features.forward = lambda maps: maps * 2
    with Folding(model).active(FEWEST):
        assert model.features(torch.ones(1)) == 2
    assert model.features.forward is double
