"""Bash completion: Hydra completes groups and keys, here the command and flags are taken care of."""

from __future__ import annotations

from collections.abc import Sequence

from wsol.command_line.arguments import FLAGS, Arguments, parse_arguments
from wsol.command_line.options import application_groups
from wsol.errors import UserError
from wsol.io import conf_dir

__all__ = ["complete", "prepare_line"]


def prepare_line(line: str, commands: Sequence[str]) -> tuple[Arguments, str, str]:
    """Read the line that is being typed.

    Parameters
    ----------
    line : str
        As in COMP_LINE: "wsol train model=res".
    commands : sequence of str

    Returns
    -------
    arguments : Arguments
        What stands before the word that is being typed.
    word : str
        That word, "" behind a blank.
    for_hydra : str
        The line as Hydra can read it: without the command, and of the flags only -m.

    Examples
    --------
    >>> prepare_line("wsol train -m experiment=sh", ("evaluate", "train"))[1:]
    ('experiment=sh', 'wsol -m experiment/train=sh')
    """
    words = line.split()[1:]
    word = "" if not words or line[-1:].isspace() else words.pop()
    try:
        arguments = parse_arguments(words, commands)
    except UserError:  # half a line need not make sense
        arguments = Arguments(commands[0])
    own = "experiment/" + arguments.command
    asked = word.replace("experiment=", f"{own}=", 1) if word.startswith("experiment=") else word
    sweep = ["-m"] if "--multirun" in arguments.flags else []
    return arguments, word, " ".join(["wsol", *sweep, *arguments.overrides, asked])


def complete(arguments: Arguments, word: str, found: Sequence[str], commands: Sequence[str]) -> list[str]:
    """Choose from Hydra's answers those of this application, and add commands and flags.

    Parameters
    ----------
    arguments, word
        From `prepare_line`.
    found : sequence of str
        What Hydra offers.
    commands : sequence of str
    """
    if word.startswith("-"):
        return [flag for flag in FLAGS if flag.startswith(word)]
    groups = application_groups(arguments.command, arguments.config_dir)
    everywhere = {path.name for path in conf_dir().iterdir() if path.is_dir()}
    foreign = everywhere - {group.split("/")[0] for group in groups}
    kept = []
    for choice in found:
        choice = choice.replace(f"experiment/{arguments.command}=", "experiment=").replace(
            "experiment/=", "experiment="
        )
        choice = "experiment=" if choice == "experiment/" else choice
        if choice.lstrip("+~").partition("=")[0].rstrip("/") not in foreign:
            kept.append(choice)
    if "=" not in word and not arguments.overrides:
        kept += [name for name in commands if name.startswith(word)]
    return sorted(set(kept))
