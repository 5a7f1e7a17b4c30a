"""Weights come back as they were written, and whatever does not fit is named."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models

from wsol.errors import UserError
from wsol.models import Classifier, tiny_resnet18, torchvision_classifier
from wsol.models.checkpoint import load_state, read_checkpoint, save_checkpoint
from wsol.models.zoo import build


def small(classes=3):
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *head)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_all_that_a_classifier_knows_comes_back(tmp_path):
    made = Classifier(
        name="small", module=small().to(memory_format=torch.channels_last), layer="1", input_size=(48, 64),
        mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bicubic",
        classes=("a", "ü, y", "c"), class_ids=("n1", "n2", "n3"), knobs={"clutter": 4, "glyph": 0.35},
    )  # fmt: skip
    file = tmp_path / "deep" / "small.safetensors"
    save_checkpoint(made, file, {"epoch": 7, "accuracy": 0.5})
    assert [made.name for made in file.parent.iterdir()] == ["small.safetensors"]
    assert read_checkpoint(file).metadata["epoch"] == 7
    back = build("small", small, checkpoint=file)
    assert same(back.module.state_dict(), made.module.state_dict())
    for name in ("input_size", "mean", "std", "interpolation", "classes", "class_ids", "knobs"):
        assert getattr(back, name) == getattr(made, name), name
    assert back.weights == "small.safetensors"
    asked = build("small", small, checkpoint=file, input_size=32, classes=["x"] * 3)
    assert (asked.input_size, asked.mean) == ((32, 32), made.mean)
    assert (asked.classes, asked.class_ids) == (("x",) * 3, None)


def test_compiled_networks_are_saved_under_plain_names(tmp_path):
    network = small()
    save_checkpoint(Classifier(name="s", module=torch.compile(network), layer="0"), tmp_path / "a.safetensors")
    assert same(load_file(tmp_path / "a.safetensors"), network.state_dict())


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_state_dicts_as_they_are_found(tmp_path, wrap, prefix):
    state = {f"{prefix}{name}": tensor for name, tensor in small().state_dict().items()}
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "a.pth")
    network = small()
    load_state(network, read_checkpoint(tmp_path / "a.pth"))
    assert same(network.state_dict(), {name.removeprefix(prefix): value for name, value in state.items()})


def test_safetensors_by_content_and_half_precision(tmp_path):
    state = {name: t.half() if t.is_floating_point() else t for name, t in small().state_dict().items()}
    save_file(state, tmp_path / "weights.bin", metadata={"format": "pt"})
    network = small()
    load_state(network, read_checkpoint(tmp_path / "weights.bin"))
    assert network[0].weight.dtype == torch.float32
    assert torch.equal(network[0].weight.half(), state["0.weight"])


def test_number_of_classes_comes_from_the_head(tmp_path):
    torch.save(tiny_resnet18(num_classes=7).module.state_dict(), tmp_path / "a.pt")
    assert tiny_resnet18(checkpoint=tmp_path / "a.pt").module.fc.out_features == 7
    with pytest.raises(UserError, match=r"a.pt .*fc.weight.*7, 512.*5, 512"):
        tiny_resnet18(checkpoint=tmp_path / "a.pt", num_classes=5)


def test_of_another_network(tmp_path):
    file = tmp_path / "a.safetensors"
    save_checkpoint(tiny_resnet18(num_classes=4), file)
    with pytest.raises(UserError, match="a.safetensors .*tiny_resnet18.*conv1.weight"):
        torchvision_classifier("resnet18", checkpoint=file, output_stride=8)


def test_missing_and_left_over_names(tmp_path):
    state = small().state_dict()
    state["extra.weight"] = state.pop("0.bias")
    state["more"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(UserError, match="a.pt .*0.bias.*extra.weight.*more"):
        load_state(small(), read_checkpoint(tmp_path / "a.pt"))


def test_names_of_older_releases(tmp_path):
    with torch.device("meta"):
        network = models.DenseNet(growth_rate=4, block_config=(1, 1), num_init_features=8, num_classes=3)
    state = {}
    for name, tensor in network.state_dict().items():
        older = re.sub(r"(norm|conv)([12])\.(?=\w+$)", r"\1.\2.", name) if "denselayer" in name else name
        if not name.endswith("num_batches_tracked"):
            state[older] = torch.rand(tensor.shape)
    torch.save(state, tmp_path / "a.pth")
    network.to_empty(device="cpu")
    load_state(network, read_checkpoint(tmp_path / "a.pth"))
    block = network.features.denseblock1.denselayer1
    assert torch.equal(block.norm1.weight, state["features.denseblock1.denselayer1.norm.1.weight"])
    assert block.norm1.num_batches_tracked == 0


def test_mnasnet_without_its_version(tmp_path):
    network = torchvision_classifier("mnasnet0_5", num_classes=3)
    save_checkpoint(network, tmp_path / "m.safetensors")
    again = torchvision_classifier("mnasnet0_5", checkpoint=tmp_path / "m.safetensors")
    assert same(again.module.state_dict(), network.module.state_dict())


def test_auxiliary_heads_are_left_out(tmp_path):
    network = models.googlenet(num_classes=3, aux_logits=True, init_weights=False)
    torch.save(network.state_dict(), tmp_path / "g.pth")
    found = torchvision_classifier("googlenet", checkpoint=tmp_path / "g.pth")
    assert torch.equal(found.module.fc.weight, network.fc.weight)
    assert found.module.train()(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


def test_metadata_that_lies(tmp_path):
    state = small().state_dict()
    save_file(state, tmp_path / "a.safetensors", metadata={"classes": '["a", "b"]'})
    with pytest.raises(UserError, match="a.safetensors.* 2 classes"):
        build("small", small, checkpoint=tmp_path / "a.safetensors")
    save_file(state, tmp_path / "b.safetensors", metadata={"classes": "a,b,c"})
    with pytest.raises(UserError, match="classes = 'a,b,c'"):
        build("small", small, checkpoint=tmp_path / "b.safetensors")
