"""Words typed behind `wsol`: taken apart, what they may choose from, and what to say where they are wrong."""

from __future__ import annotations

import logging
import re
import shlex
from argparse import ArgumentError, Namespace
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wsol.commands import COMMANDS
from wsol.errors import UserError, closest, suggest
from wsol.io import conf_dir

if TYPE_CHECKING:
    from omegaconf import DictConfig


logger = logging.getLogger("wsol")


def group_options(group: str, config_dir: Path | None = None) -> dict[str, Path]:
    """Options of a group and their files; where both folders have a name, ours is taken, as Hydra does."""
    folders = [conf_dir()] if config_dir is None else [config_dir, conf_dir()]
    files = [path for folder in folders for path in (folder / group).glob("*.yaml")]
    return {path.stem: path for path in sorted(files, key=lambda path: path.stem)}


def application_groups(command: str, config_dir: Path | None = None) -> dict[str, str]:
    """Groups that a command chooses from → their folders, such as `experiment/train`, where these hold options."""
    content = yaml.safe_load((conf_dir() / f"{command}.yaml").read_text(encoding="utf-8"))
    groups = [next(iter(entry)) for entry in content["defaults"] if isinstance(entry, dict)]
    return {group.split("/")[0]: group for group in groups if group_options(group, config_dir)}


def compose_application(command: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> DictConfig:
    """Compose a command's configuration, with Hydra's own part, as for a sweep: keys of `key=a,b` stay as they are."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    words, in_job = [*overrides, *search_path(config_dir)], GlobalHydra.instance().is_initialized()
    with nullcontext() if in_job else initialize_config_dir(str(conf_dir()), version_base="1.3", job_name=command):
        return GlobalHydra.instance().hydra.compose_config(command, words, run_mode=RunMode.MULTIRUN)  # type: ignore[union-attr]


def search_path(config_dir: Path | None) -> list[str]:
    """The override by which Hydra looks for options in the user's folder too."""
    return [] if config_dir is None else [f"hydra.searchpath=['file://{config_dir}']"]


def check_config_dir(folder: Path) -> None:
    """Refuse options whose content would silently go elsewhere; warn of those that ours of the same name hide."""
    for group in ("method", "protocol"):
        for path in sorted((folder / group).glob("*.yaml")):
            first, _, _ = path.read_text(encoding="utf-8").partition("\n")
            header = f"# @package {group}s.{path.stem}"
            if first.rstrip() not in (header, "# @package _global_"):
                must = f"it must be {header!r}, with nothing above or behind it"
                raise UserError(f"{path}: its first line is {first!r}; {must}")
    for path in sorted(path.relative_to(folder) for path in folder.rglob("*.yaml")):
        if (conf_dir() / path).is_file():
            logger.warning("%s is hidden by our own %s: give it another name", folder / path, path)


OURS = ("--debug", "-V", "--version")
FLAGS = (*get_args_parser()._option_string_actions, *OURS[:2])
ALONE = {"train": "experiment=shapes"}  # what a command runs with when nothing is chosen


@dataclass(frozen=True)
class Request:
    """What was asked for; it travels with the job, also to other processes."""

    command: str
    flags: Namespace  # Hydra's
    overrides: list[str]  # key=value, +key=value, ~key
    line: str  # all that was typed

    @property
    def config_dir(self) -> Path | None:
        """The user's own folder of options."""
        folder = self.flags.config_dir
        return None if folder is None else Path(folder).expanduser().absolute()


def read_words(words: Sequence[str]) -> Request:
    """Take a command line apart with Hydra's own parser; a lone word is the command."""
    parser = get_args_parser()
    parser.exit_on_error, parser.allow_abbrev = False, False
    try:
        flags, unknown = parser.parse_known_intermixed_args([word for word in words if word not in OURS])
    except ArgumentError as error:
        raise UserError(str(error)) from error
    if unknown:
        raise UserError(f"unknown flag {unknown[0]}{suggest(unknown[0], FLAGS)}")
    positional = vars(flags).pop("overrides")
    overrides = [word for word in positional if "=" in word or word.startswith("~")]
    command, *others = [word for word in positional if word not in overrides] or COMMANDS[:1]
    if command not in COMMANDS:
        raise UserError(f"unknown command {command!r}, and options are written key=value{suggest(command, COMMANDS)}")
    if others:
        raise UserError(f"{others[0]!r} is neither key=value nor a flag, and the command is {command} already")
    chosen = {key_of(word) for word in overrides} & {"dataset", "model", "experiment"}
    if command in ALONE and not chosen and "resume=true" not in map(str.lower, overrides):
        overrides.insert(0, ALONE[command])
    overrides = [to_preset(expand_home(word), command) for word in overrides]
    return Request(command, flags, overrides, shlex.join(["wsol", *words]))


def expand_home(override: str) -> str:
    """Write out `~/` where a value, or one of several, begins with it, as a shell does for a word of its own."""
    key, equals, value = override.partition("=")
    home = str(Path.home())
    plain, quoted = re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", home), home.replace("\\", "\\\\")
    value = re.sub(r"(?:^|(?<=[\[,:(])|(?<=[,:] ))~(?=/|$)", lambda _: plain, value)
    return key + equals + re.sub(r"(?:^|(?<=[\[,:( ]))(['\"])~(?=/)", lambda match: match[1] + quoted, value)


def key_of(override: str) -> str:
    """Group or outermost key that an override changes."""
    return re.split(r"[=@/.]", override.lstrip("+~"))[0]


def to_preset(override: str, command: str) -> str:
    """Presets are kept per command: `experiment=x` means `experiment/train=x` in `wsol train`."""
    return re.sub(r"^(\+{0,2}|~)experiment(?=[=@]|$)", rf"\1experiment/{command}", override)


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
    plural = re.match(r"Error merging override (method|protocol)s=(.+)", str(error))
    if plural:
        return f"{plural[1]}s={plural[2]} chooses none: write '{plural[1]}={plural[2]}'"
    unknown = re.match(r"Could not (?:override|delete from config\.) '(.+?)'", str(error))
    if unknown:
        return f"unknown key {unknown[1]!r}{_hint(unknown[1], request)} (+{unknown[1]}=… adds a key that is not there)"
    return ": ".join(" ".join(str(part).split()) for part in (error, error.__cause__) if part)


def _no_such_option(file: str, request: Request) -> str:
    group, _, name = file.rpartition("/")
    if group == "hydra/launcher":
        return f"{group}={name}: no such launcher; pip install 'wsol[launchers,ray]' brings joblib, Slurm, Ray"
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
