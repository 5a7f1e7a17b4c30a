"""Bash completion: Hydra completes groups and keys; here the command and the flags are taken care of."""

import io
import os
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace

from wsol.commands import COMMANDS
from wsol.commands.options import application_groups
from wsol.commands.request import FLAGS, Request, read_words
from wsol.errors import UserError
from wsol.io import conf_dir


def complete(line: str, run_hydra: Callable[[Request], None]) -> list[str]:
    """Words that may stand where a line such as "wsol train model=res" is being typed."""
    words = line.split()[1:]
    word = "" if not words or line[-1:].isspace() else words.pop()
    if word.startswith("-"):
        return [flag for flag in FLAGS if flag.startswith(word)]
    try:
        request = read_words(words)
    except UserError:  # half a line need not make sense
        request = read_words([])
    choices = _hydras_choices(request, re.sub("^experiment=", f"experiment/{request.command}=", word), run_hydra)
    choices = [re.sub("^experiment/.*?(=|$)", "experiment=", choice) for choice in choices]
    groups = [group.split("/")[0] for group in application_groups(request.command, request.config_dir)]
    elsewhere = {path.name for path in conf_dir().iterdir() if path.is_dir()}.difference(groups)
    choices = [choice for choice in choices if re.split("[=/]", choice.lstrip("+~"))[0] not in elsewhere]
    if "=" not in word and not request.overrides and not set(words) & set(COMMANDS):
        choices += [name for name in COMMANDS if name.startswith(word)]
    return sorted(set(choices))


def _hydras_choices(request: Request, word: str, run_hydra: Callable[[Request], None]) -> list[str]:
    """Ask Hydra's own completion, which reads the line from the environment: without the command and our flags."""
    sweep = ["-m"] if request.flags.multirun else []
    os.environ["COMP_LINE"] = " ".join(["wsol", *sweep, *request.overrides, word])
    folder = [] if request.config_dir is None else ["-cd", str(request.config_dir)]
    with redirect_stdout(io.StringIO()) as answer:
        run_hydra(replace(request, flag_words=("-sc", *folder), overrides=("query=bash",)))
    return answer.getvalue().split()
