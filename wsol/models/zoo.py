"""From a network to a classifier: whose weights it has, how it is shown an image, and what its logits mean."""

from __future__ import annotations

import inspect
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision import models

from wsol.errors import UserError, suggest
from wsol.io import imagenet_wnids
from wsol.models.checkpoint import Checkpoint, load_state, read_checkpoint
from wsol.models.classifier import Classifier
from wsol.models.inference import unwrap
from wsol.models.layers import default_layer, find_layer

__all__ = [
    "MODELS",
    "build",
    "head_name",
    "load_weights",
    "model",
    "preprocessing",
    "seeded",
    "torchvision_classifier",
    "weights_named",
]


# What torchvision's constructors call the side of the image, where they have to know it.
SIZE_ARGUMENT = {"vit": "image_size", "maxvit": "input_size"}
SETTINGS = ("layer", "seed", "classes", "input_size", "mean", "std", "interpolation")
MODELS: dict[str, Callable[..., Classifier]] = {}


def build(
    name: str,
    make: Callable[[int], nn.Module],
    *,
    num_classes: int | None = None,
    default_classes: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    layer: str | None = None,
    seed: int = 0,
    classes: str | Sequence[str] | None = None,
    class_ids: Sequence[str] | None = None,
    input_size: int | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
    defaults: Mapping[str, Any] | None = None,
    weights: str = "",
) -> Classifier:
    """Make a network, give it a checkpoint's weights, and say how it is used: in evaluation mode, on the CPU.

    `make` takes the number of classes: by default that of the checkpoint's head, without one `default_classes`; what it
    draws comes from the seed, unless `weights` says what it loads. What the user doesn't say of classes and images is
    the checkpoint's, else that of `defaults`, else that of `Classifier`.
    """
    loaded = None if checkpoint is None else read_checkpoint(checkpoint)
    count = num_classes or default_classes
    if loaded is None and count is None:
        raise UserError(f"{name} needs num_classes=NUMBER, or checkpoint=FILE whose head says how many classes it has")
    with seeded(seed):
        module = make(count or 2)
    if loaded is not None:
        if num_classes is None:
            replace_head(module, _count_classes(loaded, module))
        load_state(module, loaded)
    metadata = loaded.metadata if loaded else {}
    classes, class_ids = _class_names(classes, class_ids, metadata)
    asked = {"input_size": input_size, "mean": mean, "std": std, "interpolation": interpolation}
    settings = dict(defaults or {})
    for source in (metadata, asked):
        settings |= {key: source[key] for key in asked if source.get(key) is not None}
    classifier = Classifier(
        name=name,
        module=module.eval(),
        layer="",
        classes=classes,
        class_ids=class_ids,
        weights=loaded.path.name if loaded else weights or f"random (seed {seed})",
        knobs=dict(metadata.get("knobs") or {}),
        **_image_settings(name, settings),
    )
    classifier.layer = default_layer(module, classifier.input_size) if layer is None else str(layer)
    find_layer(module, classifier.layer)
    _check_names(classifier)
    return classifier


def model(builder: Callable[..., Classifier]) -> Callable[..., Classifier]:
    """Register a builder of classifiers; the `**settings` that it hands to `build` are named in its signature."""
    parameters = inspect.signature(builder).parameters.values()
    names = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    shared = [inspect.signature(build).parameters[name] for name in SETTINGS]
    signature = inspect.Signature([*names, *shared])

    @wraps(builder)
    def checked(*args: Any, **kwargs: Any) -> Classifier:
        signature.bind(*args, **kwargs)
        return builder(*args, **kwargs)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    MODELS[builder.__name__] = checked
    return checked


@model
def torchvision_classifier(
    name: str,
    weights: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    **settings: Any,
) -> Classifier:
    """Build any of torchvision's classification networks.

    Parameters
    ----------
    name : str
        As in `torchvision.models`: "resnet50", "vit_b_16", …
    weights : str, optional
        Torchvision's name of ready weights ("IMAGENET1K_V2", "DEFAULT"). Input size, mean, standard deviation and
        interpolation come from them; their resize and crop do not: how an image is shown is the view's affair.
    checkpoint : path, optional
        Own weights instead: safetensors, or a state dict. With neither they are random.
    num_classes : int, optional
        By default the weights' or the checkpoint's number, else 1,000. Where it differs from the ready weights'
        number they get a fresh head, to be trained.
    layer, seed : str and int, optional
        Dotted name of the target layer, by default the family's (`default_layer`); and of whatever is random.
    classes : "imagenet" or sequence of str, optional
        What the logits of a checkpoint mean, where it does not say so itself.
    input_size, mean, std, interpolation : optional
        Instead of those that belong to the weights.

    Returns
    -------
    Classifier
        On the CPU. GoogLeNet and Inception come without auxiliary heads; torchvision's own files for these two, as
        `checkpoint`, need `mean` and `std` of (0.5, 0.5, 0.5), which `weights` takes care of.

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
    if weights is not None and checkpoint is not None:
        raise UserError(f"{name}: weights={weights} and checkpoint={checkpoint} exclude each other: pass one")
    if weights is not None:
        return _with_ready_weights(name, weights_named(name, weights), num_classes, **settings)
    usual = getattr(models.get_model_weights(name), "IMAGENET1K_V1", None)
    options = _options(name, settings.get("input_size"))
    settings |= {"default_classes": 1000, "defaults": preprocessing(usual) if usual else {}}
    make = lambda count: models.get_model(name, weights=None, num_classes=count, **options)  # noqa: E731
    return build(name, make, num_classes=num_classes, checkpoint=checkpoint, **settings)


def _with_ready_weights(
    name: str, weights: models.WeightsEnum, num_classes: int | None, seed: int = 0, **settings: Any
) -> Classifier:
    categories, label = weights.meta["categories"], weights.name
    if categories is None:
        raise UserError(f"{name}'s weights {label} have no classifier: pass others, or use them as a backbone")
    if num_classes not in (None, len(categories)):
        label = f"{label}, head random (seed {seed})"
    elif settings.get("classes") is None:
        settings |= {"classes": categories, "class_ids": imagenet_wnids() if len(categories) == 1000 else None}

    def make(count: int) -> nn.Module:
        network = load_weights(name, weights)
        with seeded(seed):
            replace_head(network, count)
        return network

    return build(
        name,
        make,
        num_classes=num_classes,
        default_classes=len(categories),
        seed=seed,
        defaults=preprocessing(weights),
        weights=label,
        **settings,
    )


def weights_named(name: str, weights: str) -> models.WeightsEnum:
    """Torchvision's weights of a network by their name: weights_named("resnet50", "DEFAULT")."""
    enum = models.get_model_weights(name)
    if weights not in enum.__members__:
        raise UserError(f"{name} has no weights {weights!r}: pass one of {', '.join(enum.__members__)}, or null")
    return enum[weights]


def preprocessing(weights: models.WeightsEnum) -> dict[str, Any]:
    """Input size, mean, standard deviation and interpolation that belong to weights."""
    transform = weights.transforms()
    return {
        "input_size": transform.crop_size[0],
        "mean": tuple(transform.mean),
        "std": tuple(transform.std),
        "interpolation": transform.interpolation.value,
    }


def load_weights(name: str, weights: models.WeightsEnum) -> nn.Module:
    """Build the network with ready weights, downloaded into torch's hub folder unless they lie there."""
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rsplit("/", 1)[-1])
    try:
        if file.exists():  # torchvision would unpickle whatever it is: only what it downloads has its hash checked
            read_checkpoint(file)
        return models.get_model(name, weights=weights, **_options(name))
    except (UserError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{file} can't be read or downloaded ({error}): delete it, or put there what lies at {weights.url} "
            "(TORCH_HOME moves that folder), or pass weights=null checkpoint=FILE"
        ) from error


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
    head = module.get_submodule(name)
    if len(head.get_parameter("weight")) == num_classes:
        return
    if isinstance(head, nn.Linear):
        fresh: nn.Module = nn.Linear(head.in_features, num_classes, bias=head.bias is not None)
    elif isinstance(head, nn.Conv2d):
        fresh = nn.Conv2d(head.in_channels, num_classes, kernel_size=1, bias=head.bias is not None)
    module.set_submodule(name, fresh)
    if hasattr(module, "num_classes"):
        # SqueezeNet and ViT keep the number beside the layer.
        setattr(module, "num_classes", num_classes)  # noqa: B010 - torch types attributes as tensors


def _count_classes(loaded: Checkpoint, module: nn.Module) -> int:
    key = f"{head_name(unwrap(module))}.weight"
    if key not in loaded.state:
        raise UserError(
            f"checkpoint {loaded.path} has no {key}, so it is no {type(module).__name__} "
            f"(its last entries: {', '.join(list(loaded.state)[-3:])}): pass the model it was trained as"
        )
    return len(loaded.state[key])


def _class_names(
    classes: str | Sequence[str] | None, class_ids: Sequence[str] | None, metadata: Mapping[str, Any]
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Names and ids of the logits: those asked for, else the checkpoint's."""
    if classes is None:
        classes, class_ids = metadata.get("classes"), metadata.get("class_ids")
    elif classes == "imagenet":
        classes, class_ids = models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"], imagenet_wnids()
    elif isinstance(classes, str):
        raise UserError(f"classes={classes!r}: pass imagenet, or the list of names in the order of the logits")
    return tuple(map(str, classes)) if classes else None, tuple(class_ids) if class_ids else None


def _check_names(classifier: Classifier) -> None:
    logits = len(classifier.module.get_submodule(head_name(classifier.module)).get_parameter("weight"))
    for what, names in (("classes", classifier.classes), ("class_ids", classifier.class_ids)):
        if names is not None and len(names) != logits:
            raise UserError(
                f"{classifier.name} ({classifier.weights}) has {logits} logits, but {len(names)} {what} are given"
            )


def _image_settings(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Check input size (a number, or height and width), mean, std and interpolation, as `Classifier` takes them."""
    if "input_size" in settings:
        size = settings["input_size"]
        settings["input_size"] = (size, size) if isinstance(size, int) else tuple(size)
        sides = settings["input_size"]
        if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
            raise UserError(f"{name}: input_size={size!r}: pass a number of pixels, or height and width")
    for key in {"mean", "std"} & settings.keys():
        values = settings[key] = tuple(map(float, settings[key]))
        if len(values) != 3 or (key == "std" and min(values) <= 0):
            raise UserError(f"{name}: {key}={list(values)!r}: pass three numbers (red, green, blue), std above 0")
    if settings.get("interpolation", "bilinear") not in ("bilinear", "bicubic"):
        raise UserError(f"{name}: interpolation={settings['interpolation']!r} is neither bilinear nor bicubic")
    return settings


def _options(name: str, input_size: int | Sequence[int] | None = None) -> dict[str, Any]:
    """What a constructor of torchvision's must be told."""
    if name in ("googlenet", "inception_v3"):
        # The auxiliary heads serve training losses only, and these two networks' truncated-normal start is slow.
        return {"aux_logits": False, "init_weights": False}
    argument = SIZE_ARGUMENT.get(name.split("_")[0])
    if argument is None or input_size is None:
        return {}
    sides = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    if sides[0] != sides[-1]:
        raise UserError(f"{name}: input_size={list(sides)}: this network takes square images only")
    return {argument: sides[0] if argument == "image_size" else sides}
