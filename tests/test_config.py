"""Every configuration file composes and fits what it names; configurations become objects or a message."""

from __future__ import annotations

import inspect
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from wsol import config
from wsol.commands import COMMANDS
from wsol.commands.request import application_groups, compose_application, group_options
from wsol.config import resume_config
from wsol.errors import UserError
from wsol.heatmaps.method import BASELINES, FAMILIES, builtin_methods, method_cards
from wsol.io import conf_dir, write_yaml

FILES = sorted(conf_dir().rglob("*.yaml"))
CHOICES = [
    (command, group, name)
    for command in COMMANDS
    for group in application_groups(command).values()
    for name in group_options(group)
    if name != "ray" or find_spec("hydra_plugins.hydra_ray_launcher")  # an extra that dev goes without
]
MODEL_SETTINGS = ("layer", "seed", "classes", "input_size", "mean", "std", "interpolation", "prefix_tokens", "output")
SECTIONS = {"dataset": "dataset", "model": "model", "method": "methods", "protocol": "protocols"}


class Ten:
    """A data set of ten classes, as far as a model looks at it."""

    classes = tuple("abcdefghij")
    ids = tuple(f"n{number}" for number in range(10))


@pytest.mark.parametrize(("command", "group", "name"), CHOICES, ids=["-".join(choice) for choice in CHOICES])
def test_every_option_composes_and_fits_its_target(command, group, name):
    composed = compose_application(command, [f"{group}={name}"])
    kind = group.split("/")[0]
    section = composed.get(SECTIONS.get(kind, ""), {})
    section = section.get(name, section) if kind in ("method", "protocol") else section
    if kind == "protocol":
        assert config.build_protocols(composed.protocols)[name].name == name
    elif kind == "method":
        assert list(composed.methods) == [name]
        assert list(config.build_methods(composed.methods)) == [name]
    elif kind in ("dataset", "model"):
        target = inspect.signature(get_object(section._target_)).parameters
        extra = {"_target_", *(config.FOR_ANY_DATASET if kind == "dataset" else MODEL_SETTINGS)}
        assert set(section) - extra <= set(target), f"{section._target_} does not take all of {list(section)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(conf_dir()).as_posix())
def test_headers_and_comments_of_every_file(path):
    text = path.read_text(encoding="utf-8")
    lines, group = text.splitlines(), path.parent.relative_to(conf_dir()).as_posix()
    first = lines[0]
    if group in ("method", "protocol", "faithfulness"):
        assert first == f"# @package {group}{'s' * (group != 'faithfulness')}.{path.stem}"
    elif group == "launcher" or group.startswith("experiment/"):
        assert first == "# @package _global_"
    else:
        assert "@package" not in text
    comments = [line for line in lines[:3] if line.startswith("# ") and "@package" not in line]
    assert comments, "the first comment says what it is"
    if group != "." and not path.stem.startswith("_"):  # what others build on is no choice
        kind, *folders = group.split("/")
        name = "/".join([*folders[1:], path.stem])
        assert f"{kind}={name}" in comments[0] or f"{kind}=[{name}]" in comments[0]


def test_defaults_of_shapes_are_those_of_its_class():
    parameters = inspect.signature(get_object("wsol.datasets.Shapes")).parameters
    section = OmegaConf.to_container(compose_application("evaluate").dataset)
    for name, value in section.items():
        if name in parameters:
            default = parameters[name].default
            assert value == (list(default) if isinstance(default, tuple) else default), name


def test_what_is_shown_of_methods_and_their_functions_are_the_same_set():
    functions = {name: function.__module__ for name, function in builtin_methods().items()}
    families = {name: f"wsol.heatmaps.{card.family}" for name, card in method_cards().items() if name not in BASELINES}
    assert families == functions
    assert {name for name, card in method_cards().items() if card.family not in FAMILIES} == set(BASELINES)


@pytest.mark.parametrize("name", method_cards())
def test_defaults_of_a_method_are_those_of_its_function(name):
    section = OmegaConf.to_container(OmegaConf.load(conf_dir() / "method" / f"{name}.yaml"))
    assert (section.pop("_target_"), section.pop("function")) == ("wsol.heatmaps.make_method", name)
    ours = {key: section.pop(key) for key in ("layer", "fuse", "score", "views") if key in section}
    assert set(ours.values()) <= {None}
    section.pop("about")
    methods = builtin_methods()
    parameters = list(inspect.signature(methods[name]).parameters.values())[1:] if name in methods else []
    defaults = {parameter.name: parameter.default for parameter in parameters}
    assert section == defaults
    assert {key: type(value) for key, value in section.items()} == {k: type(v) for k, v in defaults.items()}


def test_training_keys_are_those_of_a_recipe():
    from wsol.training import Recipe

    assert set(compose_application("train").training) == {*(field.name for field in fields(Recipe)), "stages"}


def test_torchvision_models_by_name_and_weights():
    words = ["model=torchvision", "model.name=resnet50", "model.weights=IMAGENET1K_V2"]
    model = compose_application("evaluate", words).model
    assert (model.name, model.weights) == ("resnet50", "IMAGENET1K_V2")
    assert compose_application("evaluate", ["model=resnet50"]).model.name == "resnet50"


def test_an_untrained_model_gets_the_datasets_classes_and_a_loaded_one_keeps_its_own(tmp_path):
    from wsol.models import save_checkpoint

    section = {"_target_": "wsol.models.tiny_resnet18", "checkpoint": None, "num_classes": None}
    fresh = config.build_model(section, Ten)
    assert fresh.classes == Ten.classes and fresh.class_ids == Ten.ids
    given = config.build_model({**section, "num_classes": 4}, Ten)
    assert given.classes is None
    given.classes = tuple("wxyz")
    save_checkpoint(given, tmp_path / "four.safetensors")
    loaded = config.build_model({**section, "checkpoint": str(tmp_path / "four.safetensors")}, Ten)
    assert loaded.classes == tuple("wxyz")


def test_stages_override_the_recipe_and_the_data():
    from wsol.commands.train import build_stages

    settings = {
        "dataset": {"_target_": "wsol.datasets.Shapes", "split": "train", "length": 40, "class_map": None},
        "validation": {"split": "val"},
        "training": {"lr": 0.1, "epochs": 4, "stages": [{"epochs": 1, "dataset": {"size": 48}}, {"lr": 0.2}]},
    }
    first, second = build_stages(settings)
    assert (first.recipe.epochs, first.recipe.lr, second.recipe.epochs, second.recipe.lr) == (1, 0.1, 4, 0.2)
    assert first.dataset[0].size() == (48, 48) == first.validation[0].size()
    assert second.dataset[0].size() == (96, 96)
    assert (first.dataset.split, first.validation.split, len(second.dataset)) == ("train", "val", 40)
    assert build_stages({**settings, "validation": None})[0].validation is None
    with pytest.raises(UserError, match="epoch.* epochs"):
        build_stages({**settings, "training": {"stages": [{"epoch": 1}]}})


def refuse(*_, **__):
    raise ValueError("the reason itself")


def break_down(*_, **__):
    raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("build", "section", "message"),
    [
        (config.build_dataset, {"_target_": "wsol.datasets.Shapes", "sise": 9}, "dataset: .*sise"),
        (config.build_dataset, {"_target_": "wsol.datasets.Shapez"}, "dataset: .*Shapez"),
        (config.build_dataset, {"root": "x"}, "dataset: _target_=None"),
        (config.build_dataset, {"_target_": "collections.OrderedDict"}, "OrderedDict"),
        (config.build_dataset, {"_target_": "wsol.datasets.TinyImageNet"}, "dataset: .*root"),
        (config.build_methods, {}, "no method"),
        (config.build_methods, {"cam": 3}, "methods.cam is 3"),
        (config.build_protocols, {"mine": {"treshold": 0.1}}, "mine.*treshold"),
    ],
)
def test_what_can_not_be_built_is_said(build, section, message):
    with pytest.raises(UserError, match=message):
        build(section)


def test_reasons_of_a_constructor_come_out_of_hydras_wrapping(monkeypatch, tmp_path):
    (tmp_path / "constructors_of_a_test.py").write_text(Path(__file__).read_text())
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="dataset: the reason itself"):
        config.build_dataset({"_target_": "constructors_of_a_test.refuse"})
    with pytest.raises(RuntimeError, match="a bug"):
        config.build_dataset({"_target_": "constructors_of_a_test.break_down"})


def test_to_dict_resolves_and_names_what_is_missing():
    assert config.to_dict(OmegaConf.create({"a": {"b": "${c}"}, "c": [1]})) == {"a": {"b": [1]}, "c": [1]}
    with pytest.raises(UserError, match="dataset.root"):
        config.to_dict(OmegaConf.create({"dataset": {"root": "???"}}))
    for section in ({"root": "???"}, OmegaConf.create({"dataset": {"root": "???"}}).dataset):
        with pytest.raises(UserError, match=r"^dataset\.root "):
            config.to_dict(section, "dataset")


def test_class_map_is_the_evaluations():
    section = compose_application("evaluate", ["dataset.class_map=position", "dataset.length=3"]).dataset
    assert len(config.build_dataset(section)) == 3


def function(first: object, batch_size: int = 1, limit: int | None = None, lr: float = 0.1, flip: bool = False):
    return first, batch_size, limit, lr, flip


def test_call_takes_what_a_function_knows_by_name():
    values = config.call(function, {"batch_size": 3, "lr": 1, "other": 5, "first": 0}, first="x")
    assert values == ("x", 3, None, 1, False)


WRONG = {"batch_size": (0, -1, "many", 2.5, True, None), "limit": (0, "3"), "lr": ("fast", True), "flip": ("maybe", 1)}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_call_refuses_values_of_a_wrong_kind(name, value):
    with pytest.raises(UserError, match=name):
        config.call(function, {name: value}, first=0)


OWN = {"_target_": "wsol.datasets.TinyImageNet", "root": "/x"}
FOREIGN = {
    "a function of pandas": {"dataset": {"_target_": "pandas.read_pickle", "filepath_or_buffer": "x.pkl"}},
    "inside an own one": {"dataset": OWN | {"root": {"_target_": "os.getcwd"}}},
    "an own one inside": {"dataset": OWN | {"root": OWN}},
    "in a list": {"training": {"stages": [{}, {"dataset": {"_target_": "shutil.copy"}}]}},
    "not ours to build": {"model": {"_target_": "wsol.models.save_checkpoint", "path": "x"}},
    "by another way": {"dataset": {"_target_": "wsol.datasets.sample.Path"}},
    "a method's function": {"methods": {"cam": {"_target_": "wsol.heatmaps.make_method", "function": "os.system"}}},
    "Hydra's other keys": {"dataset": OWN | {"_partial_": True}},
    "code of a hub": {"model": {"_target_": "wsol.models.tiny_resnet18", "trust_remote_code": True}},
    "a variable": {"dataset": OWN | {"root": "${oc.env:HOME}"}},
    "a variable in a list": {"methods": {"cam": {"layer": ["a", "${oc.env:HOME}"]}}},
}


@pytest.mark.parametrize("recorded", FOREIGN.values(), ids=FOREIGN)
def test_what_a_folder_names_and_is_not_ours_is_refused(tmp_path: Path, recorded: dict[str, Any]) -> None:
    write_yaml(tmp_path / "config.yaml", recorded)
    with pytest.raises(UserError, match=next(iter(recorded))):
        resume_config(tmp_path, {"dataset": OWN}, [], ())
    if "variable" not in str(recorded) and "${" not in str(recorded):  # the same given again is fine
        assert resume_config(tmp_path, recorded, [], ()) == recorded


def test_a_run_is_resumed_with_its_own_configuration(tmp_path: Path) -> None:
    recorded = {"dataset": OWN, "seed": 3, "workers": 2, "training": {"epochs": 2, "lr": 1.0}}
    write_yaml(tmp_path / "config.yaml", recorded)
    now = {"dataset": OWN | {"root": "/y"}, "seed": 0, "workers": 0, "training": {"epochs": 9, "lr": 0.1}, "new": 1}
    resumed = resume_config(tmp_path, now, ["workers=0", "training.epochs=9"], ("workers", "training"))
    assert resumed == recorded | {"workers": 0, "training": {"epochs": 9, "lr": 1.0}, "new": 1}
    for word in ("seed=0", "dataset.root=/y", "dataset=tiny_imagenet", "+experiment/train=x"):
        with pytest.raises(UserError, match=r"seed=0|dataset.*/y"):
            resume_config(tmp_path, now, [word], ("workers", "training"))
