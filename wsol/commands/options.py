"""What can be chosen: groups and their options, read from the folders of configuration files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from wsol.errors import UserError
from wsol.io import conf_dir

if TYPE_CHECKING:
    from omegaconf import DictConfig

logger = logging.getLogger("wsol")


def group_options(group: str, config_dir: Path | None = None) -> dict[str, Path]:
    """Options of a group and their files; where both folders have a name, ours is taken, as Hydra does."""
    folders = [conf_dir(), *([config_dir] if config_dir is not None else [])]
    files = [path for folder in reversed(folders) for path in (folder / group).glob("*.yaml")]
    return {path.stem: path for path in sorted(files, key=lambda path: path.stem)}


def application_groups(command: str, config_dir: Path | None = None) -> list[str]:
    """Groups that a command chooses from, in the order of its file: `dataset`, …, `experiment/train`.

    A group for which no folder holds an option is left out.
    """
    content = yaml.safe_load((conf_dir() / f"{command}.yaml").read_text(encoding="utf-8"))
    groups = [next(iter(entry)) for entry in content["defaults"] if isinstance(entry, dict)]
    return [group for group in groups if group_options(group, config_dir)]


def compose_application(
    command: str, overrides: Sequence[str] = (), config_dir: Path | None = None, with_hydra: bool = False
) -> DictConfig:
    """Compose a command's configuration, on demand with Hydra's own part, without running it."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    more = [f"hydra.searchpath=['file://{config_dir}']"] if config_dir is not None else []
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3", job_name=command):
            return compose(command, overrides=[*overrides, *more], return_hydra_config=with_hydra)
    finally:
        GlobalHydra.instance().hydra = before


def check_config_dir(folder: Path) -> None:
    """Refuse a method or protocol without the right package header: its content would silently go elsewhere.

    Warn of options that ours of the same name hide.
    """
    if not folder.is_dir():
        raise UserError(f"--config-dir {folder}: no such folder")
    for group in ("method", "protocol"):
        for path in sorted((folder / group).glob("*.yaml")):
            first, _, _ = path.read_text(encoding="utf-8").partition("\n")
            header = f"# @package {group}s.{path.stem}"
            if first.rstrip() not in (header, "# @package _global_"):
                raise UserError(
                    f"{path}: its first line is {first!r}; it must be {header!r}, with nothing above or behind it"
                )
    for path in sorted(path.relative_to(folder) for path in folder.rglob("*.yaml")):
        if (conf_dir() / path).is_file():
            logger.warning("%s is hidden by our own %s: give it another name", folder / path, path)
