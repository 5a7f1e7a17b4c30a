"""Any torchvision classifier by its name, with torchvision's weights, a checkpoint's, or random ones."""

from __future__ import annotations

import difflib
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision import models

from wsol.datasets.classes import imagenet_wnids
from wsol.errors import UserError
from wsol.models.build import build_classifier, finish, replace_head, seeded
from wsol.models.checkpoint import read_checkpoint
from wsol.models.classifier import Classifier

__all__ = ["load_weights", "preprocessing", "torchvision_classifier", "weights_named"]

# What the constructors call the side of the image, where they have to know it.
_SIZE_ARGUMENT = {"vit": "image_size", "maxvit": "input_size"}


def torchvision_classifier(
    name: str,
    weights: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    layer: str | None = None,
    seed: int = 0,
    classes: str | Sequence[str] | None = None,
    input_size: int | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
) -> Classifier:
    """Build any of torchvision's classification networks.

    Parameters
    ----------
    name : str
        As in `torchvision.models`: "resnet50", "vit_b_16", …
    weights : str, optional
        Torchvision's name of ready weights ("IMAGENET1K_V2", "DEFAULT"). Input size, mean, standard deviation
        and interpolation come from them; their resize and crop do not: how an image is shown is the view's
        affair.
    checkpoint : path, optional
        Own weights instead: safetensors, or a state dict. With neither the weights are random.
    num_classes : int, optional
        By default the weights' or the checkpoint's number, else 1,000. Where it differs from the ready
        weights' number they get a fresh head, to be trained.
    layer : str, optional
        Dotted name of the target layer; by default the family's (`default_layer`).
    seed : int
        For whatever is random.
    classes : "imagenet" or sequence of str, optional
        What the logits of a checkpoint mean, where it does not say so itself.
    input_size, mean, std, interpolation : optional
        Instead of those that belong to the weights.

    Returns
    -------
    Classifier
        In evaluation mode, on the CPU. GoogLeNet and Inception come without their auxiliary heads.
        Torchvision's own files for these two, passed as `checkpoint`, need `mean` and `std` of (0.5, 0.5,
        0.5), which `weights` takes care of inside the network.

    Raises
    ------
    UserError
        If there is no such network, weights or layer; if weights can't be had (the text says which file to
        put where); if the checkpoint does not fit.

    Examples
    --------
    >>> classifier = torchvision_classifier("resnet18", num_classes=20)
    >>> classifier.layer, classifier.weights
    ('layer4', 'random (seed 0)')
    >>> torchvision_classifier("resnet_18")
    Traceback (most recent call last):
        ...
    wsol.errors.UserError: torchvision has no classifier 'resnet_18': did you mean resnet18, ...?
    """
    _check_name(name)
    asked = {"input_size": input_size, "mean": mean, "std": std, "interpolation": interpolation}
    if weights is not None:
        if checkpoint is not None:
            raise UserError(f"{name}: weights={weights} and checkpoint={checkpoint} exclude each other: pass one")
        return _with_weights(name, weights, num_classes, layer, seed, asked)
    shown = preprocessing(getattr(models.get_model_weights(name), "IMAGENET1K_V1", None))

    def make(count: int) -> nn.Module:
        options = _options(name)
        argument = _SIZE_ARGUMENT.get(name.split("_")[0])
        if argument and input_size is not None:
            sides = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
            if sides[0] != sides[-1]:
                raise UserError(f"{name}: input_size={list(sides)}: this network takes square images only")
            options[argument] = sides[0] if argument == "image_size" else sides
        return models.get_model(name, weights=None, num_classes=count, **options)

    return build_classifier(
        name,
        make,
        num_classes=num_classes,
        default_classes=1000,
        checkpoint=checkpoint,
        classes=classes,
        seed=seed,
        layer=layer,
        shown=shown,
        asked=asked,
    )


def weights_named(name: str, weights: str) -> models.WeightsEnum:
    """Torchvision's weights of a network by their name.

    Raises
    ------
    UserError
        Naming those that there are.

    Examples
    --------
    >>> weights_named("resnet50", "DEFAULT").name
    'IMAGENET1K_V2'
    """
    known = models.get_model_weights(name)
    if weights not in known.__members__:
        raise UserError(f"{name} has no weights {weights!r}: pass one of {', '.join(known.__members__)}, or null")
    return known[weights]


def preprocessing(weights: models.WeightsEnum | None) -> dict[str, Any]:
    """Input size, mean, standard deviation and interpolation that belong to weights; empty without weights.

    Examples
    --------
    >>> preprocessing(weights_named("inception_v3", "DEFAULT"))["input_size"]
    299
    """
    if weights is None:
        return {}
    transform = weights.transforms()
    return {
        "input_size": transform.crop_size[0],
        "mean": tuple(transform.mean),
        "std": tuple(transform.std),
        "interpolation": transform.interpolation.value,
    }


def load_weights(name: str, weights: models.WeightsEnum) -> nn.Module:
    """Build the network with ready weights, downloaded into torch's hub folder unless they lie there.

    Raises
    ------
    UserError
        If the download fails, or the file is damaged or holds more than weights: says which file it is.
    """
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rsplit("/", 1)[-1])
    lay_there = file.exists()
    try:
        if lay_there:  # torchvision would unpickle whatever it is: only what it downloads has its hash checked
            read_checkpoint(file)
        return models.get_model(name, weights=weights, **_options(name))
    except (UserError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        if lay_there:
            raise UserError(f"the weights in {file} can't be read ({error}): delete the file and try again") from error
        raise UserError(
            f"{weights.url} could not be downloaded ({error}): fetch it elsewhere and put it at {file} "
            "(TORCH_HOME moves that folder), or pass weights=null checkpoint=FILE"
        ) from error


def _with_weights(
    name: str, weights: str, num_classes: int | None, layer: str | None, seed: int, asked: dict[str, Any]
) -> Classifier:
    found = weights_named(name, weights)
    categories = found.meta["categories"]
    if categories is None:
        raise UserError(f"{name}'s weights {found.name} have no classifier: pass others, or use them as a backbone")
    shown = preprocessing(found)
    if name.split("_")[0] in _SIZE_ARGUMENT and asked["input_size"] not in (None, shown["input_size"]):
        raise UserError(
            f"{name} with {found.name} takes images of {shown['input_size']} pixels only, "
            f"input_size={asked['input_size']} was asked for: leave it out, or pass other weights"
        )
    module = load_weights(name, found)
    tuned = num_classes is not None and num_classes != len(categories)
    if num_classes is not None and tuned:
        with seeded(seed):
            replace_head(module, num_classes)
    return finish(
        name,
        module,
        layer=layer,
        settings={**shown, **{key: value for key, value in asked.items() if value is not None}},
        classes=None if tuned else tuple(categories),
        class_ids=imagenet_wnids() if len(categories) == 1000 and not tuned else None,
        weights=f"{found.name}, head random (seed {seed})" if tuned else found.name,
    )


def _options(name: str) -> dict[str, Any]:
    # The auxiliary heads serve training losses only, and these two networks' truncated-normal start is slow.
    return {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}


def _check_name(name: str) -> None:
    known = models.list_models(module=torchvision.models)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(known)}"
        raise UserError(f"torchvision has no classifier {name!r}: {hint}")
