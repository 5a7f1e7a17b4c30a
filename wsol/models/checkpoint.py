"""Weights on disk: safetensors or plain state dicts in, safetensors with all that a classifier needs out."""

from __future__ import annotations

import json
import os
import pickle
import re
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from wsol.errors import UserError
from wsol.models.classifier import Classifier
from wsol.models.layers import unwrap

__all__ = ["Checkpoint", "load_state", "read_checkpoint", "save_checkpoint"]

_KEYS = ("arch", "classes", "class_ids", "input_size", "mean", "std", "interpolation", "knobs")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")


@dataclass
class Checkpoint:
    """What a file of weights holds.

    Parameters
    ----------
    path : Path
        Where it came from, for messages.
    state : mapping of str to tensor
        The parameters and buffers by their dotted names.
    metadata : mapping
        What the file says about itself (`classes`, `class_ids`, `knobs`, `mean`, `std`, `input_size`,
        `interpolation`, `arch`, …), decoded; empty for plain state dicts.
    """

    path: Path
    state: OrderedDict[str, torch.Tensor]
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a safetensors file or a `torch.save`d state dict; nothing in the file is ever executed.

    A state dict may lie under `state_dict`, `model_state_dict` or `model`, and its names may carry the
    prefixes that `DataParallel`, `torch.compile` and Lightning put in front.

    Parameters
    ----------
    path : path
        The file.

    Raises
    ------
    UserError
        If the file does not exist, is no such file, is damaged, or holds pickled objects.

    Examples
    --------
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "linear.pt")
    >>> torch.save({"state_dict": {"module.weight": torch.ones(2, 3)}}, path)
    >>> list(read_checkpoint(path).state)
    ['weight']
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"checkpoint {path} {'is a folder' if path.is_dir() else 'does not exist'}: pass a file")
    if _is_safetensors(path):
        state, metadata = _read_safetensors(path)
        return Checkpoint(path, _plain_names(state), metadata)
    return Checkpoint(path, _plain_names(_read_torch(path)))


def load_state(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint into a network of the same shape; auxiliary heads may be absent from either.

    Parameters
    ----------
    module : nn.Module
        Changed in place, on whichever device and in whichever precision it is.
    checkpoint : Checkpoint
        From `read_checkpoint`.

    Raises
    ------
    UserError
        Naming the file and the first few parameters that are missing, left over, or of another shape.

    Examples
    --------
    >>> layer = nn.Linear(3, 2, bias=False)
    >>> load_state(layer, Checkpoint(Path("a.pt"), OrderedDict(weight=torch.ones(2, 3))))
    >>> layer.weight.sum().item()
    6.0
    """
    module = unwrap(module)
    own = module.state_dict()
    state = _adapt(checkpoint.state, module, own)
    wrong = [
        f"{name}: file {_shape(state[name])}, network {_shape(own[name])}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if wrong:
        raise UserError(
            f"{_does_not_fit(checkpoint, module)}: "
            f"{_few(wrong)}. Pass the model it was trained as, with the same num_classes (or leave that out)"
        )
    found = module.load_state_dict(state, strict=False)
    missing = [f"{name} {_shape(own[name])}" for name in found.missing_keys]
    extra = [f"{name} {_shape(state[name])}" for name in found.unexpected_keys]
    if missing or extra:
        lacks = f"it lacks {_few(missing)}" if missing else ""
        over = f"it has {_few(extra)} too many" if extra else ""
        raise UserError(
            f"{_does_not_fit(checkpoint, module)}: "
            f"{'; '.join(filter(None, (lacks, over)))}. Pass the model it was trained as"
        )


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
    >>> folder = tempfile.TemporaryDirectory()
    >>> two = Classifier(name="two", module=nn.Linear(3, 2), layer="", classes=("cat", "dog"))
    >>> save_checkpoint(two, Path(folder.name, "two.safetensors"), {"epoch": 3})
    >>> metadata = read_checkpoint(Path(folder.name, "two.safetensors")).metadata
    >>> metadata["classes"], metadata["epoch"]
    (['cat', 'dog'], 3)
    """
    path = Path(path)
    about = {
        "arch": classifier.name,
        "classes": classifier.classes,
        "class_ids": classifier.class_ids,
        "input_size": classifier.input_size,
        "mean": classifier.mean,
        "std": classifier.std,
        "interpolation": classifier.interpolation,
        "knobs": dict(classifier.knobs),
        **(extra_metadata or {}),
    }
    metadata = {key: json.dumps(value) for key, value in about.items() if value is not None}
    # A copy of each: safetensors takes neither channels-last nor shared tensors.
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in unwrap(classifier.module).state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(state, temporary, metadata=metadata)
        # mkstemp lets nobody else read; a checkpoint gets what any new file would get.
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _is_safetensors(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        head = file.read(9)
    # The format begins with the length of a JSON object, as eight bytes.
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            raw = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise UserError(f"checkpoint {path} is no readable safetensors file ({error}): copy it again") from error
    metadata: dict[str, Any] = {}
    for key, text in raw.items():
        try:
            metadata[key] = json.loads(text)
        except json.JSONDecodeError as error:
            if key in _KEYS:
                raise UserError(f"checkpoint {path}: its metadata entry {key} = {text!r} is not JSON") from error
            metadata[key] = text
    return state, metadata


def _read_torch(path: Path) -> Mapping[str, torch.Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = re.search(r"GLOBAL ([\w.]+)", str(error))
        if what is None:
            raise UserError(
                f"checkpoint {path} is neither a safetensors file nor a state dict: copy it again"
            ) from error
        raise UserError(
            f"checkpoint {path} holds a pickled object ({what.group(1)}); loading it could run any code, "
            "so it is refused: where you trust it, load it yourself and save its state dict alone, "
            "torch.save(model.state_dict(), file), or as safetensors"
        ) from error
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"checkpoint {path} can't be read ({first}): copy or save it again") from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"checkpoint {path} holds a {type(content).__name__} without weights: save model.state_dict()")
    strange = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise UserError(
            f"checkpoint {path} is no state dict (not tensors: {_few(strange)}): save model.state_dict(), "
            f"alone or under one of {', '.join(_WRAPPERS)}"
        )
    return content


def _plain_names(state: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    versions = OrderedDict(getattr(state, "_metadata", {}))
    plain = OrderedDict(state)
    while prefix := next((p for p in _PREFIXES if plain and all(name.startswith(p) for name in plain)), None):
        plain = OrderedDict((name.removeprefix(prefix), tensor) for name, tensor in plain.items())
        versions = OrderedDict(
            (name.removeprefix(prefix), version)
            for name, version in versions.items()
            if name.startswith(prefix) or not name
        )
        if prefix[:-1] in getattr(state, "_metadata", {}):
            versions[""] = getattr(state, "_metadata", {})[prefix[:-1]]
    plain._metadata = versions  # type: ignore[attr-defined]  # torch keeps its version numbers there
    return plain


def _adapt(
    state: OrderedDict[str, torch.Tensor], module: nn.Module, own: Mapping[str, torch.Tensor]
) -> OrderedDict[str, torch.Tensor]:
    """Names and extras that differ between releases of torchvision, brought to what this network expects."""
    adapted: OrderedDict[str, torch.Tensor] = OrderedDict()
    for name, tensor in state.items():
        name = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)
        if name.startswith(("AuxLogits.", "aux1.", "aux2.")) and name not in own:
            continue
        adapted[name] = tensor
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            adapted.setdefault(name, torch.zeros_like(tensor))
        if name.startswith(("AuxLogits.", "aux1.", "aux2.")):
            adapted.setdefault(name, tensor)
    versions = OrderedDict(getattr(state, "_metadata", {}))
    # MNASNet refuses a state dict that does not carry its version; safetensors carry none.
    versions.setdefault("", {"version": getattr(module, "_version", 1)})
    adapted._metadata = versions  # type: ignore[attr-defined]
    return adapted


def _does_not_fit(checkpoint: Checkpoint, module: nn.Module) -> str:
    arch = checkpoint.metadata.get("arch")
    origin = f" (it was saved from {arch})" if arch else ""
    return f"checkpoint {checkpoint.path} does not fit this {type(module).__name__}{origin}"


def _shape(tensor: torch.Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"


def _few(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
