"""Words typed behind `wsol`, taken apart: a command, flags and overrides, in any order."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.utils import get_args_parser

from wsol.commands import COMMANDS
from wsol.errors import UserError, suggest

OURS = ("--debug", "--version", "-V")
FLAGS = (*get_args_parser()._option_string_actions, "--debug", "-V")


@dataclass(frozen=True)
class Request:
    """What was asked for; it travels with the job, also to other processes.

    `flags` are Hydra's, also as the words that were typed; `overrides` are `key=value`, `+key=value` and `~key`, and
    `line` is all of it.
    """

    command: str
    flags: argparse.Namespace
    flag_words: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    line: str = "wsol"

    @property
    def config_dir(self) -> Path | None:
        """The user's own folder of options."""
        folder = self.flags.config_dir
        return None if folder is None else Path(folder).absolute()


def read_words(words: Sequence[str]) -> Request:
    """Take a command line apart with Hydra's own parser; a lone word is the command."""
    parser = get_args_parser()
    parser.exit_on_error, parser.allow_abbrev = False, False
    line, words = shlex.join(["wsol", *words]), [word for word in words if word not in OURS]
    try:
        flags, unknown = parser.parse_known_intermixed_args(words)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    if unknown:
        raise UserError(f"unknown flag {unknown[0]}{suggest(unknown[0], FLAGS)}")
    positional = vars(flags).pop("overrides")
    flag_words = tuple(word for word in words if word not in positional)
    overrides = tuple(word for word in positional if "=" in word or word.startswith("~"))
    command, *others = [word for word in positional if word not in overrides] or COMMANDS[:1]
    if command not in COMMANDS:
        raise UserError(f"unknown command {command!r}, and options are written key=value{suggest(command, COMMANDS)}")
    if others:
        raise UserError(
            f"{others[0]!r} is neither key=value nor a flag; the command is {command} already. "
            f"A value with spaces needs quotes: 'key=\"a value\"'"
        )
    return Request(command, flags, flag_words, overrides, line)
