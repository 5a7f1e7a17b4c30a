"""The manners of every method: wrapped, compiled, half precise and in-place networks; no trace, no growing memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from tests.heatmaps import networks
from tests.heatmaps.networks import TARGETS, vit
from wsol.heatmaps import HeatmapExtractor, Method, make_method
from wsol.heatmaps.method import builtin_methods

ONE_RECORDING = (
    "cam", "gradcam", "gradcampp", "gradcamelementwise", "xgradcam", "hirescam", "layercam", "eigencam",
    "eigengradcam", "kpcacam", "finercam", "fem", "shapleycam",
)  # fmt: skip
TOKENS = ("rollout", "legrad")
FEWER: dict[str, dict[str, Any]] = {  # options that keep tests short
    "sscam": {"samples": 2},
    "iscam": {"steps": 2},
    "smoothgradcampp": {"samples": 2},
    "smoothgrad": {"samples": 2},
    "integratedgradients": {"steps": 2},
    "rise": {"masks": 4},
    "occlusion": {"size": 0.5, "stride": 0.5},
}
CONVOLUTIONAL = tuple(name for name in builtin_methods() if name not in TOKENS)


def asked(*names: str) -> dict[str, Method]:
    return {name: make_method(name, **FEWER.get(name, {})) for name in names}


def images(count: int = 3) -> torch.Tensor:
    return networks.images(count, 32).float()


def net() -> nn.Module:
    """Its scores are far enough apart for every method to have something to show."""
    return networks.gap(scale=10).float()


class Bent(nn.Module):
    """Convolutions and a ReLU, in place or not, and behind it a head that makes every method differ from the others."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.relu = nn.Conv2d(3, 6, 3, 2), nn.ReLU(inplace)
        self.second, self.head = nn.Conv2d(6, 8, 3), nn.Linear(8, 5)
        nn.init.normal_(self.head.weight)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        behind = self.relu(self.second(self.relu(self.first(pictures))))
        return self.head(nn.functional.gelu(behind - 0.1).mean((2, 3)))


def maps_of(model: nn.Module, names: tuple[str, ...], pictures: torch.Tensor, targets: Any, **options: Any) -> Any:
    return networks.maps_of(model, asked(*names), pictures, targets, **options)


def assert_same(result: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert result.keys() == expected.keys()
    for name, heatmaps in expected.items():
        assert float(heatmaps.abs().max()) > 0, name
        near = 1e-5 * float(heatmaps.abs().max())
        torch.testing.assert_close(
            result[name], heatmaps, rtol=1e-4, atol=near, msg=lambda text, name=name: name + text
        )


# --- wrapped and compiled ---

WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "parallel": nn.DataParallel,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrapped_models_give_the_same_maps_and_go_on_working(wrap: Callable[[nn.Module], nn.Module]) -> None:
    expected = maps_of(net(), CONVOLUTIONAL, images(), TARGETS)
    wrapped = wrap(net())
    with torch.no_grad():
        logits = wrapped(images())  # compiled before there is anything to record
    for _ in range(2):
        assert_same(maps_of(wrapped, CONVOLUTIONAL, images(), TARGETS), expected)
        with torch.no_grad():
            torch.testing.assert_close(wrapped(images()), logits)


def in_place(model: nn.Module, backend: str) -> None:
    model.compile(backend=backend)


def in_part(model: nn.Module, backend: str) -> None:
    model.features = torch.compile(model.features, backend=backend)


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch 2.6 can leave compiled code aside")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("compile_it", [in_place, in_part])
def test_models_compiled_in_place_or_in_part_give_the_same_maps(
    compile_it: Callable[[nn.Module, str], None], backend: str
) -> None:
    names = ("cam", "gradcam", "shapleycam", "ablationcam")
    expected, model = maps_of(net(), names, images(), TARGETS), net()
    compile_it(model, backend)
    with torch.no_grad():
        logits = model(images())
    for _ in range(2):
        assert_same(maps_of(model, names, images(), TARGETS, layer="features"), expected)
        with torch.no_grad():
            torch.testing.assert_close(model(images()), logits)


# --- memory ---


@contextmanager
def no_collection() -> Iterator[None]:
    """What is dropped here must go by itself: a reference cycle keeps its tensors until some later collection."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def live_tensors() -> int:
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize(
    ("make", "names"), [(net, CONVOLUTIONAL), (lambda: vit().float(), TOKENS)], ids=["pooled", "transformer"]
)
def test_no_tensor_is_left_behind(make: Callable[[], nn.Module], names: tuple[str, ...]) -> None:
    with HeatmapExtractor(make(), asked(*names)) as extractor:
        extractor(images(2))
        with no_collection():
            before = live_tensors()
            for _ in range(2):
                extractor(images(2), "top5")
            assert live_tensors() == before


# --- no trace ---


def test_weights_keep_their_own_memory() -> None:
    """Others may look into it: processes that share it, an optimizer's flat buffer."""
    model = net().share_memory()
    first = model.features[0].weight
    flat = torch.cat([first.detach().flatten(), torch.zeros(3)])
    model.features[3].weight.data = torch.zeros_like(model.features[3].weight)
    first.data = flat[:-3].view(first.shape)
    places = {name: (value.data_ptr(), value.stride()) for name, value in model.named_parameters()}
    shared = {name: value.is_shared() for name, value in model.named_parameters()}
    with HeatmapExtractor(model) as extractor:
        extractor(images())
        first.data += 1  # a change while it is open is not lost
    assert {name: (value.data_ptr(), value.stride()) for name, value in model.named_parameters()} == places
    assert {name: value.is_shared() for name, value in model.named_parameters()} == shared
    assert any(shared.values())
    torch.testing.assert_close(flat[:-3], net().features[0].weight.flatten() + 1)


def test_neither_gradients_nor_statistics_nor_random_numbers_nor_images_change() -> None:
    """Gradients that a training run has left on the parameters stay what they are, too."""
    model, pictures = net().train().requires_grad_(), images()
    model(pictures).sum().backward()
    gradients = [(parameter.grad, parameter.grad.clone()) for parameter in model.parameters()]
    values, shown = {name: value.clone() for name, value in model.state_dict().items()}, pictures.clone()
    numbers = torch.get_rng_state()
    maps_of(model, CONVOLUTIONAL, pictures, "top5")
    for parameter, (gradient, value) in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is gradient
        assert torch.equal(gradient, value)
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    assert torch.equal(pictures, shown)
    assert pictures.grad is None and torch.equal(torch.get_rng_state(), numbers)
    assert not any(len(module._forward_hooks) or "forward" in vars(module) for module in model.modules())


def test_channels_last_is_a_choice() -> None:
    model, seen = net(), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0].stride(), module.features[0].weight)))
    strides = model.features[0].weight.stride()
    for channels_last in (False, True):
        maps_of(model, ("gradcam",), images(), TARGETS, channels_last=channels_last)
    assert seen[0][0] == images().stride() != seen[-1][0]
    assert seen[0][1].stride() == strides


# --- chunks ---


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_chunks_do_not_matter_and_seeds_do_where_there_is_chance(name: str) -> None:
    options = [{"chunk": 3}, {"chunk": 64}, {"seed": 1}]
    few, many, other = (maps_of(net().double(), (name,), images().double(), TARGETS, **one)[name] for one in options)
    torch.testing.assert_close(few, many, rtol=1e-9, atol=1e-12)
    assert many.any() and torch.equal(other, many) == (name not in ("rise", "sscam", "smoothgrad"))


# --- targets ---


@pytest.mark.parametrize(
    ("make", "names", "layer"),
    [
        (net, CONVOLUTIONAL, "features"),
        (lambda: Bent(True), tuple(name for name in ONE_RECORDING if name != "cam"), "first"),
        (lambda: vit().float(), (*TOKENS, *(name for name in ONE_RECORDING if name != "cam")), None),
    ],
    ids=["pooled", "bent", "transformer"],
)
def test_many_images_and_targets_are_as_one_by_one(
    make: Callable[[], nn.Module], names: tuple[str, ...], layer: str | None
) -> None:
    model, targets = make(), torch.tensor([[4, 0], [1, 1], [0, 3]])
    together = maps_of(model, names, images(), targets, layer=layer)
    single = maps_of(model, names, images(), targets[:, 0], layer=layer)
    assert_same({name: heatmaps[:, 0] for name, heatmaps in together.items()}, single)
    for i, row in enumerate(targets):
        for k, target in enumerate(row):
            alone = maps_of(model, names, images()[i : i + 1], target[None], layer=layer)
            for name, heatmaps in alone.items():
                near = 1e-5 * float(together[name].abs().max())
                torch.testing.assert_close(together[name][i, k], heatmaps[0], rtol=1e-3, atol=near)


# --- precision and in-place operations ---


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (net, CONVOLUTIONAL),
        (lambda: vit().float(), (*TOKENS, "gradcam", "hirescam", "layercam", "finercam", "shapleycam")),
    ],
    ids=["pooled", "transformer"],
)
def test_half_precision_networks_give_maps_in_full(make: Callable[[], nn.Module], names: tuple[str, ...]) -> None:
    exact = maps_of(make(), names, images(), TARGETS)
    rough = maps_of(make().bfloat16(), names, images().bfloat16(), TARGETS)
    for name in names:
        assert rough[name].dtype == torch.float32
        pair = torch.stack([exact[name].flatten(), rough[name].flatten()])
        assert float(torch.corrcoef(pair)[0, 1]) > 0.9, name


def test_in_place_relu_behind_the_layer_is_part_of_it() -> None:
    names = tuple(name for name in ONE_RECORDING if name != "cam")
    model, result = Bent(True), {}
    for layer in ("first", "second"):
        result[layer] = maps_of(model, names, images(), TARGETS, layer=layer)
    plain = Bent(False)
    behind = nn.ModuleDict({"first": nn.ReLU(), "second": nn.ReLU()})

    def forward(pictures: torch.Tensor) -> torch.Tensor:
        last = behind["second"](plain.second(behind["first"](plain.first(pictures))))
        return plain.head(nn.functional.gelu(last - 0.1).mean((2, 3)))

    plain.behind, plain.forward = behind, forward
    for layer, maps in result.items():
        assert_same(maps, maps_of(plain, names, images(), TARGETS, layer=f"behind.{layer}"))
