"""From an exception about options, keys or values to one message: what was wrong, where, and what to do."""

import re
from collections.abc import Mapping
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wsol.commands.options import application_groups, compose_application, group_options
from wsol.commands.request import Request
from wsol.errors import UserError, closest, suggest
from wsol.io import conf_dir


def is_user_error(error: BaseException) -> bool:
    """Whether a message will do; anything else is shown with its traceback."""
    return isinstance(error, UserError | HydraException | OmegaConfBaseException | yaml.YAMLError)


def exit_code(error: BaseException) -> int:
    """What the program exits with: 2 for what the user can fix, 1 for faulty data and for anything else."""
    return int(getattr(error, "exit_code", 2 if is_user_error(error) else 1))


def explain_error(error: BaseException, request: Request) -> str:
    """Say in words what the user can fix; in Hydra's own, on one line, where they are good."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        quoted = f"""'{key}="{value.strip(chr(34) + chr(39))}"'"""
        return f"{error.override}: this value can't be read; it needs quotes inside the shell's own: {quoted}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_option(error.missing_cfg_file.removesuffix(".yaml"), request)
    unknown = re.match(r"Could not (?:override|delete from config\.) '(.+?)'", str(error))
    if unknown:
        return f"unknown key {unknown[1]!r}{_hint(unknown[1], request)} (+{unknown[1]}=… adds a key that is not there)"
    return ": ".join(" ".join(str(part).split()) for part in (error, error.__cause__) if part)


def _no_such_option(file: str, request: Request) -> str:
    group, _, name = file.rpartition("/")
    if group == "hydra/launcher":
        return f"{group}={name}: no such launcher is installed; pip install 'wsol[launchers]' brings joblib and Slurm"
    options = group_options(group, request.config_dir)
    return f"{group}={name}: there is no such file, here or in --config-dir{suggest(name, options)}"


def _hint(key: str, request: Request) -> str:
    """Where a key that does not exist may have been meant to lead."""
    groups = application_groups(request.command, request.config_dir)
    if (conf_dir() / key).is_dir():
        return f": wsol {request.command} has no {key} to choose. Its groups are {', '.join(groups)}"
    others = [word for word in request.overrides if word.lstrip("+~").partition("=")[0] != key]
    try:
        config = compose_application(request.command, others, request.config_dir)
    except (HydraException, OmegaConfBaseException):  # other overrides are wrong as well
        config = compose_application(request.command)
    section, *rest = key.split(".")
    chosen = config.get(section) or {}
    if section in ("methods", "protocols") and rest and rest[0] not in chosen:
        return f": this run's {section} are {', '.join(chosen)}; choose it as well, '+{section[:-1]}=[{rest[0]}]'"
    keys = _dotted(OmegaConf.to_container(config, resolve=False))
    tails = {name: name.rsplit(".", 1)[-1] for name in keys}
    alike = closest(key.rsplit(".", 1)[-1], tails.values())
    near = closest(key, [*keys, *groups]) + [name for name in keys if tails[name] in alike]
    return f"; did you mean {', '.join(list(dict.fromkeys(near))[:4])}?" if near else "; --cfg job shows them all"


def _dotted(node: Any, above: str = "") -> list[str]:
    """Every key of a configuration, nested ones with dots."""
    names = {f"{above}{key}": value for key, value in node.items()} if isinstance(node, Mapping) else {}
    return [name for key, value in names.items() for name in (key, *_dotted(value, f"{key}."))]
