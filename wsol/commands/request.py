"""Words typed behind `wsol`, taken apart: a command, flags and overrides, in any order."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.utils import get_args_parser

from wsol.commands import COMMANDS
from wsol.errors import UserError, suggest

__all__ = ["FLAGS", "Request", "read_words"]

OURS = ("--debug", "--version", "-V")
FLAGS = (*get_args_parser()._option_string_actions, "--debug", "-V")


@dataclass(frozen=True)
class Request:
    """What was asked for; it travels with the job, also to other processes.

    `flags` are Hydra's, `overrides` are `key=value`, `+key=value` and `~key` in the order given, `line` is what was
    typed.
    """

    command: str
    flags: argparse.Namespace
    overrides: tuple[str, ...] = ()
    line: str = "wsol"

    @property
    def config_dir(self) -> Path | None:
        """The user's own folder of options."""
        folder = self.flags.config_dir
        return None if folder is None else Path(folder).expanduser().absolute()

    def for_hydra(self) -> list[str]:
        """Words in the one order that Hydra takes: flags with their values, then overrides."""
        words = []
        for name, value in vars(self.flags).items():
            if value not in (None, False):
                words.append("--" + name.replace("_", "-"))
                words += [] if value is True else [str(self.config_dir) if name == "config_dir" else value]
        return [*words, *self.overrides]


def read_words(words: Sequence[str]) -> Request:
    """Take a command line apart with Hydra's own parser; a lone word is the command."""
    parser = get_args_parser()
    parser.exit_on_error, parser.allow_abbrev = False, False
    try:
        flags, unknown = parser.parse_known_intermixed_args([word for word in words if word not in OURS])
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    if unknown:
        raise UserError(f"unknown flag {unknown[0]}" + suggest(unknown[0], FLAGS))
    overrides = vars(flags).pop("overrides")
    lone = [word for word in overrides if "=" not in word and not word.startswith("~")]
    if lone and lone[0] not in COMMANDS:
        raise UserError(f"unknown command {lone[0]!r}, and options are written key=value" + suggest(lone[0], COMMANDS))
    if lone[1:]:
        raise UserError(
            f"{lone[1]!r} is neither key=value nor a flag; the command is {lone[0]} already. "
            f"A value with spaces needs quotes: 'key=\"a value\"'"
        )
    settings = tuple(word for word in overrides if word not in lone)
    return Request(lone[0] if lone else COMMANDS[0], flags, settings, shlex.join(["wsol", *words]))
