"""Words typed behind `wsol`, taken apart: a command, flags and overrides, in any order."""

import re
import shlex
from argparse import ArgumentError, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.utils import get_args_parser

from wsol.commands import COMMANDS
from wsol.errors import UserError, suggest

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
        return None if folder is None else Path(folder).absolute()


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
    if command in ALONE and not {key_of(word) for word in overrides} & {"dataset", "model", "experiment"}:
        overrides.insert(0, ALONE[command])
    overrides = [to_preset(word, command) for word in overrides]
    return Request(command, flags, overrides, shlex.join(["wsol", *words]))


def key_of(override: str) -> str:
    """Group or outermost key that an override changes."""
    return re.split(r"[=@/.]", override.lstrip("+~"))[0]


def to_preset(override: str, command: str) -> str:
    """Presets are kept per command: `experiment=x` means `experiment/train=x` in `wsol train`."""
    return re.sub(r"^(\+{0,2}|~)experiment(?=[=@]|$)", rf"\1experiment/{command}", override)
