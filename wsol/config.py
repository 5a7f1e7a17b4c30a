"""From a composed configuration to objects: dataset, classifier, methods, protocols; and calls by the names of keys."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from wsol.errors import UserError
from wsol.io import conf_dir, read_yaml

if TYPE_CHECKING:
    from wsol.datasets import Dataset
    from wsol.heatmaps.method import Method
    from wsol.localization import Protocol
    from wsol.models import Classifier
    from wsol.training import TrainingMethod


# Keys that go with any dataset; one that takes such an argument itself gets it.
FOR_ANY_DATASET = {"class_map": (), "boxes": ("from_masks",), "sizes": ("stop", "scale")}
BUILT = ("dataset", "method", "model", "training_method")  # groups whose options say what is built
PLAIN_TYPES = {"int", "float", "bool", "str", "None"}
LEAST = {
    "batch_size": 1,
    "shard_size": 1,
    "chunk": 1,
    "limit": 1,
    "most": 1,
    "resamples": 100,
    "top": 1,
    "pictures": 0,
    "workers": 0,
}
REFUSALS = (ImportError, OSError, TypeError, ValueError, InstantiationException)
Config = DictConfig | Mapping[str, Any]


def to_dict(config: Config, where: str = "") -> dict[str, Any]:
    """Turn a configuration, which stands at the key `where`, into dicts, lists and plain values without references."""
    if not isinstance(config, Mapping):
        raise UserError(f"{where or 'the configuration'} is {config!r}; wanted key: value pairs")
    node = config if OmegaConf.is_config(config) else OmegaConf.create(dict(config))
    for key in sorted(OmegaConf.missing_keys(node)):
        name = f"{where}.{key}" if where and not key.startswith(f"{where}.") else key  # whole where a node has a parent
        raise UserError(f"{name} is needed: pass {name}=…")
    values = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    return {str(key): value for key, value in dict(values).items()}  # type: ignore[arg-type]


def call(function: Callable[..., Any], config: Config, options: type | None = None, /, **objects: Any) -> Any:
    """Call a function with those values of a configuration that it, or its `options`, take by name, and these objects.

    A value that doesn't fit a plain annotation, such as `int | None`, is refused by its key.
    """
    parameters = dict(inspect.signature(function).parameters)
    if options is not None:
        parameters |= inspect.signature(options).parameters
    values = {name: config[name] for name in parameters if name in config and name not in objects}
    for name, value in values.items():
        types, kind = str(parameters[name].annotation).split(" | "), "None" if value is None else type(value).__name__
        fits = kind in types or (kind == "int" and "float" in types)
        if PLAIN_TYPES.issuperset(types) and not fits:
            raise UserError(f"{name}={value!r}: pass {parameters[name].annotation}")
        if kind == "int" and value < LEAST.get(name, value):
            raise UserError(f"{name}={value}: pass at least {LEAST[name]}")
    return function(**values, **objects)


@cache
def own_targets() -> frozenset[str]:
    """What `_target_` says in wsol's own options: all that is ever built because a run's folder names it."""
    paths = (path for group in BUILT for path in (conf_dir() / group).glob("*.yaml"))
    return frozenset(
        name for path in paths for name in re.findall(r"^_target_: *([\w.]+)", path.read_text("utf-8"), re.M)
    )


def refuse_foreign(recorded: Any, composed: Any = None, where: str = "", inside: bool = False) -> None:
    """Refuse what a run's folder names and isn't wsol's own with plain values, unless the same is `composed` again now.

    So code of somebody's folder is never run: a `UserError` names the key. `${…}` is refused as well, for it would be
    resolved here.
    """
    if isinstance(recorded, list):
        recorded = dict(enumerate(recorded))
        composed = dict(enumerate(composed)) if isinstance(composed, list) else composed
    if isinstance(recorded, str) and "${" in recorded:
        raise UserError(f"{where}={recorded}: a run's folder holds values, not references; write the value there")
    if not isinstance(recorded, Mapping):
        return
    special = {str(key) for key in recorded if str(key).startswith("_") and str(key).endswith("_")}
    is_ours = special == {"_target_"} and recorded["_target_"] in own_targets() and not inside
    foreign = [] if is_ours else sorted(special)
    foreign += ["function"] if "." in str(recorded.get("function", "")) else []
    foreign += ["trust_remote_code"] if recorded.get("trust_remote_code") else []
    if foreign and recorded != composed:
        names = ", ".join(f"{where}.{key}={recorded[key]}".lstrip(".") for key in foreign)
        raise UserError(
            f"{names}, as the run's folder records it, is not wsol's own and so not run from there: pass the same "
            f"again, on the command line or by --config-dir"
        )
    for key, value in recorded.items():
        below = composed.get(key) if isinstance(composed, Mapping) else None
        refuse_foreign(value, below, f"{where}.{key}" if where else str(key), inside or bool(special))


def resume_config(
    folder: Path, composed: Mapping[str, Any], words: Collection[str], free: Collection[str]
) -> DictConfig:
    """Read the configuration that a run in this folder began with; nothing else decides how it goes on.

    `composed` is the one of now, `words` the overrides that were typed, `free` the keys that may change, such as
    `workers`: these are taken from `composed` where they were typed. What else was typed must be as it is recorded, and
    what isn't wsol's own must be given again: see `refuse_foreign`.
    """
    recorded = read_yaml(folder / "config.yaml")
    refuse_foreign(recorded, composed)
    resumed, now = OmegaConf.create(dict(composed) | recorded), OmegaConf.create(dict(composed))
    typed = [re.split(r"[=@]", word.lstrip("+~"))[0] for word in words]
    presets = [key for key in composed if any(name.startswith(("experiment", "launcher")) for name in typed)]
    for key in [*typed, *presets]:
        key = f"{key}s" if key in ("method", "protocol") else key
        value = OmegaConf.select(now, key)
        if key.split(".")[0] in free:
            OmegaConf.update(resumed, key, value, merge=False, force_add=True)
        elif key.split(".")[0] in recorded and OmegaConf.select(resumed, key) != value:
            began = f"the run in {folder} began with {OmegaConf.select(resumed, key)}"
            raise UserError(f"{key}={value}, but {began}: leave it out, or choose another run_dir")
    return resumed


def build_dataset(config: Config, strict: bool = True) -> Dataset:
    """Make the dataset that a section describes; with `strict=False` wrong boxes are kept, to be listed."""
    from wsol.datasets.sample import Dataset, boxes_from_masks, scale_to_files

    arguments = to_dict(config, "dataset")
    common = {name: arguments.pop(name, None) for name in for_any_dataset(config)}
    for name in common.keys() - {"class_map"}:
        if common[name] not in (None, *FOR_ANY_DATASET[name]):
            raise UserError(f"dataset.{name}={common[name]}: pass {' or '.join(FOR_ANY_DATASET[name])}, or null")
    if isinstance(arguments.get("root"), int):  # YAML's reading of a folder named 2012
        arguments["root"] = str(arguments["root"])
    if not strict and "strict" in _parameters(arguments.get("_target_")):
        arguments["strict"] = False
    dataset = _build(arguments, "dataset", Dataset)
    dataset = scale_to_files(dataset) if common.get("sizes") == "scale" else dataset
    return boxes_from_masks(dataset) if common.get("boxes") == "from_masks" else dataset


def for_any_dataset(config: Config) -> list[str]:
    """Which of `FOR_ANY_DATASET` are not arguments of this dataset's own."""
    parameters = _parameters(config.get("_target_"))
    return [name for name in FOR_ANY_DATASET if name not in parameters]


def build_model(config: Config, dataset: Dataset | None, for_training: bool = False) -> Classifier:
    """Make the classifier that a section describes.

    A target that takes `num_classes`, and was not told it, gets the dataset's where no weights are loaded; for
    training also where they are: the head is then trained for this dataset.
    """
    from wsol.models import Classifier

    arguments = to_dict(config, "model")
    loads = any(arguments.get(name) is not None for name in ("weights", "checkpoint"))
    untold = arguments.get("num_classes") is None and "num_classes" in _parameters(arguments.get("_target_"))
    if dataset is None or not untold or (loads and not for_training):
        return _build(arguments, "model", Classifier)
    classifier = _build(arguments | {"num_classes": len(dataset.classes)}, "model", Classifier)
    if classifier.classes is None and not loads:
        classifier.classes, classifier.class_ids = tuple(dataset.classes), tuple(dataset.ids)
    return classifier


def build_training_method(config: Config) -> TrainingMethod:
    """Make the training method that a section describes."""
    from wsol.training import TrainingMethod

    return _build(to_dict(config, "training_method"), "training_method", TrainingMethod)  # type: ignore[no-any-return]


def build_methods(config: Config) -> dict[str, Method]:
    """Make the heatmap methods of a `methods` section, in its order."""
    from wsol.heatmaps.method import Method

    sections = _sections(config, "method")
    return {name: _build(section, f"methods.{name}", Method) for name, section in sections.items()}


def build_protocols(config: Config) -> dict[str, Protocol]:
    """Make the scoring protocols of a `protocols` section, in its order."""
    from wsol.localization import Protocol

    sections = _sections(config, "protocol")
    return {name: Protocol.from_mapping({"name": name} | section) for name, section in sections.items()}


def _sections(config: Config, group: str) -> dict[str, dict[str, Any]]:
    if not isinstance(config, Mapping):
        raise UserError(f"{group}s={config} chooses none: write {group}={config or 'NAME'}")
    sections = to_dict(config, f"{group}s")
    if not sections:
        raise UserError(f"no {group} to evaluate: choose some, as in '{group}=[NAME,NAME]'")
    return {name: to_dict(section, f"{group}s.{name}") for name, section in sections.items()}


def _build(arguments: dict[str, Any], where: str, wanted: type) -> Any:
    """Make the object; what its constructor refuses comes out of Hydra's wrapping."""
    try:
        thing = instantiate(arguments, _convert_="all")
    except InstantiationException as error:
        cause: BaseException = error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, UserError) or not isinstance(cause, REFUSALS):
            raise cause from error
        raise UserError(f"{where}: {' '.join(str(cause).split())}") from error
    if not isinstance(thing, wanted):
        target = arguments.get("_target_")
        raise UserError(f"{where}: _target_={target} makes a {type(thing).__name__}, wanted a {wanted.__name__}")
    return thing


def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    """Parameters of the object that `_target_` names; none where it can't be found or doesn't say."""
    try:
        return inspect.signature(get_object(target)).parameters
    except Exception:  # whatever importing somebody's module raises; `_build` says so
        return {}
