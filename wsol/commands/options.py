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
    folders = [conf_dir()] if config_dir is None else [config_dir, conf_dir()]
    files = [path for folder in folders for path in (folder / group).glob("*.yaml")]
    return {path.stem: path for path in sorted(files, key=lambda path: path.stem)}


def application_groups(command: str, config_dir: Path | None = None) -> dict[str, str]:
    """Groups that a command chooses from → their folders, such as `experiment/train`, where these hold options."""
    content = yaml.safe_load((conf_dir() / f"{command}.yaml").read_text(encoding="utf-8"))
    groups = [next(iter(entry)) for entry in content["defaults"] if isinstance(entry, dict)]
    return {group.split("/")[0]: group for group in groups if group_options(group, config_dir)}


def compose_application(command: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> DictConfig:
    """Compose a command's configuration, with Hydra's own part, as for a sweep: keys of `key=a,b` stay as they are."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    words = [*overrides, *search_path(config_dir)]
    with initialize_config_dir(str(conf_dir()), version_base="1.3", job_name=command):
        return GlobalHydra.instance().hydra.compose_config(command, words, run_mode=RunMode.MULTIRUN)  # type: ignore[union-attr]


def search_path(config_dir: Path | None) -> list[str]:
    """The override by which Hydra looks for options in the user's folder too."""
    return [] if config_dir is None else [f"hydra.searchpath=['file://{config_dir}']"]


def check_config_dir(folder: Path) -> None:
    """Refuse options whose content would silently go elsewhere; warn of those that ours of the same name hide."""
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
