"""Batch normalizations folded into convolutions: the same answers, fewer operations, nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torchvision import models

from wsol import HeatmapExtractor
from wsol.heatmaps.folding import FEWEST, Folding
from wsol.heatmaps.recording import record
from wsol.models import default_layer, gapnet
from wsol.models.frozen import frozen


class _Count(TorchDispatchMode):
    """Count batch normalizations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.normalizations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.normalizations += "batch_norm" in str(func)
        return func(*args, **(kwargs or {}))


@contextmanager
def counting() -> Iterator[_Count]:
    with _Count() as count:
        yield count


def trained(model: nn.Module) -> nn.Module:
    """Give every normalization statistics and weights as if it had been trained."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor += torch.randn(tensor.shape, generator=generator) / 5
            module.running_var *= torch.rand(module.running_var.shape, generator=generator) + 0.5
    return model.eval()


def pairs_left(model: nn.Module, images: torch.Tensor) -> int:
    with torch.no_grad(), Folding(model).active(FEWEST), counting() as count:
        model(images)
    return count.normalizations


@pytest.mark.parametrize(
    ("name", "side", "left"),
    [
        ("resnet18", 64, 0),
        ("resnet50", 64, 0),
        ("wide_resnet50_2", 64, 0),
        ("mobilenet_v2", 64, 0),
        ("mobilenet_v3_small", 64, 0),
        ("efficientnet_b0", 64, 0),
        ("regnet_y_400mf", 64, 0),
        ("vgg11_bn", 64, 0),
        ("shufflenet_v2_x0_5", 64, 0),
        ("googlenet", 64, 0),
        ("inception_v3", 96, 0),
        ("densenet121", 64, 62),  # norm1 of each of 58 layers, of 3 transitions, and norm5 stand before their ReLUs
    ],
)
def test_every_family_answers_the_same_with_its_normalizations_folded(name: str, side: int, left: int) -> None:
    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = trained(models.get_model(name, weights=None, **options)).double()
    images = torch.randn(2, 3, side, side).double()
    with torch.no_grad():
        plain = model(images)
        with Folding(model).active(FEWEST):
            folded = model(images)
    torch.testing.assert_close(folded, plain, rtol=1e-9, atol=1e-9 * float(plain.abs().max()))
    assert pairs_left(model, images) == left
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_recording_is_folded_and_its_activations_and_gradients_are_those_of_the_network_itself() -> None:
    model, images = trained(models.resnet18(num_classes=7)).double(), torch.randn(4, 3, 64, 64).double()
    layers = ["layer2", "layer4"]
    kept: dict[str, torch.Tensor] = {}
    with frozen(model), counting() as count:
        passed = record(model, layers, images, None)
    assert count.normalizations == 10  # of layer3 and layer4, in the graph
    handles = [
        model.get_submodule(layer).register_forward_hook(lambda m, i, out, layer=layer: kept.update({layer: out}))
        for layer in layers
    ]
    logits = model(images.requires_grad_())
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(logits.amax(1).sum(), list(kept.values()))
    for layer, gradient in zip(layers, gradients, strict=True):
        recording = passed.recording(layer, 0)
        torch.testing.assert_close(recording.activations, kept[layer].detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(recording.gradients, gradient, rtol=1e-9, atol=1e-12)


def test_a_convolution_that_is_the_target_layer_hands_out_its_own_output() -> None:
    model, images = trained(models.resnet18()).double(), torch.randn(4, 3, 64, 64).double()
    with frozen(model):
        found = record(model, ["layer4.1.conv1"], images, None).recording("layer4.1.conv1", 0).activations
    kept = []
    model.layer4[1].conv1.register_forward_hook(lambda m, i, out: kept.append(out.detach()))
    model(images)
    torch.testing.assert_close(found, kept[0], rtol=1e-9, atol=1e-9)


def test_hooks_of_others_see_what_they_would_see_without_us() -> None:
    model, images, seen = trained(gapnet(10)), torch.rand(4, 3, 48, 48), []
    convolution = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    convolution.register_forward_hook(lambda m, i, out: seen.append(out.detach().clone()))
    model(images)
    with HeatmapExtractor(model, ("gradcam",)) as extractor:
        extractor(images)
    torch.testing.assert_close(seen[-1], seen[0])


class _OneByOne(nn.Module):
    """Calls the children of a Sequential itself, and uses a convolution's output twice."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        before = self.features[0](images)
        return self.head((self.features[1](before) + before).relu().mean((2, 3)))


def test_modules_called_one_by_one_are_not_folded() -> None:
    model, images = trained(_OneByOne()), torch.rand(2, 3, 8, 8)
    with torch.no_grad(), Folding(model).active(FEWEST):
        folded = model(images)
    assert torch.equal(folded, model(images).detach())


class _OwnBlock(models.resnet.BasicBlock):
    """A block of torchvision's with a forward method of its own."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        first = self.conv1(value)
        return self.bn1(first) + first


def test_a_subclass_with_its_own_forward_method_is_not_folded() -> None:
    model, images = trained(nn.Sequential(_OwnBlock(3, 3))), torch.rand(1, 3, 8, 8)
    with torch.no_grad(), Folding(model).active(FEWEST):
        assert torch.equal(model(images), model[0](images))


def test_a_convolution_that_runs_twice_in_a_sequence_is_not_folded() -> None:
    shared = nn.Conv2d(3, 3, 1)
    model, images = trained(nn.Sequential(shared, nn.BatchNorm2d(3), shared, nn.BatchNorm2d(3))), torch.rand(1, 3, 4, 4)
    assert pairs_left(model, images) == 2


@pytest.mark.parametrize(
    "normalization",
    [nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, eps=0.1), nn.BatchNorm2d(4, track_running_stats=False)],
    ids=["without weights", "its own epsilon", "without statistics"],
)
@pytest.mark.parametrize("bias", [True, False])
def test_each_kind_of_normalization(normalization: nn.BatchNorm2d, bias: bool) -> None:
    convolution = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect", stride=2, bias=bias)
    model, images = nn.Sequential(convolution, normalization).double().eval(), torch.rand(3, 3, 9, 9).double()
    with torch.no_grad():
        if normalization.running_mean is not None:
            normalization.running_mean += 0.3
        plain = model(images)
        with Folding(model).active(FEWEST):
            torch.testing.assert_close(model(images), plain)
    assert pairs_left(model, images) == (normalization.running_mean is None)


def test_weights_that_change_between_batches_are_folded_anew() -> None:
    model, images = trained(gapnet(10)), torch.rand(4, 3, 48, 48)
    with HeatmapExtractor(model, ("cam",), "features") as extractor:
        before = extractor(images).logits
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data.mul_(0.5)  # as randomization tests do: no counter of changes sees it
        after = extractor(images).logits
    torch.testing.assert_close(after, model(images).detach(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, after)


def test_a_few_images_are_not_worth_it() -> None:
    model = trained(gapnet(10))
    for count in (1, FEWEST - 1, FEWEST):
        with frozen(model), counting() as counted:
            record(model, ["features"], torch.rand(count, 3, 48, 48), None)
        assert (counted.normalizations == 0) == (count == FEWEST)


def test_half_precision_and_autocast_are_left_alone() -> None:
    images = torch.rand(1, 3, 16, 16)
    assert pairs_left(trained(gapnet(10)).bfloat16(), images.bfloat16()) > 0
    with torch.autocast("cpu", torch.bfloat16):
        assert pairs_left(trained(gapnet(10)), images) > 0

    class Inside(nn.Module):
        """Turns autocast on by itself."""

        def __init__(self) -> None:
            super().__init__()
            self.net = trained(gapnet(10))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.net(images)

    assert pairs_left(Inside().eval(), images) > 0


def test_weights_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model = trained(gapnet(10))
    images = torch.rand(4, 3, 48, 48)
    assert pairs_left(model, images) == 0
    with torch.no_grad(), Folding(model).active(4):
        folded = model(images)
    with torch.no_grad():
        torch.testing.assert_close(folded, model(images), rtol=1e-4, atol=1e-5)


class _Checkpointed(nn.Module):
    """Calculates its first block again for the gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(checkpoint(self.block, images, use_reentrant=False).mean((2, 3)))


@pytest.mark.parametrize("name", ["checkpointed", "densenet"])
def test_gradients_through_checkpoints_are_the_networks_own(name: str) -> None:
    torch.manual_seed(0)
    model = _Checkpointed() if name == "checkpointed" else models.DenseNet(4, (2, 2), 8, memory_efficient=True)
    model, images = trained(model).double(), torch.randn(4, 3, 32, 32).double()
    leaf = images.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(model(leaf).amax(1).sum(), leaf)
    with frozen(model):
        recording = record(model, [], images, None).recording("", 0)
        found = recording.input_gradients(images, torch.arange(4))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("where", ["inside", "behind"])
def test_a_convolution_with_two_places_is_not_folded(where: str) -> None:
    shared, bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
    inner = nn.Sequential(shared, nn.BatchNorm2d(3)) if where == "inside" else nn.Sequential(shared, nn.ReLU())
    model = trained(nn.Sequential(inner, shared, bn) if where == "inside" else nn.Sequential(shared, bn, inner))
    images = torch.rand(1, 3, 4, 4)
    with torch.no_grad(), Folding(model).active(FEWEST):
        assert torch.equal(model(images), model.forward(images))
        folded = model(images)
    assert torch.equal(folded, model(images).detach())


def test_hooks_on_all_modules_see_what_they_would_see_without_us() -> None:
    model, images, seen = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))), torch.rand(1, 3, 8, 8), []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, _, output: seen.append(output.detach().clone()) if isinstance(module, nn.Conv2d) else None
    )
    try:
        with torch.no_grad(), Folding(model).active(FEWEST):
            model(images)
        model(images)
    finally:
        handle.remove()
    assert torch.equal(seen[0], seen[1])


class _OwnConvolution(nn.Conv2d):
    """Doubles what a convolution gives."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(value)


class _OwnNormalization(nn.BatchNorm2d):
    """A normalization and a ReLU in one."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return super().forward(value).relu()


@pytest.mark.parametrize("kinds", [(_OwnConvolution, nn.BatchNorm2d), (nn.Conv2d, _OwnNormalization)])
def test_layers_with_forward_methods_of_their_own_are_not_folded(kinds: tuple[type, type]) -> None:
    model, images = trained(nn.Sequential(kinds[0](3, 4, 3), kinds[1](4))), torch.rand(1, 3, 8, 8)
    with torch.no_grad(), Folding(model).active(FEWEST):
        folded = model(images)
    assert torch.equal(folded, model(images).detach())


def test_what_is_compiled_or_parallel_inside_is_left_alone() -> None:
    inner, images = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))), torch.rand(1, 3, 8, 8)
    for wrapped in (nn.DataParallel(inner), torch.compile(inner, backend="eager")):
        assert not list(_patched_while_active(nn.Sequential(wrapped)))
    assert list(_patched_while_active(nn.Sequential(inner)))
    inner.compile(backend="eager")
    assert not list(_patched_while_active(nn.Sequential(inner)))
    assert inner[0](images).shape == (1, 4, 6, 6)


def _patched_while_active(model: nn.Module) -> Iterator[nn.Module]:
    before = [module for module in model.modules() if "forward" in vars(module)]  # of a compiled module
    with Folding(model).active(FEWEST):
        yield from [module for module in model.modules() if "forward" in vars(module) and module not in before]


def test_a_scripted_part_is_left_alone() -> None:
    scripted = torch.jit.trace(trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))), torch.rand(1, 3, 8, 8))
    model, images = nn.Sequential(scripted, nn.ReLU()).eval(), torch.rand(1, 3, 8, 8)
    with torch.no_grad(), Folding(model).active(FEWEST):
        assert torch.equal(model(images), scripted(images).relu())


def test_nothing_stays_behind_after_an_exception() -> None:
    model = trained(gapnet(10))
    with pytest.raises(RuntimeError), Folding(model).active(FEWEST):
        model(torch.rand(1, 5, 16, 16))
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_method_of_ones_own_of_a_block_is_kept() -> None:
    block = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    own = lambda value: value * 2  # noqa: E731
    block.forward = own
    with Folding(block).active(FEWEST):
        assert torch.equal(block(torch.ones(1)), torch.full((1,), 2.0))
    assert block.forward is own


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "densenet121", "efficientnet_b0"])
def test_maps_of_folded_networks_are_those_of_float64_without_folding(name: str) -> None:
    model, images = trained(models.get_model(name, weights=None, num_classes=5)), torch.randn(4, 3, 64, 64)
    layer = default_layer(model)
    with HeatmapExtractor(model, ("cam", "gradcam")) as extractor:
        found = extractor(images).maps
    model = model.double()
    for module in model.modules():
        module.register_forward_hook(lambda m, i, out: None)  # hooks: nothing is folded
    with HeatmapExtractor(model, ("cam", "gradcam"), layer) as extractor:
        wanted = extractor(images.double()).maps
    for name, heatmap in found.items():
        torch.testing.assert_close(heatmap, wanted[name].float(), rtol=1e-3, atol=1e-4)
