"""From a network to a classifier: whose weights it has, how it is shown an image, and what its logits mean."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision import models

from wsol.errors import UserError, suggest
from wsol.io import imagenet_wnids
from wsol.models.checkpoint import ENTRIES, load_state, read_checkpoint
from wsol.models.classifier import Classifier
from wsol.models.layers import default_layer, find_layer


def build(
    name: str,
    make: Callable[[int], nn.Module],
    *,
    num_classes: int | None = None,
    default_classes: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    seed: int = 0,
    defaults: Mapping[str, Any] | None = None,
    label: str = "",
    **asked: Any,
) -> Classifier:
    """Make a network, give it a checkpoint's weights, and say how it is used: in evaluation mode, on the CPU.

    `make` takes the number of classes: by default that of the checkpoint's head, without one `default_classes`; what it
    draws comes from the seed, unless `label` says what it loads. The user is `asked` for layer, classes, input_size,
    mean, std and interpolation; else the checkpoint says it, else `defaults`, else `Classifier`.
    """
    if checkpoint is not None and label:
        raise UserError(f"{name}: ready weights ({label}) and checkpoint={checkpoint} exclude each other: pass one")
    loaded = None if checkpoint is None else read_checkpoint(checkpoint)
    with seeded(seed):
        module = make(num_classes or default_classes or 2)
    head = f"{head_name(module)}.weight"
    count = num_classes or (len(loaded.state[head]) if loaded and head in loaded.state else default_classes)
    if count is None:
        raise UserError(f"{name} needs num_classes=NUMBER, or checkpoint=FILE whose head says how many classes it has")
    with seeded(seed):
        replace_head(module, count)
    if loaded:
        load_state(module, loaded)
    asked["input_size"] = _sides(asked.get("input_size"))
    if asked.get("classes") == "imagenet":
        asked |= {"classes": models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"], "class_ids": imagenet_wnids()}
    fields = dict(defaults or {})
    for source in ({name: loaded.metadata.get(name) for name in ENTRIES} if loaded else {}, asked):
        if source.get("classes"):  # the ids belong to the names
            fields.pop("class_ids", None)
        fields |= {field: value for field, value in source.items() if value is not None}
    weights = loaded.path.name if loaded else label or f"random (seed {seed})"
    fields["layer"] = str(fields.get("layer", ""))
    classifier = Classifier(name=name, module=module.eval(), weights=weights, **fields)
    for what, names in (("classes", classifier.classes), ("class_ids", classifier.class_ids)):
        if names is not None and len(names) != count:
            raise UserError(f"{name} ({weights}) has {count} logits, but {len(names)} {what} are given")
    classifier.layer = classifier.layer or default_layer(module, classifier.input_size)
    find_layer(module, classifier.layer)
    return classifier


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
        Own weights instead: safetensors, or a state dict. With neither they are random. Torchvision's own files of
        GoogLeNet and Inception need `mean` and `std` of (0.5, 0.5, 0.5), which `weights` takes care of.
    num_classes : int, optional
        By default the weights' or the checkpoint's number, else 1,000; ready weights of another get a fresh head.
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
    settings |= {"checkpoint": checkpoint, "num_classes": num_classes}
    if weights is not None:
        return _with_ready_weights(name, weights_named(name, weights), **settings)
    usual = getattr(models.get_model_weights(name), "IMAGENET1K_V1", None)
    options = _options(name, _sides(settings.get("input_size")))
    make = lambda count: models.get_model(name, weights=None, num_classes=count, **options)  # noqa: E731
    return build(name, make, default_classes=1000, defaults=preprocessing(usual) if usual else None, **settings)


def _with_ready_weights(name: str, ready: models.WeightsEnum, **settings: Any) -> Classifier:
    categories, label, defaults = ready.meta["categories"], ready.name, preprocessing(ready)
    if categories is None:
        raise UserError(f"{name}'s weights {label} have no classifier: pass others, or use them as a backbone")
    if settings["num_classes"] in (None, len(categories)):
        defaults |= {"classes": categories, "class_ids": imagenet_wnids() if len(categories) == 1000 else None}
    else:
        label += f", head random (seed {settings.get('seed', 0)})"
    settings |= {"default_classes": len(categories), "defaults": defaults, "label": label}
    return build(name, lambda _: load_weights(name, ready), **settings)


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
        "input_size": _sides(transform.crop_size[0]),
        "mean": transform.mean,
        "std": transform.std,
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
    assert isinstance(head, nn.Linear | nn.Conv2d)
    bias = head.bias is not None
    if isinstance(head, nn.Linear) and head.out_features != num_classes:
        module.set_submodule(name, nn.Linear(head.in_features, num_classes, bias))
    elif isinstance(head, nn.Conv2d) and head.out_channels != num_classes:
        module.set_submodule(name, nn.Conv2d(head.in_channels, num_classes, kernel_size=1, bias=bias))


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
