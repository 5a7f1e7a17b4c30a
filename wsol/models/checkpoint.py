"""Weights on disk: safetensors or plain state dicts in, safetensors with all that a classifier needs out."""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from wsol.errors import UserError, first_names
from wsol.io import atomic_write
from wsol.models.inference import unwrap
from wsol.models.layers import Classifier

ENTRIES = ("classes", "class_ids", "input_size", "mean", "std", "interpolation", "knobs")  # fields of `Classifier`
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.")
STATE_DICT = "pass safetensors or a state dict, as torch.save(model.state_dict(), file) makes it"
AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")


@dataclass
class Checkpoint:
    """What a file of weights holds: tensors by their dotted names, and what it says about itself (see `ENTRIES`)."""

    path: Path
    state: Mapping[str, torch.Tensor]
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a safetensors file or a `torch.save`d state dict; nothing in the file is ever executed.

    A state dict may lie under `state_dict`, `model_state_dict` or `model`, and its names may carry the
    prefixes that `DataParallel`, `torch.compile` and Lightning put in front.

    Raises
    ------
    UserError
        If the file does not exist, is no such file, is damaged, or holds pickled objects.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "linear.pt")
    >>> torch.save({"state_dict": {"module.weight": torch.ones(2, 3)}}, path)
    >>> list(read_checkpoint(path).state)
    ['weight']
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"checkpoint {path} {'is a folder' if path.is_dir() else 'does not exist'}: pass a file")
    with path.open("rb") as file:  # a safetensors file has JSON behind its first eight bytes
        is_safetensors = path.suffix == ".safetensors" or file.read(9)[8:] == b"{"
    state, metadata = _read_safetensors(path) if is_safetensors else (_read_torch(path), {})
    while prefix := next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return Checkpoint(path, state, metadata)


def load_state(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint into a network of the same shape; auxiliary heads may be absent from either.

    The network stays on its device and in its precision.

    Raises
    ------
    UserError
        Naming the file and the first parameters that are missing, left over, or of another shape.

    Examples
    --------
    >>> layer = nn.Linear(3, 2, bias=False)
    >>> load_state(layer, Checkpoint(Path("a.pt"), OrderedDict(weight=torch.ones(2, 3))))
    >>> layer.weight.sum().item()
    6.0
    """
    module = unwrap(module)
    try:
        module.load_state_dict(_adapt(checkpoint.state, module))
    except RuntimeError as error:
        what = f"checkpoint {checkpoint.path} (of {checkpoint.metadata.get('arch', '?')}) does not fit this network"
        raise UserError(f"{what} or its num_classes: {shorten(str(error), 500)}") from error


def save_checkpoint(
    classifier: Classifier, path: str | os.PathLike[str], extra_metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a classifier's weights, and how to use them, as one safetensors file: whole or not at all.

    Parameters
    ----------
    classifier : Classifier
        Its classes, class ids, knobs, normalization, input size and name go into the file's metadata.
    path : path
        The file to write; its folder is made if need be.
    extra_metadata : mapping, optional
        More entries (the epoch, say): anything that JSON can hold.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "two.safetensors")
    >>> two = Classifier(name="two", module=nn.Linear(3, 2), layer="", classes=("cat", "dog"))
    >>> save_checkpoint(two, path, {"epoch": 3})
    >>> read_checkpoint(path).metadata["classes"]
    ['cat', 'dog']
    """
    path = Path(path)
    entries = {name: getattr(classifier, name) for name in ENTRIES} | {"arch": classifier.name}
    entries |= {"knobs": dict(classifier.knobs), "training_method": dict(classifier.training_method) or None}
    entries |= {"output_stride": classifier.output_stride}
    entries |= extra_metadata or {}
    metadata = {name: json.dumps(value) for name, value in entries.items() if value is not None}
    # A copy of each: safetensors takes neither channels-last nor shared tensors.
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in unwrap(classifier.module).state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        save_file(state, temporary, metadata=metadata)


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise UserError(f"checkpoint {path} is no readable safetensors file ({error}): copy it again") from error
    metadata: dict[str, Any] = dict(texts)
    for name, text in texts.items():
        with suppress(json.JSONDecodeError):  # others write plain words: "pt"
            metadata[name] = json.loads(text)
    return state, metadata


def _read_torch(path: Path) -> Mapping[str, torch.Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if name := re.search(r"GLOBAL ([\w.]+)", str(error)):
            reason = f"it holds a pickled object, {name.group(1)}, and loading that could run any code"
        raise UserError(f"checkpoint {path} can't be read: {reason}; {STATE_DICT}") from error
    wrapped = [content[key] for key in WRAPPERS if isinstance(content, Mapping) and key in content]
    content = next((inner for inner in wrapped if isinstance(inner, Mapping)), content)
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"checkpoint {path} holds a {type(content).__name__} without weights; {STATE_DICT}")
    others = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise UserError(f"checkpoint {path} holds more than tensors ({first_names(others)}); {STATE_DICT}")
    return content


def _adapt(state: Mapping[str, torch.Tensor], module: nn.Module) -> OrderedDict[str, torch.Tensor]:
    """Names and extras that differ between releases of torchvision, brought to what this network expects."""
    adapted, expected = OrderedDict[str, torch.Tensor](), module.state_dict()
    for name, tensor in state.items():
        if name in expected or not name.startswith(AUXILIARY):
            adapted[re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)] = tensor
    for name, tensor in expected.items():
        if name.endswith("num_batches_tracked"):
            adapted.setdefault(name, torch.zeros_like(tensor))
        if name.startswith(AUXILIARY):
            adapted.setdefault(name, tensor)
    # MNASNet refuses a state dict that does not carry its version; safetensors carry none.
    version = {"version": getattr(module, "_version", 1)}
    adapted._metadata = {"": version, **getattr(state, "_metadata", {})}  # type: ignore[attr-defined]
    return adapted
