"""From an exception about options, keys or values to one message: what was wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wsol.command_line.arguments import Arguments, nearest
from wsol.command_line.options import application_groups, group_options
from wsol.errors import UserError
from wsol.io import conf_dir

__all__ = ["compose_application", "exit_code", "explain", "is_users_to_mend"]

LAUNCHERS = {"joblib": "hydra-joblib-launcher", "submitit_slurm": "hydra-submitit-launcher"}


def is_users_to_mend(error: BaseException) -> bool:
    """Whether a message will do; anything else is shown with its traceback."""
    return isinstance(error, UserError | HydraException | OmegaConfBaseException | yaml.YAMLError)


def exit_code(error: BaseException) -> int:
    """What the program exits with: 2 for what the user can mend, 1 for faulty data and for anything else."""
    return int(getattr(error, "exit_code", 2 if is_users_to_mend(error) else 1))


def explain(error: BaseException, arguments: Arguments) -> str:
    """Say in words what the user can mend.

    Parameters
    ----------
    error : exception
    arguments : Arguments
        What was typed: the culprit is looked for among its overrides.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_option(str(error.missing_cfg_file), arguments)
    if isinstance(error, yaml.YAMLError):
        return f"a configuration file is not valid YAML: {error}"
    text = str(error).strip()
    if "requires --multirun" in text or text.startswith("Ambiguous value"):
        culprit = text.split("'")[1] if "'" in text else "the value"
        return (
            f"{culprit}: a comma makes a sweep. For one job per value add -m; for one job with several "
            f"options write a list, 'method=[a,b]'; a comma inside a text needs inner quotes, 'key=\"a,b\"'"
        )
    found = _unknown_key(arguments)
    if found:
        return found
    causes = [text.splitlines()[0].rstrip(".:") if text else type(error).__name__]
    if error.__cause__ is not None and str(error.__cause__) not in text:
        causes.append(str(error.__cause__).splitlines()[0])
    return ": ".join(causes)


def compose_application(command: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> Any:
    """Compose an application's configuration without running it.

    Parameters
    ----------
    command : str
        Name of a file in the configuration folder: "evaluate".
    overrides : sequence of str
    config_dir : Path, optional
        The user's folder of options.

    Returns
    -------
    DictConfig

    Examples
    --------
    >>> list(compose_application("evaluate", ["method=[full,cam]"]).methods)
    ['full', 'cam']
    """
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    more = [f"hydra.searchpath=['file://{config_dir}']"] if config_dir is not None else []
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3", job_name=command):
            return compose(command, overrides=[*overrides, *more])
    finally:
        GlobalHydra.instance().hydra = before


def _unreadable(error: OverrideParseException) -> str:
    key, _, value = error.override.partition("=")
    quoted = f"""'{key}="{value.strip(chr(34) + chr(39))}"'"""
    return (
        f"{error.override}: this value can't be read. Characters such as ( ) ' \" # & = ! ~ , and letters "
        f"beyond ASCII need quotes inside the shell's own: {quoted}"
    )


def _no_such_option(missing: str, arguments: Arguments) -> str:
    group, _, name = missing.removesuffix(".yaml").rpartition("/")
    if group == "hydra/launcher":
        if name in LAUNCHERS:
            return f"launcher={name} needs {LAUNCHERS[name]}: pip install 'wsol[launchers]'"
        plugins = ", ".join(sorted(set(LAUNCHERS.values())))
        return f"hydra/launcher={name}: no such launcher is installed; wsol[launchers] brings {plugins}"
    if not group:
        return f"there is no application file {name}.yaml in {conf_dir()} or the folder of --config-dir"
    options = list(group_options(group, arguments.config_dir))
    shown = group.split("/")[0]
    if not options:
        groups = [known.split("/")[0] for known in application_groups(arguments.command, arguments.config_dir)]
        there = f"wsol {arguments.command} has no {shown} to choose"
        return f"{shown}={name}: {there}. Its groups are {', '.join(groups)}"
    near = nearest(name, options)
    meant = f" Did you mean {', '.join(near)}?" if near else ""
    return (
        f"{shown}={name}: there is no such {shown}.{meant} There are {', '.join(options)}; "
        f"one of your own is a file {group}/{name}.yaml in the folder of --config-dir"
    )


def _unknown_key(arguments: Arguments) -> str | None:
    """Find the override whose key does not exist, and the nearest ones that do."""
    overrides = OverridesParser.create().parse_overrides(arguments.overrides)
    groups = application_groups(arguments.command, arguments.config_dir)
    everywhere = sorted(path.name for path in conf_dir().iterdir() if path.is_dir())
    chosen = [word for override in overrides for word in _choice(override, groups)]
    try:
        config = compose_application(arguments.command, chosen, arguments.config_dir)
    except (HydraException, OmegaConfBaseException):
        return None
    tree = OmegaConf.to_container(config, resolve=False)
    keys = _dotted(tree)
    for override in overrides:
        key = override.key_or_group
        if override.is_add() or key in groups or key.startswith("hydra") or key in keys:
            continue
        return f"unknown key {key!r}" + _hint(key, keys, groups, everywhere, arguments.command, tree)
    return None


def _hint(
    key: str, keys: Sequence[str], groups: Sequence[str], everywhere: Sequence[str], command: str, tree: Any
) -> str:
    first, _, rest = key.partition(".")
    shown = [group.split("/")[0] for group in groups]
    if key in everywhere and key not in shown:
        return f": wsol {command} has no {key} to choose. Its groups are {', '.join(shown)}"
    if first in ("method", "protocol"):
        own = [known for known in keys if known.startswith(f"{first}s.") and known.endswith(f".{rest}")]
        example = own[0] if own else f"{first}s.NAME.{rest or 'KEY'}"
        return f": {first}=NAME chooses an option; its keys are {first}s.NAME.…, such as {example}"
    if first in ("methods", "protocols") and isinstance(tree.get(first), Mapping):
        name = rest.split(".")[0]
        if name not in tree[first]:
            there = ", ".join(tree[first]) or "none"
            return f": this run's {first} are {there}. Choose it as well: '+{first[:-1]}=[{name}]'"
    last = key.rsplit(".", 1)[-1]
    near = nearest(key, [*keys, *shown])
    near += [known for known in keys if known.rsplit(".", 1)[-1] == last]
    near += [known for known in keys if known.rsplit(".", 1)[-1] in nearest(last, [k.rsplit(".", 1)[-1] for k in keys])]
    near = list(dict.fromkeys(near))[:4]
    meant = f"; did you mean {', '.join(near)}?" if near else f"; wsol {command} --cfg job shows them all."
    return f"{meant} (+{key}=… adds a key that is not there)"


def _choice(override: Override, groups: Sequence[str]) -> list[str]:
    if override.key_or_group not in groups or override.is_delete():
        return []
    if override.is_sweep_override():
        if not override.is_discrete_sweep():
            return []
        return [f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"]
    return [f"{override.get_key_element()}={override.get_value_element_as_str()}"]


def _dotted(node: Any, above: str = "") -> list[str]:
    found = []
    if isinstance(node, Mapping):
        for key, value in node.items():
            name = f"{above}.{key}" if above else str(key)
            found += [name, *_dotted(value, name)]
    return found
