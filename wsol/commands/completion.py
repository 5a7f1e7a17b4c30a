"""Bash completion: Hydra completes groups and keys; here the command and the flags are taken care of."""

import re

from hydra import initialize_config_dir
from hydra._internal.core_plugins.bash_completion import BashCompletion
from hydra.core.global_hydra import GlobalHydra

from wsol.commands import COMMANDS
from wsol.commands.options import application_groups, search_path
from wsol.commands.request import FLAGS, Request, key_of, read_words, to_preset
from wsol.errors import UserError
from wsol.io import conf_dir


def complete(line: str) -> list[str]:
    """Words that may stand where a line such as "wsol train model=res" is being typed."""
    words = line.split()[1:]
    word = "" if not words or line[-1:].isspace() else words.pop()
    if word.startswith("-"):
        return [flag for flag in FLAGS if flag.startswith(word)]
    try:
        request = read_words(words)
    except UserError:  # half a line need not make sense
        request = read_words([])
    choices = [re.sub("^experiment/.*?(=|$)", "experiment=", choice) for choice in _hydras_choices(request, word)]
    groups = application_groups(request.command, request.config_dir)
    elsewhere = {path.name for path in conf_dir().iterdir() if path.is_dir()}.difference(groups)
    choices = [choice for choice in choices if key_of(choice) not in elsewhere]
    if not any("=" in typed or typed in COMMANDS for typed in (word, *words)):
        choices += [name for name in COMMANDS if name.startswith(word)]
    return sorted(set(choices))


def _hydras_choices(request: Request, word: str) -> list[str]:
    flags = ["-m"] if request.flags.multirun else []
    words = [*flags, *search_path(request.config_dir), *request.overrides, to_preset(word, request.command)]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        plugin = BashCompletion(GlobalHydra.instance().config_loader())
        return plugin._query(request.command, " ".join(words))
