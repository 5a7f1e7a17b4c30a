"""From a composed configuration to objects: dataset, classifier, methods, protocols."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from wsol.errors import UserError

__all__ = [
    "build_dataset",
    "build_methods",
    "build_model",
    "build_protocols",
    "check_root_keys",
    "class_map_of",
    "missing_keys",
    "plain",
]

NOT_THE_DATASETS_OWN = ("class_map", "boxes")
Config = DictConfig | Mapping[str, Any]


def plain(config: Config, where: str = "") -> dict[str, Any]:
    """Turn a configuration into dicts, lists and plain values, every interpolation resolved.

    Parameters
    ----------
    config : DictConfig or mapping
    where : str
        Key at which it stands, for messages.

    Raises
    ------
    UserError
        If a value that the user has to give is missing.

    Examples
    --------
    >>> plain(OmegaConf.create({"a": 1, "b": "${a}"}))
    {'a': 1, 'b': 1}
    """
    if not isinstance(config, Mapping):
        raise UserError(f"{where or 'the configuration'} is {config!r}; wanted key: value pairs")
    missing = missing_keys(config, where)
    if missing:
        raise UserError(f"{missing[0]} is needed: pass {missing[0]}=…")
    node = config if OmegaConf.is_config(config) else OmegaConf.create(dict(config))
    found = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def missing_keys(config: Config, where: str = "") -> list[str]:
    """Dotted names of all values that are still `???`."""
    node = config if OmegaConf.is_config(config) else OmegaConf.create(dict(config))
    return [f"{where}.{key}" if where else key for key in sorted(OmegaConf.missing_keys(node))]


def check_root_keys(config: Config) -> None:
    """Refuse `method` and `protocol` beside `methods` and `protocols`: nothing reads them.

    Raises
    ------
    UserError
        Naming the two ways in which they arise.
    """
    for key in ("method", "protocol"):
        if key in config:
            raise UserError(
                f"the configuration has a key {key!r} that nothing reads. {key}=NAME chooses an option, "
                f"and its keys are {key}s.NAME.…; a file of your own in {key}/ must have "
                f"'# @package {key}s.NAME' as its very first line, with nothing above and nothing behind it"
            )


def class_map_of(config: Config) -> Any:
    """How the model's classes are matched to the dataset's: `dataset.class_map`, None by default."""
    return plain(config, "dataset").get("class_map")


def build_dataset(config: Config) -> Any:
    """Make the dataset that a `dataset` section describes.

    Parameters
    ----------
    config : mapping
        `_target_` and its arguments. `class_map` is the evaluation's, not the dataset's; `boxes=from_masks` puts
        boxes around the masks of any dataset.

    Returns
    -------
    Dataset

    Raises
    ------
    UserError
        If the target can't be found, doesn't take a key, or refuses a value.

    Examples
    --------
    >>> build_dataset({"_target_": "wsol.datasets.TinyImageNet", "root": "/none"})
    Traceback (most recent call last):
    ...
    wsol.errors.UserError: dataset.root=/none: no such folder; ...
    """
    arguments = plain(config, "dataset")
    boxes = arguments.get("boxes")
    if boxes not in (None, "from_masks"):
        raise UserError(f"dataset.boxes={boxes}: pass from_masks, or null for the boxes that were annotated")
    for name in NOT_THE_DATASETS_OWN:
        arguments.pop(name, None)
    if isinstance(arguments.get("root"), int):  # YAML's reading of a folder named 2012
        arguments["root"] = str(arguments["root"])
    dataset = _build(arguments, "dataset")
    _has(dataset, ("classes", "split", "__len__", "__getitem__"), "dataset", "a wsol.datasets.Dataset")
    if boxes == "from_masks":
        from wsol.datasets.from_masks import BoxesFromMasks  # not above: scikit-image is not loaded for --help

        return BoxesFromMasks(dataset)
    return dataset


def build_model(config: Config, dataset: Any, for_training: bool = False) -> Any:
    """Make the classifier that a `model` section describes.

    A target that takes `num_classes`, and was not told it, gets the dataset's where no weights are loaded.

    Parameters
    ----------
    config : mapping
        `_target_` and its arguments.
    dataset : Dataset, optional
    for_training : bool
        Also where weights are loaded: the head is to be trained for this dataset.

    Returns
    -------
    Classifier
    """
    arguments = plain(config, "model")
    loads = any(arguments.get(name) is not None for name in ("weights", "checkpoint"))
    fits = dataset is not None and arguments.get("num_classes") is None and (for_training or not loads)
    fits = fits and "num_classes" in _parameters(_target(arguments, "model"))
    if fits:
        arguments["num_classes"] = len(dataset.classes)
    classifier = _build(arguments, "model")
    _has(classifier, ("module", "layer", "input_size"), "model", "a wsol.models.Classifier")
    if fits and classifier.classes is None and not loads:
        classifier.classes, classifier.class_ids = tuple(dataset.classes), tuple(dataset.ids)
    return classifier


def build_methods(config: Config) -> dict[str, Any]:
    """Make the heatmap methods of a `methods` section, in its order.

    Raises
    ------
    UserError
        If there is none, or one can't be made.
    """
    return _build_all(config, "method", lambda name, arguments: _build(arguments, f"methods.{name}"))


def build_protocols(config: Config) -> dict[str, Any]:
    """Make the scoring protocols of a `protocols` section, in its order.

    Raises
    ------
    UserError
        If there is none, or a rule is unknown or out of range.
    """
    from wsol.localization import Protocol

    def make(name: str, arguments: dict[str, Any]) -> Any:
        return Protocol.from_mapping(**{"name": name, **arguments})

    return _build_all(config, "protocol", make)


def _build_all(config: Config, group: str, make: Any) -> dict[str, Any]:
    sections = plain(config, f"{group}s")
    if not sections:
        raise UserError(f"no {group} to evaluate: choose some, as in '{group}=[NAME,NAME]'")
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise UserError(f"{group}s.{name}={section!r}: wanted key: value pairs, as conf/{group}/*.yaml have them")
    return {name: make(name, section) for name, section in sections.items()}


def _build(arguments: dict[str, Any], where: str) -> Any:
    target = _target(arguments, where)
    known = _parameters(target)
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    given = [name for name in arguments if not (name.startswith("_") and name.endswith("_"))]
    for name in given:
        if name not in known and known and not open_ended:
            raise UserError(f"{where}.{name}: {arguments['_target_']} takes no such thing; it takes {', '.join(known)}")
    for name, parameter in known.items():
        needed = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if needed and name not in given:
            raise UserError(f"{where}.{name} is needed by {arguments['_target_']}: pass {where}.{name}=…")
    try:
        return instantiate(arguments, _convert_="all")
    except InstantiationException as error:
        raise _mended(error, where) from error


def _mended(error: InstantiationException, where: str) -> Exception:
    """Take the real reason out of Hydra's wrapping; what a constructor refuses is the user's to mend."""
    cause: BaseException = error
    while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, UserError):
        return cause
    if isinstance(cause, OSError | ValueError | TypeError | ImportError):
        return UserError(f"{where}: {cause}")
    if isinstance(cause, InstantiationException):
        return UserError(f"{where}: {str(cause).splitlines()[0]}")
    return cause if isinstance(cause, Exception) else error


def _target(arguments: Mapping[str, Any], where: str) -> Any:
    path = arguments.get("_target_")
    if not isinstance(path, str):
        raise UserError(f"{where} has no _target_: its file must name a Python object, as '_target_: my_module.Mine'")
    try:
        return get_object(path)
    except Exception as error:  # whatever importing somebody's module raises
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(
            f"{where}._target_={path} can't be imported: {reason}. A module of your own must be on "
            f"PYTHONPATH or in the folder of --config-dir"
        ) from error


def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):  # some callables written in C have none
        return {}


def _has(made: Any, names: tuple[str, ...], where: str, wanted: str) -> None:
    lacking = [name for name in names if not hasattr(made, name)]
    if lacking:
        raise UserError(f"{where}: a {type(made).__name__} has no {', '.join(lacking)}; wanted {wanted}")
