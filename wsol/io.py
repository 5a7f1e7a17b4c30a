"""Files: written whole or not at all, read with their name in every complaint; and those that lie in the package."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from wsol.errors import UserError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside the wanted one; it takes the wanted one's place when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any) -> None:
    """Write JSON for people to read; what it has no form for is written as text."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write YAML, keys in their order."""
    import yaml

    write_text(path, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))


def read_text(path: Path, hint: str = "") -> str:
    """Read somebody's text file in UTF-8, with or without a byte order mark; `hint` follows where there is none."""
    if not path.is_file():
        raise UserError(f"{path}: no such file{f'; {hint}' if hint else ''}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as UTF-8 text: {error}; replace the file") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a library raises in the block, about a file that this program wrote, becomes an error that names it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} can't be read: {reason}; it is damaged, or not as this program wrote it") from error


def read_environment(run_dir: Path) -> dict[str, Any]:
    """Read the `environment.json` of a run; empty where there is none or it is damaged."""
    try:
        content = json.loads((run_dir / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def expand_path(value: str | Path | None) -> Path | None:
    """Path that a user typed, with ~ resolved; None stays None."""
    return None if value is None else Path(str(value)).expanduser()


def from_here(path: Path) -> Path:
    """A path from the working folder on, where it lies inside."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def conf_dir() -> Path:
    """Folder of the configuration files."""
    return _shipped("conf")


def published_file() -> Path:
    """Table of published numbers."""
    return _shipped("results/published.csv")


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """WordNet ids of the 1,000 ILSVRC-2012 classes in the order of the logits, which is their sorted order."""
    return tuple(Path(__file__).with_name("imagenet_wnids.txt").read_text("ascii").split())


def _shipped(name: str) -> Path:
    """Find what lies inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / name if (package / name).exists() else package.parent / name
