"""The default target layer of every family, ours and others published; Grad-CAM there is exact; layers by name."""

import contextlib
import csv
import importlib.util
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision import models

from wsol import HeatmapExtractor
from wsol.errors import UserError
from wsol.models.inference import logits_of
from wsol.models.layers import default_layer, find_layer, unwrap
from wsol.models.trace import INPUT, first_tensor, trace
from wsol.models.zoo import head_name

# name: (default layer, side of the input, shape of the layer's output)
EXPECTED = {
    "alexnet": ("features.11", 224, (256, 13, 13)),
    "convnext_tiny": ("features.7", 224, (768, 7, 7)),
    "densenet121": ("features.norm5", 224, (1024, 7, 7)),
    "efficientnet_b0": ("features.8", 224, (1280, 7, 7)),
    "efficientnet_v2_s": ("features.7", 384, (1280, 12, 12)),
    "googlenet": ("inception5b", 224, (1024, 7, 7)),
    "inception_v3": ("Mixed_7c", 299, (2048, 8, 8)),
    "maxvit_t": ("blocks.3", 224, (512, 7, 7)),
    "mnasnet0_5": ("layers", 224, (1280, 7, 7)),
    "mobilenet_v2": ("features.18", 224, (1280, 7, 7)),
    "mobilenet_v3_small": ("features.12", 224, (576, 7, 7)),
    "regnet_y_400mf": ("trunk_output.block4", 64, (440, 2, 2)),
    "resnet18": ("layer4", 224, (512, 7, 7)),
    "resnext50_32x4d": ("layer4", 224, (2048, 7, 7)),
    "shufflenet_v2_x0_5": ("conv5", 224, (1024, 7, 7)),
    "squeezenet1_1": ("features", 224, (512, 13, 13)),
    "swin_t": ("permute", 224, (768, 7, 7)),
    "swin_v2_t": ("permute", 256, (768, 8, 8)),
    "vgg11": ("features.19", 224, (512, 14, 14)),
    "vgg16": ("features.29", 224, (512, 14, 14)),
    "vgg16_bn": ("features.42", 224, (512, 14, 14)),
    "vit_b_16": ("encoder.layers.encoder_layer_11.ln_1", 224, (197, 768)),
    "vit_l_32": ("encoder.layers.encoder_layer_23.ln_1", 224, (50, 1024)),
}


def build(name):
    options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    # Without storage a network is made, and run for its shapes, in no time; RegNet computes while it is made.
    device = contextlib.nullcontext() if name.startswith("regnet") else torch.device("meta")
    with device:
        return models.get_model(name, weights=None, **options).eval()


@pytest.mark.parametrize("name", EXPECTED)
def test_default_layer(name):
    layer, side, shape = EXPECTED[name]
    network = build(name)
    assert default_layer(network) == layer
    seen = []
    find_layer(network, layer).register_forward_hook(lambda _m, _i, output: seen.append(output.shape[1:]))
    device = next(network.parameters()).device
    with torch.no_grad():
        assert network(torch.zeros(2, 3, side, side, device=device)).shape == (2, 1000)
    assert seen == [shape]
    assert network.get_submodule(head_name(network)).weight.shape[0] == 1000


def test_every_family_of_torchvision_is_known():
    def stem(name):
        return name.split("_")[0].rstrip("0123456789")

    known = {stem(name) for name in EXPECTED} | {"wide"}
    assert {stem(name) for name in models.list_models(module=torchvision.models)} == known


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.project = nn.Conv2d(8, 8, 1)
        self.dropout = nn.Dropout()
        self.fc = nn.Linear(8, 2)

    def forward(self, images):
        return self.fc(self.dropout(self.project(self.pool(self.stem(images))).flatten(1)))


def test_unknown_network_is_left_as_it_was():
    network = Unknown().train()
    network.dropout.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [part.training for part in network.modules()]
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert default_layer(network, (16, 16)) == "stem"
    assert torch.rand(1) == expected
    assert [part.training for part in network.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_unknown_networks_that_have_no_map_or_do_not_run():
    with pytest.raises(UserError, match="no layer of this Sequential yields a map"):
        default_layer(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), (4, 4))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(UserError, match="Sequential does not run on 8 x 8"):
        default_layer(network, (8, 8))
    assert network.training and not network[0]._forward_hooks
    assert default_layer(network, (4, 4)) == "0"


def test_family_with_renamed_parts_is_run():
    class Renamed(models.ResNet):
        def __init__(self):
            super().__init__(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=2)
            self.body = nn.Sequential(self.conv1, self.layer1)
            del self.layer4, self.layer3, self.layer2, self.conv1, self.layer1
            self.fc = nn.Linear(64, 2)

        def forward(self, images):
            return self.fc(self.body(images).mean((2, 3)))

    assert default_layer(Renamed(), (16, 16)) == "body"


def test_find_layer():
    network = build("squeezenet1_1")
    assert find_layer(network, "features.3.squeeze") is network.features[3].squeeze
    with pytest.raises(UserError, match=r"'features.3.sqeeze' .*features, classifier.*features\.3\.squeeze"):
        find_layer(network, "features.3.sqeeze")
    with pytest.raises(UserError, match="layer '' does not exist"):
        find_layer(network, "")


def test_wrappers_are_looked_through():
    network = build("resnet18")
    parallel = nn.DataParallel(network)
    for wrapped in (parallel, torch.compile(network), torch.compile(parallel)):
        assert unwrap(wrapped) is network
        assert default_layer(wrapped) == "layer4"
        assert find_layer(wrapped, "layer4") is network.layer4


ROOT = Path(__file__).parents[2]
ROWS = list(csv.DictReader((ROOT / "tests" / "cases" / "networks" / "expected.csv").open(encoding="utf-8")))


@pytest.mark.long
@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_default_layer_and_gradcam(row: dict[str, str]) -> None:
    pytest.importorskip(row["source"])
    spec = importlib.util.spec_from_file_location("default_layers", ROOT / "scripts" / "default_layers.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    side = int(row["size"])
    layer = script.layer_of(row["source"], row["name"], side)
    assert any(fnmatchcase(layer.split(":")[0], pattern) for pattern in row["expected"].split("|")), layer
    if layer.startswith("REFUSE") or side > 300:
        return
    model, images, kept = script.build(row["source"], row["name"]).double(), torch.randn(1, 3, side, side).double(), []
    module = model.get_submodule(layer.removesuffix(INPUT))

    def keep(tensor: torch.Tensor) -> None:
        tensor.retain_grad()
        kept.append(tensor)

    if layer.endswith(INPUT):
        handle = module.register_forward_pre_hook(lambda _, args, kw: keep(first_tensor(args, kw)), with_kwargs=True)
    else:
        handle = module.register_forward_hook(lambda _, __, output: keep(output))
    logits_of(model(images.clone().requires_grad_()))[0, 1].backward()
    handle.remove()
    layout = trace(model, (side, side), like=images).layout(layer)
    A, G = layout.as_map(kept[0].detach()), layout.as_map(kept[0].grad)
    expected = torch.einsum("bk,bkhw->bhw", G.mean((2, 3)), A).relu()
    with HeatmapExtractor(model, ("gradcam",), layer) as extractor:
        heatmap = extractor(images, torch.tensor([1])).maps["gradcam"]
    torch.testing.assert_close(heatmap, expected, rtol=1e-6, atol=1e-6 * float(expected.max()) + 1e-30)
