"""Networks and methods that do what most don't: the right map, or an error that says why there is none."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision import models

from wsol import HeatmapExtractor
from wsol.errors import UserError
from wsol.explain import explain
from wsol.heatmaps import Recording, make_method
from wsol.heatmaps.layout import layout_of
from wsol.heatmaps.pixel import full_gradients
from wsol.heatmaps.recording import record
from wsol.models import Classifier, default_layer
from wsol.models.inference import frozen


def small(*behind: nn.Module, classes: int = 5) -> nn.Sequential:
    """Two convolutions, what is asked for behind them, mean and head."""
    torch.manual_seed(0)
    own = behind or (nn.ReLU(),)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), *own, *head).eval()


def images(count: int = 2, side: int = 16) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def maps(model: nn.Module, name: str, layer: str | None = None, **options: object) -> torch.Tensor:
    with HeatmapExtractor(model, (name,), layer, **options) as extractor:
        return extractor(images(), torch.tensor([1, 3])).maps[name]


def refusal(run: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        run()
    return str(error.value)


def test_ablation_behind_a_layer_whose_output_is_worked_on_in_place() -> None:
    same = [maps(small(nn.ReLU(inplace=inplace)), "ablationcam", "2") for inplace in (False, True)]
    assert same[1].any()  # a ReLU may run again on what it has rectified
    message = refusal(lambda: maps(small(nn.SiLU(inplace=True)), "ablationcam", "2"))
    assert "what stands behind layer 2 gives other logits" in message and "in place" in message
    resnet = models.resnet18(num_classes=5).eval()
    assert "layer4.1.bn2" in refusal(lambda: maps(resnet, "ablationcam", "layer4.1.bn2"))
    doubled = small()
    doubled[2].register_forward_hook(lambda module, given, output: 2 * output)
    assert "a hook changes it" in refusal(lambda: maps(doubled, "ablationcam", "2"))


def test_fullgrad_of_a_forward_method_that_was_compiled() -> None:
    wanted, model = maps(small(), "fullgrad"), small()
    model.forward = torch.compile(model.forward, backend="aot_eager")
    torch.testing.assert_close(maps(model, "fullgrad"), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spoil", ["gradients", "activations", "logits"])
def test_a_method_that_works_in_place_is_named(spoil: str) -> None:
    def spoils(recording: Recording) -> torch.Tensor:
        getattr(recording, spoil).mul_(2)
        return recording.activations.sum(1)

    methods = {"mine": make_method(spoils), "gradcam": make_method("gradcam")}
    with HeatmapExtractor(small(), methods, "3") as extractor:
        assert "method mine changes in place" in refusal(lambda: extractor(images()))


def test_fullgrad_leaves_linear_layers_out_wherever_they_stand() -> None:
    model = models.ConvNeXt([models.convnext.CNBlockConfig(8, None, 2)], num_classes=5).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    with frozen(model):
        recording = record(model, [], images(1), None).recording("", 0)
        parts = full_gradients(recording, torch.tensor([0]))
    grids = {tuple(part.shape[2:]) for part in parts if part.ndim == 4}
    assert grids == {(16, 16), (4, 4)}, "the image and what convolutions yield"


@pytest.mark.parametrize(("place", "last"), [(0, False), (1, True), (3, True), (4, True), (5, True), (6, False)])
def test_blocks_that_turn_their_maps(place: int, last: bool) -> None:
    model, layer = models.convnext_tiny(num_classes=5).eval(), f"features.5.0.block.{place}"
    with frozen(model):
        output = record(model, [layer], images(1, 64), None).handed_on[layer]
    assert layout_of(model, layer, output, (64, 64)).channels_last == last
    assert layout_of(model, layer, output, (64, 64)).as_map(output).shape[2:] == (4, 4)


def test_windows_are_no_image() -> None:
    model = models.MaxVit((64, 64), 8, 2, [8, 8], [1, 1], 4, 0.0, num_classes=5).eval()
    block = "blocks.1.layers.0.layers"
    for inner in ("window_attention.mlp_layer.1", "grid_attention.attn_layer.0"):
        with HeatmapExtractor(model, ("gradcam",), f"{block}.{inner}") as extractor:
            message = refusal(lambda opened=extractor: opened(images(1, 64)))
        assert "sees windows, not the image: choose" in message and f"{block}.{inner.split('.')[0]}" in message


@pytest.mark.parametrize("name", ["ablationcam", "occlusion", "smoothgrad", "scorecam"])
def test_images_that_change_each_others_logits(name: str) -> None:
    model = small(nn.BatchNorm2d(8, track_running_stats=False), nn.GELU())
    message = refusal(lambda: maps(model, name, "4" if name in ("ablationcam", "scorecam") else None))
    assert "layer 3 (BatchNorm2d) has no running statistics" in message
    assert maps(model, "gradcam", "4").any()


def test_gradients_that_are_not_finite() -> None:
    class Root(nn.Module):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return (value * 0).sqrt() + value

    message = refusal(lambda: maps(small(nn.ReLU(), Root()), "gradcam", "3"))
    assert "gradients of the logits with respect to layer 3 are not finite for image 0" in message


@pytest.mark.parametrize("name", ["guidedbackprop", "deconvnet", "guidedgradcam"])
def test_checkpoints_and_the_rules_of_relus(name: str) -> None:
    model = models.DenseNet(8, (1, 1), 8, 2, num_classes=5, memory_efficient=True).eval()
    with HeatmapExtractor(model, (name,)) as extractor:
        message = refusal(lambda: extractor(images(1, 64)))
    assert "DenseNet calculates activations a second time (checkpoints)" in message


@pytest.mark.parametrize("name", ["guidedbackprop", "deconvnet"])
@pytest.mark.parametrize("check", ["default", "none"])
def test_checkpoints_that_check_nothing_and_the_rules_of_relus(name: str, check: str) -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.inner, x, use_reentrant=False, determinism_check=check)

    message = refusal(lambda: maps(small(Again(), nn.ReLU()), name, None))
    assert "calculates activations a second time (checkpoints)" in message


def test_training_mode_inside_the_block() -> None:
    model = small()
    with HeatmapExtractor(model, ("gradcam",)) as extractor:
        model.train()
        assert "the model was set to training" in refusal(lambda: extractor(images()))


def test_formulas_are_not_calculated_in_half_precision_under_autocast() -> None:
    seen: list[tuple[torch.dtype, torch.Tensor]] = []

    def probe(recording: Recording) -> torch.Tensor:
        again = recording.run(recording.images)
        seen.append((again.dtype, (recording.logits - again).abs().max()))
        weights = recording.gradients.double().mean((2, 3))
        return torch.einsum("bk,bkhw->bhw", weights, recording.activations.double()).relu()

    methods = {"exact": make_method(probe), "gradcam": make_method("gradcam")}
    with HeatmapExtractor(small(), methods, "3") as extractor, torch.autocast("cpu", torch.bfloat16):
        found = extractor(images()).maps
    torch.testing.assert_close(found["gradcam"], found["exact"], rtol=1e-5, atol=1e-6)
    assert seen[0][0] == torch.bfloat16 and not seen[0][1], "the network itself runs as its user wants it"


@pytest.mark.parametrize("name", ["rise", "occlusion"])
def test_one_logit_is_always_certain(name: str) -> None:
    with HeatmapExtractor(small(classes=1), (name,)) as extractor:
        assert "a network with one logit never changes; use score=logit" in refusal(lambda: extractor(images()))
    with HeatmapExtractor(small(classes=1), {name: make_method(name, score="logit")}) as extractor:
        assert extractor(images()).maps[name].std() > 0


def test_inference_mode_around_targets_the_call_and_the_block() -> None:
    model, targets = small(), torch.tensor([1, 3])
    wanted = maps(model, "gradcam", "3")
    with HeatmapExtractor(model, ("gradcam",), "3") as extractor, torch.inference_mode():
        assert torch.equal(extractor(images(), targets.clone()).maps["gradcam"], wanted)
    with torch.inference_mode(), HeatmapExtractor(model, ("gradcam",), "3") as extractor:
        assert torch.equal(extractor(images(), targets).maps["gradcam"], wanted)
    with torch.inference_mode():
        made_inside = copy.deepcopy(model)
    assert "under torch.inference_mode(): build or load it outside" in refusal(
        lambda: maps(made_inside, "gradcam", "3")
    )


def test_tensors_that_a_network_keeps_can_be_trained_on_afterwards() -> None:
    class Keeps(nn.Module):
        table: torch.Tensor | None = None

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            if self.table is None:
                self.table = torch.linspace(0.5, 1, value.shape[-1])
            return value * self.table

    model = small(nn.ReLU(), Keeps())
    classifier = Classifier(name="keeps", module=model, layer="3", input_size=(16, 16))
    explain(np.zeros((16, 16, 3), np.uint8), classifier, ["eigencam"])
    model(images()).sum().backward()
    assert model[0].weight.grad is not None


def test_one_relu_for_the_whole_network_is_no_layer_to_look_at() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.ReLU()
            self.head = nn.Linear(4, 5)

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return self.head(self.relu(self.two(self.relu(self.one(pictures)))).mean((2, 3)))

    model = Shared()
    assert default_layer(model, (16, 16)) == "two"
    assert maps(model, "gradcam").shape == (2, 12, 12)


def test_five_best_classes_of_a_network_with_one() -> None:
    with HeatmapExtractor(small(classes=1), ("gradcam",)) as extractor:
        found = extractor(images(), "top5")
        listed = extractor(images(), [[0], [0]])
    assert found.targets.shape == listed.targets.shape == (2, 1)
    assert found.maps["gradcam"].shape == listed.maps["gradcam"].shape == (2, 1, 12, 12)


def test_maps_of_every_method_have_one_type() -> None:
    model = small().to(torch.bfloat16)
    with HeatmapExtractor(model, ("gradcam", "center", "random", "full")) as extractor:
        found = extractor(images().bfloat16()).maps
    assert {heatmap.dtype for heatmap in found.values()} == {torch.float32}


def returning(value: object) -> Callable[[Recording], object]:
    return lambda recording: value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "returned shape no tensor but NoneType for 2 images"),
        (np.zeros((2, 4, 4)), "no tensor but ndarray"),
        (torch.zeros(2, 0, 4), r"(2, 0, 4) for 2 images; wanted (2, h, w)"),
        (torch.zeros(1, 4, 4), r"(1, 4, 4) for 2 images"),
    ],
)
def test_what_is_no_heatmap(value: object, message: str) -> None:
    with HeatmapExtractor(small(), {"mine": make_method(returning(value))}) as extractor:
        assert message in refusal(lambda: extractor(images()))


def test_what_is_given_in_another_form() -> None:
    with HeatmapExtractor(small(), {"a": "gradcam", "b": make_method("gradcam")}) as extractor:
        found = extractor(images()).maps
        assert torch.equal(found["a"], found["b"])
        assert "images of type ndarray: pass a tensor" in refusal(lambda: extractor(images().numpy()))
        assert "images of type torch.uint8" in refusal(lambda: extractor(images().byte()))
        assert "targets of type torch.complex64" in refusal(lambda: extractor(images(), torch.ones(2).cfloat()))
    layers = {"g": make_method("gradcam", ["1", "2"]), "g@2": make_method("layercam", "3")}
    assert "two methods are called g@2" in refusal(lambda: HeatmapExtractor(small(), layers))
    scripted = torch.jit.trace(small(), images())
    assert "a torch.jit script or trace" in refusal(lambda: maps(scripted, "gradcam", "3"))
