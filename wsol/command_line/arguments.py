"""Words typed behind `wsol`, taken apart: a command, flags and overrides, in any order."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsol.errors import UserError

__all__ = ["Arguments", "nearest", "parse_arguments"]

# Flag → (short form, what follows it). A tuple: one of these words; a word in capitals: any; "": nothing.
FLAGS: dict[str, tuple[str, str | tuple[str, ...]]] = {
    "--help": ("-h", ""),
    "--version": ("-V", ""),
    "--debug": ("", ""),
    "--multirun": ("-m", ""),
    "--run": ("-r", ""),
    "--cfg": ("-c", ("job", "hydra", "all")),
    "--resolve": ("", ""),
    "--package": ("-p", "KEY"),
    "--info": ("-i", ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
    "--config-dir": ("-cd", "FOLDER"),
    "--config-name": ("-cn", "NAME"),
    "--config-path": ("-cp", "FOLDER"),
    "--shell-completion": ("-sc", ""),
    "--hydra-help": ("", ""),
    "--experimental-rerun": ("", "FILE"),
}
SHORT = {short: name for name, (short, _) in FLAGS.items() if short}
OURS = ("--help", "--version", "--debug")


@dataclass
class Arguments:
    """What was asked for.

    Parameters
    ----------
    command : str
        Name of the application.
    flags : dict
        Long name → value ("" for a flag without one).
    overrides : list of str
        `key=value`, `+key=value`, `~key`, in the order given.
    """

    command: str
    flags: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)

    @property
    def config_dir(self) -> Path | None:
        """The user's own folder of options."""
        folder = self.flags.get("--config-dir")
        return None if folder is None else Path(folder).expanduser().absolute()

    def for_hydra(self) -> list[str]:
        """Words in the one order that Hydra takes: flags with their values, then overrides."""
        words: list[str] = []
        for name, value in self.flags.items():
            if name in OURS:
                continue
            if name == "--config-dir":
                value = str(self.config_dir)
            words += [name, value] if value else [name]
        return words + self.overrides


def nearest(word: str, known: Sequence[str], most: int = 3) -> list[str]:
    """Names that somebody who typed `word` may have meant, best first.

    Examples
    --------
    >>> nearest("resnet51", ["resnet18", "resnet50", "vgg16_gap"])
    ['resnet50', 'resnet18']
    """
    return difflib.get_close_matches(word, known, n=most, cutoff=0.6)


def parse_arguments(words: Sequence[str], commands: Sequence[str]) -> Arguments:
    """Take a command line apart.

    Parameters
    ----------
    words : sequence of str
        Without the program's name.
    commands : sequence of str
        The applications; the first is meant where none is named.

    Raises
    ------
    UserError
        If a command or a flag is unknown, or a flag lacks its value.

    Examples
    --------
    >>> parse_arguments(["a=1", "train", "-m", "b=2,3", "-c", "job"], ["evaluate", "train"])
    Arguments(command='train', flags={'--multirun': '', '--cfg': 'job'}, overrides=['a=1', 'b=2,3'])
    """
    command: str | None = None
    found = Arguments(commands[0])
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if re.match(r"-{1,2}[A-Za-z]", word):
            name, equals, value = word.partition("=")
            name = _flag(name)
            takes = FLAGS[name][1]
            if takes and not equals:
                value = _value(name, takes, queue)
            if equals and not takes:
                raise UserError(f"{word}: {name} takes no value")
            if isinstance(takes, tuple) and value not in takes:
                raise UserError(f"{name} {value}: pass {_listed(takes)}")
            found.flags[name] = value
        elif "=" in word or word.startswith("~"):
            found.overrides.append(word)
        elif command is None:
            command = found.command = _command(word, commands)
        else:
            raise UserError(
                f"{word!r} is neither key=value nor a flag; the command is {command} already. "
                f"A value with spaces needs quotes: 'key=\"a value\"'"
            )
    return found


def _flag(name: str) -> str:
    if name in SHORT:
        return SHORT[name]
    meant = [flag for flag in FLAGS if flag == name] or [flag for flag in FLAGS if flag.startswith(name)]
    if len(meant) == 1 and name.startswith("--"):
        return meant[0]
    near = meant or nearest(name, [*FLAGS, *SHORT])
    raise UserError(
        f"unknown flag {name}" + (f"; did you mean {_listed(near)}?" if near else f"; there are {', '.join(FLAGS)}")
    )


def _value(name: str, takes: str | tuple[str, ...], queue: list[str]) -> str:
    if name == "--info":
        return queue.pop(0) if queue and queue[0] in takes else "all"
    if not queue or queue[0].startswith("-"):
        raise UserError(f"{name} needs a value: {_listed(takes) if isinstance(takes, tuple) else f'{name} {takes}'}")
    return queue.pop(0)


def _command(word: str, commands: Sequence[str]) -> str:
    if word in commands:
        return word
    near = difflib.get_close_matches(word, commands, n=1, cutoff=0.7)
    hint = (
        f"did you mean {_listed(near)}? There are {', '.join(commands)}" if near else f"there are {', '.join(commands)}"
    )
    raise UserError(f"unknown command {word!r}; {hint}. Options are written key=value")


def _listed(names: Sequence[str]) -> str:
    return " or ".join(([", ".join(names[:-1])] if len(names) > 1 else []) + [names[-1]])
