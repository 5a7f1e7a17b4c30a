"""From an exception about options, keys or values to one message: what was wrong, where, and what to do."""

import re
from collections.abc import Mapping
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


def is_user_error(error: BaseException) -> bool:
    """Whether a message will do; anything else is shown with its traceback."""
    return isinstance(error, UserError | HydraException | OmegaConfBaseException | yaml.YAMLError)


def exit_code(error: BaseException) -> int:
    """What the program exits with: 2 for what the user can fix, 1 for faulty data and for anything else."""
    return int(getattr(error, "exit_code", 2 if is_user_error(error) else 1))


def explain_error(error: BaseException, request: Request) -> str:
    """Say in words what the user can fix; in Hydra's own where they are good."""
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
        return f"unknown key {unknown[1]!r}{_hint(unknown[1], request)} (+{unknown[1]}=… adds a key that is not there)"
    return ": ".join(str(part).splitlines()[0] for part in (text, error.__cause__) if part)


def _unreadable(override: str) -> str:
    key, _, value = override.partition("=")
    quoted = f"""'{key}="{value.strip(chr(34) + chr(39))}"'"""
    return (
        f"{override}: this value can't be read. Characters such as ( ) ' \" # & = ! ~ , and letters "
        f"beyond ASCII need quotes inside the shell's own: {quoted}"
    )


def _no_such_option(missing: str, request: Request) -> str:
    group, _, name = missing.removesuffix(".yaml").rpartition("/")
    kind, folder = group.split("/")[0], request.config_dir
    if group == "hydra/launcher":
        plugins = "hydra-joblib-launcher and hydra-submitit-launcher"
        return f"{group}={name}: no such launcher is installed; pip install 'wsol[launchers]' brings {plugins}"
    for other in COMMANDS if kind == "experiment" else ():
        if name in group_options(f"experiment/{other}", folder):
            return f"experiment={name} is a preset of wsol {other}, not of wsol {request.command}"
    options = group_options(group, folder)
    own = f" (one of your own is a file {group}/{name}.yaml in the folder of --config-dir)"
    return f"{kind or 'config-name'}={name}: there is no such file{own}{suggest(name, options)}"


def _hint(key: str, request: Request) -> str:
    """Where a key that does not exist may have been meant to lead."""
    groups = [group.split("/")[0] for group in application_groups(request.command, request.config_dir)]
    if (conf_dir() / key).is_dir():
        return f": wsol {request.command} has no {key} to choose. Its groups are {', '.join(groups)}"
    tree = _compose_without(key, request)
    section, _, rest = key.partition(".")
    chosen = tree.get(section)
    if section in ("methods", "protocols") and rest and rest.split(".")[0] not in (chosen or {}):
        more = f"'+{section[:-1]}=[{rest.split('.')[0]}]'"
        return f": this run's {section} are {', '.join(chosen or {}) or 'none'}. Choose it as well: {more}"
    keys = _dotted(tree)
    tails = [name.rsplit(".", 1)[-1] for name in keys]
    alike = closest(key.rsplit(".", 1)[-1], tails)
    near = closest(key, [*keys, *groups]) + [name for name, tail in zip(keys, tails, strict=True) if tail in alike]
    return f"; did you mean {', '.join(list(dict.fromkeys(near))[:4])}?" if near else "; --cfg job shows them all"


def _compose_without(key: str, request: Request) -> dict[str, Any]:
    """The configuration without the override of this key, or at least without any."""
    others = [word for word in request.overrides if word.lstrip("+~").partition("=")[0] != key]
    try:
        config = compose_application(request.command, others, request.config_dir)
    except (HydraException, OmegaConfBaseException):
        config = compose_application(request.command)
    return OmegaConf.to_container(config, resolve=False)  # type: ignore[return-value]


def _dotted(node: Any, above: str = "") -> list[str]:
    """Every key of a configuration, nested ones with dots."""
    names = {f"{above}{key}": value for key, value in node.items()} if isinstance(node, Mapping) else {}
    return [name for key, value in names.items() for name in (key, *_dotted(value, f"{key}."))]
