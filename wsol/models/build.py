"""What all builders share: a network, a file of weights or random ones, and how to show it an image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from wsol.datasets.classes import imagenet_names, imagenet_wnids
from wsol.errors import UserError
from wsol.models.checkpoint import Checkpoint, load_state, read_checkpoint
from wsol.models.classifier import Classifier
from wsol.models.layers import default_layer, find_layer, unwrap

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "build_classifier", "head_name", "replace_head", "seeded"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw weights from this seed and leave the global random numbers as they were.

    Examples
    --------
    >>> with seeded(0):
    ...     first = torch.rand(1)
    >>> with seeded(0):
    ...     print(bool(torch.rand(1) == first))
    True
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also seed accelerators; networks are made on the CPU.
        torch.default_generator.manual_seed(seed)
        yield


def head_name(module: nn.Module) -> str:
    """Dotted name of the last linear layer (or 1 x 1 convolution): the one that makes the logits.

    Examples
    --------
    >>> head_name(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.Dropout()))
    '2'
    """
    names = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return names[-1]


def replace_head(module: nn.Module, num_classes: int) -> None:
    """Put a fresh head where the network's own one is, unless that has `num_classes` outputs already.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 3))
    >>> replace_head(net, 7)
    >>> net
    Sequential(
      (0): Linear(in_features=4, out_features=7, bias=True)
    )
    """
    name = head_name(module)
    old = module.get_submodule(name)
    new: nn.Module
    if isinstance(old, nn.Linear):
        if old.out_features == num_classes:
            return
        new = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
    elif isinstance(old, nn.Conv2d):
        if old.out_channels == num_classes:
            return
        new = nn.Conv2d(old.in_channels, num_classes, kernel_size=1, bias=old.bias is not None)
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, new)
    if hasattr(module, "num_classes"):
        # SqueezeNet and ViT keep the number beside the layer.
        setattr(module, "num_classes", num_classes)  # noqa: B010 - torch types attributes as tensors


def build_classifier(
    name: str,
    make: Callable[[int], nn.Module],
    *,
    num_classes: int | None = None,
    default_classes: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    classes: str | Sequence[str] | None = None,
    seed: int = 0,
    layer: str | None = None,
    shown: Mapping[str, Any] | None = None,
    asked: Mapping[str, Any] | None = None,
) -> Classifier:
    """Make a network, give it a checkpoint's weights or seeded random ones, and describe how it is used.

    Parameters
    ----------
    name : str
        The network's name in the tables.
    make : function
        Number of classes → network with random weights.
    num_classes : int, optional
        By default as many as the checkpoint's head has, without one `default_classes`.
    default_classes : int, optional
        None: the caller has to say either `num_classes` or `checkpoint`.
    checkpoint : path, optional
        See `read_checkpoint`.
    classes : "imagenet" or sequence of str, optional
        Names of the logits, where the checkpoint does not carry them itself.
    seed : int
        For random weights.
    layer : str, optional
        Dotted name of the target layer; by default the family's own.
    shown, asked : mapping
        `input_size`, `mean`, `std`, `interpolation`: the network's own, and what the user wants instead. A
        checkpoint's metadata stands between the two.

    Returns
    -------
    Classifier
        In evaluation mode, on the CPU.

    Raises
    ------
    UserError
        If the number of classes can't be known, the checkpoint doesn't fit, or the layer doesn't exist.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> build_classifier("own", lambda count: resnet18(num_classes=count), num_classes=5).weights
    'random (seed 0)'
    """
    loaded = None if checkpoint is None else read_checkpoint(checkpoint)
    count = num_classes or default_classes
    if loaded is None and count is None:
        raise UserError(f"{name} needs num_classes=NUMBER, or checkpoint=FILE whose head says how many classes it has")
    with seeded(seed):
        module = make(count or 2)
    if loaded is not None:
        if num_classes is None:
            replace_head(module, _classes_in(loaded, module))
        load_state(module, loaded)
    about = loaded.metadata if loaded else {}
    names, ids = _class_names(classes, about)
    settings = {
        "input_size": (224, 224),
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "interpolation": "bilinear",
        **(shown or {}),
        **{key: about[key] for key in ("input_size", "mean", "std", "interpolation") if about.get(key) is not None},
        **{key: value for key, value in (asked or {}).items() if value is not None},
    }
    return finish(
        name,
        module,
        layer=layer,
        settings=settings,
        classes=names,
        class_ids=ids,
        weights=f"random (seed {seed})" if loaded is None else loaded.path.name,
        knobs=about.get("knobs") or {},
    )


def finish(
    name: str,
    module: nn.Module,
    *,
    layer: str | None,
    settings: Mapping[str, Any],
    classes: tuple[str, ...] | None,
    class_ids: tuple[str, ...] | None,
    weights: str,
    knobs: Mapping[str, Any] | None = None,
) -> Classifier:
    """Check all that is said about a network and bind it together, in evaluation mode.

    Parameters are those of `Classifier`; `settings` holds `input_size` (a number or height and width),
    `mean`, `std` and `interpolation`; `layer=None` takes the family's default.

    Raises
    ------
    UserError
        If the layer doesn't exist, names and logits differ in number, or a setting makes no sense.
    """
    module.eval()
    size = _size(name, settings["input_size"])
    if layer is None:
        layer = default_layer(module, size)
    layer = str(layer)  # YAML reads the names of a Sequential's layers as numbers
    find_layer(module, layer)
    head = module.get_submodule(head_name(module))
    logits = head.out_features if isinstance(head, nn.Linear) else head.out_channels
    for what, values in (("classes", classes), ("class_ids", class_ids)):
        if values is not None and len(values) != logits:
            raise UserError(f"{name} ({weights}) has {logits} logits, but {len(values)} {what} are given")
    if settings["interpolation"] not in ("bilinear", "bicubic"):
        raise UserError(f"{name}: interpolation={settings['interpolation']!r} is neither bilinear nor bicubic")
    return Classifier(
        name=name,
        module=module,
        layer=layer,
        input_size=size,
        mean=_three(name, "mean", settings["mean"]),
        std=_three(name, "std", settings["std"]),
        interpolation=settings["interpolation"],
        classes=classes,
        class_ids=class_ids,
        weights=weights,
        knobs=dict(knobs or {}),
    )


def _classes_in(loaded: Checkpoint, module: nn.Module) -> int:
    key = f"{head_name(unwrap(module))}.weight"
    if key not in loaded.state:
        few = ", ".join(list(loaded.state)[-3:])
        raise UserError(
            f"checkpoint {loaded.path} has no {key}, so it is no {type(module).__name__} "
            f"(its last entries: {few}): pass the model it was trained as"
        )
    return loaded.state[key].shape[0]


def _class_names(
    asked: str | Sequence[str] | None, about: Mapping[str, Any]
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    if asked == "imagenet":
        return imagenet_names(), imagenet_wnids()
    if isinstance(asked, str):
        raise UserError(f"classes={asked!r}: pass imagenet, or the list of names in the order of the logits")
    if asked is not None:
        return tuple(map(str, asked)), None
    names, ids = about.get("classes"), about.get("class_ids")
    return tuple(names) if names else None, tuple(ids) if ids else None


def _size(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    values = (size, size) if isinstance(size, int) else tuple(size)
    if len(values) != 2 or not all(isinstance(value, int) and value > 0 for value in values):
        raise UserError(f"{name}: input_size={size!r}: pass a number of pixels, or height and width")
    return values[0], values[1]


def _three(name: str, what: str, values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) != 3:
        raise UserError(f"{name}: {what}={list(values)!r}: pass three numbers on the 0…1 scale (red, green, blue)")
    red, green, blue = map(float, values)
    if what == "std" and min(red, green, blue) <= 0:
        raise UserError(f"{name}: std={list(values)!r}: pass three positive numbers")
    return red, green, blue
