"""From an exception about options, keys or values to one message: what was wrong, where, and what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wsol.commands import COMMANDS
from wsol.commands.options import application_groups, compose_application, group_options
from wsol.commands.request import Request
from wsol.errors import UserError, closest, suggest
from wsol.io import conf_dir

__all__ = ["exit_code", "explain_error", "is_user_error"]

LAUNCHERS = {"joblib": "hydra-joblib-launcher", "submitit_slurm": "hydra-submitit-launcher"}


def is_user_error(error: BaseException) -> bool:
    """Whether a message will do; anything else is shown with its traceback."""
    return isinstance(error, UserError | HydraException | OmegaConfBaseException | yaml.YAMLError)


def exit_code(error: BaseException) -> int:
    """What the program exits with: 2 for what the user can fix, 1 for faulty data and for anything else."""
    return int(getattr(error, "exit_code", 2 if is_user_error(error) else 1))


def explain_error(error: BaseException, request: Request) -> str:
    """Say in words what the user can fix; Hydra's own where they are good."""
    text = str(error).strip()
    if isinstance(error, UserError):
        return text
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_option(error.missing_cfg_file, request)
    if isinstance(error, yaml.YAMLError):
        return f"a configuration file is not valid YAML: {text}"
    if "requires --multirun" in text or text.startswith("Ambiguous value"):
        return (
            f"{text.split(chr(39))[1]}: a comma makes a sweep. For one job per value add -m; for one job with several "
            f"options write a list, 'method=[a,b]'; a comma inside a text needs inner quotes, 'key=\"a,b\"'"
        )
    unknown = re.match(r"Could not (?:override|delete from config\.) '(.+?)'", text)
    if unknown:
        return f"unknown key {unknown[1]!r}" + _hint(unknown[1], request)
    causes = [text.splitlines()[0].rstrip(".:") if text else type(error).__name__]
    if error.__cause__ is not None and str(error.__cause__) not in text:
        causes.append(str(error.__cause__).splitlines()[0])
    return ": ".join(causes)


def _unreadable(override: str) -> str:
    key, _, value = override.partition("=")
    quoted = f"""'{key}="{value.strip(chr(34) + chr(39))}"'"""
    return (
        f"{override}: this value can't be read. Characters such as ( ) ' \" # & = ! ~ , and letters "
        f"beyond ASCII need quotes inside the shell's own: {quoted}"
    )


def _no_such_option(missing: str, request: Request) -> str:
    group, _, name = missing.removesuffix(".yaml").rpartition("/")
    if group == "hydra/launcher":
        needed = LAUNCHERS.get(name, ", ".join(LAUNCHERS.values()))
        return f"{group}={name}: no such launcher is installed; {needed} is: pip install 'wsol[launchers]'"
    if not group:
        return f"there is no application file {name}.yaml in {conf_dir()} or the folder of --config-dir"
    kind = group.split("/")[0]
    options = group_options(group, request.config_dir)
    if kind == "experiment":
        for other in COMMANDS:
            if name in group_options(f"experiment/{other}", request.config_dir):
                own = ", ".join(options) or "none"
                return f"experiment={name} is a preset of wsol {other}, not of wsol {request.command} (its own: {own})"
    if not options:
        return f"{kind}={name}: " + _no_such_group(kind, request)
    return (
        f"{kind}={name}: there is no such {kind}{suggest(name, options)} "
        f"One of your own is a file {group}/{name}.yaml in the folder of --config-dir"
    )


def _no_such_group(group: str, request: Request) -> str:
    groups = [name.split("/")[0] for name in application_groups(request.command, request.config_dir)]
    return f"wsol {request.command} has no {group} to choose. Its groups are {', '.join(groups)}"


def _hint(key: str, request: Request) -> str:
    """Where a key that does not exist may have been meant to lead."""
    first, _, rest = key.partition(".")
    groups = [name.split("/")[0] for name in application_groups(request.command, request.config_dir)]
    if (conf_dir() / key).is_dir() and key not in groups:
        return ": " + _no_such_group(key, request)
    tree = _composed(key, request)
    keys = _dotted(tree)
    if first in ("method", "protocol"):
        examples = [name for name in keys if name.startswith(f"{first}s.") and name.endswith(f".{rest}")]
        example = (examples or [f"{first}s.NAME.{rest or 'KEY'}"])[0]
        return f": {first}=NAME chooses an option; its keys are {first}s.NAME.…, such as {example}"
    if first in ("methods", "protocols") and rest.split(".")[0] not in tree.get(first, {}):
        there, name = ", ".join(tree.get(first, {})) or "none", rest.split(".")[0]
        return f": this run's {first} are {there}. Choose it as well: '+{first[:-1]}=[{name}]'"
    tail, last = key.rsplit(".", 1)[-1], {name: name.rsplit(".", 1)[-1] for name in keys}
    near = closest(key, [*keys, *groups]) + [name for name in keys if last[name] == tail]
    near += [name for name in keys if last[name] in closest(tail, last.values())]
    meant = f"; did you mean {', '.join(list(dict.fromkeys(near))[:4])}?" if near else "; --cfg job shows them all."
    return f"{meant} (+{key}=… adds a key that is not there)"


def _composed(key: str, request: Request) -> dict[str, Any]:
    """The configuration without the override of this key, or at least without any."""
    others = [word for word in request.overrides if word.lstrip("+~").partition("=")[0] != key]
    for overrides in (others, ()):
        try:
            config = compose_application(request.command, overrides, request.config_dir)
        except (HydraException, OmegaConfBaseException):
            continue
        return OmegaConf.to_container(config, resolve=False)  # type: ignore[return-value]
    return {}


def _dotted(node: Any, above: str = "") -> Sequence[str]:
    """Every key of a configuration, nested ones with dots."""
    if not isinstance(node, Mapping):
        return []
    names = {f"{above}{key}": value for key, value in node.items()}
    return [name for key, value in names.items() for name in (key, *_dotted(value, f"{key}."))]
