"""What can be chosen: groups, their options, and keys, read from the folders of configuration files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from wsol.command_line.arguments import FLAGS
from wsol.errors import UserError
from wsol.io import conf_dir

__all__ = [
    "Key",
    "application_groups",
    "application_keys",
    "check_headers",
    "conf_folders",
    "group_options",
    "help_text",
    "shadowed",
]

KEY_LINE = re.compile(r"^(?P<indent> *)(?P<name>\w+):(?: +(?P<value>[^#]*?))?(?:\s+#\s+(?P<comment>.*))?$")


@dataclass(frozen=True)
class Key:
    """One key of an application's file, with its default and what its comment says."""

    name: str
    default: str
    comment: str


def conf_folders(config_dir: Path | None = None) -> list[Path]:
    """Folders that options come from: ours, then the user's."""
    return [conf_dir(), *([config_dir] if config_dir is not None and config_dir.is_dir() else [])]


def group_options(group: str, config_dir: Path | None = None) -> dict[str, Path]:
    """Options of a group and their files; where both folders have a name, ours is taken, as Hydra does.

    Examples
    --------
    >>> list(group_options("launcher"))
    ['joblib', 'slurm', 'submitit_slurm']
    """
    found: dict[str, Path] = {}
    for folder in conf_folders(config_dir):
        for path in sorted((folder / group).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def application_groups(command: str, config_dir: Path | None = None) -> list[str]:
    """Groups that an application chooses from, in the order of its file: `dataset`, …, `experiment/train`.

    A group for which no folder holds an option is left out.
    """
    content = yaml.safe_load((conf_dir() / f"{command}.yaml").read_text(encoding="utf-8"))
    named = [next(iter(entry)) for entry in content["defaults"] if isinstance(entry, dict)]
    groups = [name for name in named if not name.startswith("override ")]
    return [name for name in groups if group_options(name, config_dir)]


def application_keys(command: str) -> list[Key]:
    """Keys that an application's own file explains, nested ones with dots.

    Examples
    --------
    >>> [key.default for key in application_keys("evaluate") if key.name == "view"]
    ['squash']
    """
    keys: list[Key] = []
    seen: set[str] = set()  # an application's own default of a common key is the one that counts
    for name in (command, "common"):
        parents: list[tuple[int, str]] = []
        for line in (conf_dir() / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
            match = KEY_LINE.match(line)
            if match is None:
                continue
            indent = len(match["indent"])
            parents = [(depth, parent) for depth, parent in parents if depth < indent]
            dotted = ".".join([parent for _, parent in parents] + [match["name"]])
            if not match["value"]:
                parents.append((indent, match["name"]))
            elif not dotted.startswith("hydra") and (match["comment"] or parents) and dotted not in seen:
                seen.add(dotted)
                keys.append(Key(dotted, match["value"], match["comment"] or ""))
    return keys


def check_headers(folder: Path) -> None:
    """Refuse a method or protocol without the right package header: its content would silently go elsewhere.

    Parameters
    ----------
    folder : Path
        A folder of options.

    Raises
    ------
    UserError
        Naming the file, its first line and the one wanted.
    """
    for group in ("method", "protocol"):
        for path in sorted((folder / group).glob("*.yaml")):
            first = next(iter(path.read_text(encoding="utf-8").splitlines()), "")
            wanted = f"# @package {group}s.{path.stem}"
            if first.rstrip() not in (wanted, "# @package _global_"):
                raise UserError(
                    f"{path}: its first line is {first!r}; it must be {wanted!r}, with nothing above or behind it"
                )


def shadowed(config_dir: Path) -> list[str]:
    """Files of the user's folder that ours of the same name hide."""
    ours = conf_dir()
    files = sorted(path.relative_to(config_dir) for path in config_dir.rglob("*.yaml"))
    return [path.as_posix() for path in files if (ours / path).is_file()]


def help_text(command: str, commands: Sequence[tuple[str, str]], config_dir: Path | None = None) -> str:
    """What `wsol COMMAND --help` prints.

    Parameters
    ----------
    command : str
    commands : sequence of (name, one line)
        All applications, the one that runs by default first.
    config_dir : Path, optional
        The user's own options are listed too.
    """
    first = commands[0][0]
    lines = [f"wsol {command}: {dict(commands)[command]}", ""]
    lines += [
        f"Usage: wsol{'' if command == first else f' {command}'} [group=option] [key=value] [flags]",
        "",
    ]
    lines += ["Commands (wsol COMMAND --help):"]
    lines += _columns([(name + (" (default)" if name == first else ""), text) for name, text in commands])
    groups = application_groups(command, config_dir)
    several = "; 'method=[a,b]' takes several, +method=[c] adds one" if "method" in groups else ""
    lines += ["", f"Groups (group=option{several}):"]
    rows = [(g.split("/")[0], ", ".join(group_options(g, config_dir))) for g in groups]
    lines += _columns(rows)
    lines += ["", "Keys (key=value), with their defaults:"]
    lines += _columns([(f"{key.name}={key.default}", key.comment) for key in application_keys(command)])
    lines += ["", "Flags, before or after:"]
    lines += _columns([(_usage(name), text) for name, text in FLAG_TEXTS.items()] + [("-h, --help", "show this")])
    words = "wsol" if command == first else f"wsol {command}"
    lines += [
        "",
        f"An option's own keys: {words} --cfg job. In a sweep (-m) key=a,b makes two jobs, one table over both.",
        'Bash completion: eval "$(wsol -sc install=bash)"',
    ]
    return "\n".join(lines)


FLAG_TEXTS = {
    "--multirun": "a sweep: one job for each combination of a,b,c",
    "--cfg": "show the configuration instead of running",
    "--info": "show where it comes from",
    "--config-dir": "a folder with options, datasets, models and methods of your own",
    "--debug": "show the traceback of an error",
    "--version": "show the version",
    "--hydra-help": "flags of Hydra itself",
}


def _usage(name: str) -> str:
    short, takes = FLAGS[name]
    value = "|".join(takes) if isinstance(takes, tuple) and name != "--info" else "" if name == "--info" else takes
    return f"{f'{short}, ' if short else ''}{name}{f' {value}' if value else ''}"


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = min(max(len(left) for left, _ in rows), 34)
    return [f"  {left.ljust(width)}  {right}".rstrip() for left, right in rows]
