"""Bash completion: Hydra completes groups and keys; here the command and the flags are taken care of."""

from __future__ import annotations

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

__all__ = ["complete"]


def complete(line: str, ask_hydra: Callable[[Request], None]) -> list[str]:
    """Words that may stand where a line such as "wsol train model=res" is being typed."""
    words = line.split()[1:]
    word = "" if not words or line[-1:].isspace() else words.pop()
    if word.startswith("-"):
        return [flag for flag in FLAGS if flag.startswith(word)]
    try:
        request = read_words(words)
    except UserError:  # half a line need not make sense
        request = read_words([])
    presets = f"experiment/{request.command}"
    choices = _hydras_words(request, re.sub("^experiment=", f"{presets}=", word), ask_hydra)
    choices = [re.sub("^experiment/.*?(=|$)", "experiment=", choice) for choice in choices]
    groups = {path.name for path in conf_dir().iterdir() if path.is_dir()}
    foreign = groups - {group.split("/")[0] for group in application_groups(request.command, request.config_dir)}
    choices = [choice for choice in choices if choice.lstrip("+~").partition("=")[0].rstrip("/") not in foreign]
    if "=" not in word and not request.overrides and not set(words) & set(COMMANDS):
        choices += [name for name in COMMANDS if name.startswith(word)]
    return sorted(set(choices))


def _hydras_words(request: Request, word: str, ask_hydra: Callable[[Request], None]) -> list[str]:
    """Ask Hydra's own completion, which reads the line from the environment: without the command and our flags."""
    sweep = ["-m"] if request.flags.multirun else []
    flags = read_words(["-sc"]).flags
    flags.config_dir = request.flags.config_dir
    before = os.environ.get("COMP_LINE")
    os.environ["COMP_LINE"] = " ".join(["wsol", *sweep, *request.overrides, word])
    try:
        with redirect_stdout(io.StringIO()) as answer:
            ask_hydra(replace(request, flags=flags, overrides=("query=bash",)))
    finally:
        os.environ.pop("COMP_LINE")
        os.environ.update({} if before is None else {"COMP_LINE": before})
    return answer.getvalue().split()
