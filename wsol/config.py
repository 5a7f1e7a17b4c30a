"""From a composed configuration to objects: dataset, classifier, methods, protocols; and calls by the names of keys."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from wsol.errors import UserError

if TYPE_CHECKING:
    from wsol.datasets import Dataset
    from wsol.heatmaps.method import Method
    from wsol.localization import Protocol
    from wsol.models import Classifier


NOT_THE_DATASETS_OWN = ("class_map", "boxes")  # the evaluation's; boxes=from_masks goes with any dataset
PLAIN_TYPES = {"int", "float", "bool", "str", "None"}
LEAST = {"batch_size": 1, "chunk": 1, "limit": 1, "most": 1, "resamples": 100, "top": 1, "pictures": 0, "workers": 0}
REFUSALS = (ImportError, OSError, TypeError, ValueError, InstantiationException)
Config = DictConfig | Mapping[str, Any]


def to_dict(config: Config, where: str = "") -> dict[str, Any]:
    """Turn a configuration, which stands at the key `where`, into dicts, lists and plain values without references."""
    if not isinstance(config, Mapping):
        raise UserError(f"{where or 'the configuration'} is {config!r}; wanted key: value pairs")
    node = config if OmegaConf.is_config(config) else OmegaConf.create(dict(config))
    for key in sorted(OmegaConf.missing_keys(node)):
        name = f"{where}.{key}" if where else key
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


def build_dataset(config: Config, strict: bool = True) -> Dataset:
    """Make the dataset that a section describes; with `strict=False` wrong boxes are kept, to be listed."""
    from wsol.datasets.sample import Dataset, boxes_from_masks

    arguments = to_dict(config, "dataset")
    boxes = arguments.get("boxes")
    if boxes not in (None, "from_masks"):
        raise UserError(f"dataset.boxes={boxes}: pass from_masks, or null for the boxes that were annotated")
    for name in NOT_THE_DATASETS_OWN:
        arguments.pop(name, None)
    if isinstance(arguments.get("root"), int):  # YAML's reading of a folder named 2012
        arguments["root"] = str(arguments["root"])
    if not strict and "strict" in _parameters(arguments.get("_target_")):
        arguments["strict"] = False
    dataset = _build(arguments, "dataset", Dataset)
    return boxes_from_masks(dataset) if boxes == "from_masks" else dataset


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
