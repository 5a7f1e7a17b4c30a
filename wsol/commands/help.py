"""What `wsol COMMAND --help` prints: all that can be chosen, as the files in conf/ say it."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from wsol.commands import COMMANDS
from wsol.commands.request import Request, application_groups, group_options
from wsol.heatmaps.method import FAMILIES, method_cards
from wsol.io import conf_dir

FLAGS = (
    ("-m, --multirun", "a sweep: one job for each combination of a,b,c"),
    ("-c, --cfg job|hydra|all", "show the configuration instead of running"),
    ("-i, --info", "show where it comes from"),
    ("-cd, --config-dir FOLDER", "a folder with options, datasets, models and methods of your own"),
    ("--debug", "show the traceback of an error"),
    ("-V, --version", "show the version"),
    ("--hydra-help", "flags of Hydra itself"),
    ("-h, --help", "show this"),
)


def help_text(request: Request) -> str:
    """Usage, groups with their options, keys with their defaults, flags; commands where none was typed."""
    command = request.command
    at_the_top = command not in shlex.split(request.line)
    program = "wsol" if command == COMMANDS[0] else f"wsol {command}"
    abouts = {name: (conf_dir() / f"{name}.yaml").read_text("utf-8").partition("\n")[0][2:] for name in COMMANDS}
    named = {COMMANDS[0]: f"{COMMANDS[0]} (default)"}
    commands = _columns((named.get(name, name), abouts[name]) for name in COMMANDS)
    groups = application_groups(command, request.config_dir)
    several = "; 'method=[a,b]' takes several, +method=[c] adds one" if "method" in groups else ""
    sections = {
        f"wsol {command}: {abouts[command]}": [],
        f"Usage: {program} [group=option] [key=value] [flags]": [],
        **({"Commands (wsol COMMAND --help):": commands} if at_the_top else {}),
        f"Groups (group=option{several}):": _columns(_group_rows(groups, request.config_dir)),
        "Keys (key=value; one inside another is above.key=value), with their defaults:": _keys(command),
        "Flags, before or after:": _columns(FLAGS),
        f"An option's own keys: {program} --cfg job. In a sweep (-m) key=a,b makes two jobs, one table over both.": [],
        'Bash completion: eval "$(wsol -sc install=bash)"': [],
    }
    return "\n\n".join("\n".join([title, *lines]) for title, lines in sections.items())


def _group_rows(groups: Mapping[str, str], config_dir: Path | None) -> list[tuple[str, str]]:
    """Each group with its options; the many methods by family."""
    rows, cards = [], method_cards()
    for group, folder in groups.items():
        families: dict[str, list[str]] = {f"{family}: ": [] for family in (*FAMILIES, "baseline") if group == "method"}
        for name in group_options(folder, config_dir):
            family = "" if group != "method" else f"{cards[name].family}: " if name in cards else "your own: "
            families.setdefault(family, []).append(name)
        first, *others = (family + ", ".join(names) for family, names in families.items() if names)
        rows += [(group, first), *(("", line) for line in others)]
    return rows


def _keys(command: str) -> list[str]:
    """The lines in which a command's file, and the one common to all, explain their keys."""
    lines = []
    for name in (command, "common"):
        _, *blocks = (conf_dir() / f"{name}.yaml").read_text("utf-8").split("\n\n")
        lines += [line for block in blocks if not block.startswith("hydra:") for line in block.splitlines()]
    first_lines: dict[str, str] = {}  # a command's own default of a common key is the one that counts
    for line in lines:
        if not line.endswith(": {}"):
            first_lines.setdefault(line.partition(":")[0], f"  {line}")
    return list(first_lines.values())


def _columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    pairs = list(rows)
    width = max(len(left) for left, _ in pairs)
    return [f"  {left:{width}}  {right}".rstrip() for left, right in pairs]
