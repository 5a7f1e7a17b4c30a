"""Files: written whole or not at all, read with their name in every complaint; and those that lie in the package."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from glob import escape
from pathlib import Path
from typing import Any

from wsol.errors import UserError

LARGEST_TEXT = 1 << 20  # bytes of a run's YAML or JSON
LARGEST_TABLE = 1 << 33  # bytes
MOST_NODES = 50_000  # values in it, those that are repeated by reference counted each time
SPARE = 1 << 16  # bytes; a disk with less is full


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside the wanted one; it takes the wanted one's place, on disk, when the block ends well.

    What a process that died left of the same file is removed.
    """
    temporary = temporary_path(path)
    try:
        with writing(path):
            temporary.unlink(missing_ok=True)  # a link there would lead elsewhere
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Where this process prepares a file or folder; what dead ones prepared in its place is removed."""
    for other in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        if not is_alive(other.name.split(".")[-2]):
            shutil.rmtree(other) if other.is_dir() and not other.is_symlink() else other.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def is_alive(pid: str) -> bool:
    """Whether a process of this number, another than this one, runs on this machine."""
    try:
        os.kill(int(pid), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:  # somebody else's
        return True
    return int(pid) != os.getpid()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What keeps a file from being written, above all a full disk, becomes an error that names it."""
    try:
        yield
    except Exception as error:  # torch and safetensors have words of their own for a full disk
        full = path.parent.is_dir() and shutil.disk_usage(path.parent).free < SPARE
        if isinstance(error, UserError) or not (full or isinstance(error, OSError)):
            raise
        reason = "no space is left on the disk" if full else error
        raise UserError(f"{path} can't be written: {reason}; make room there or choose another folder") from error


def own_folder(path: Path) -> Path:
    """Make a folder inside a run's, in place of a link, which would lead elsewhere."""
    with writing(path):
        if path.is_symlink():
            path.unlink()
        path.mkdir(parents=True, exist_ok=True)
    return path


def remove_stale(folder: Path) -> None:
    """Remove what an older run left in a folder and this one may not write: its page, pictures and optional tables."""
    figures = folder / "figures"
    kinds = () if figures.is_symlink() else ("png", "svg", "pdf")
    pictures = [path for kind in kinds for path in figures.glob(f"*.{kind}")]
    optional = ("report.html", "resamples.parquet", "faithfulness.parquet", "faithfulness.tex")
    for path in (*pictures, *(folder / name for name in optional)):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        figures.rmdir()


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file, or the names in a folder, also after a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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


def data_file(path: Path, largest: int = LARGEST_TEXT) -> Path:
    """A file of somebody's run: no link, no device, and no larger than so many bytes."""
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{path} is {'a link' if path.is_symlink() else 'no file'}: a run's folder holds its own files")
    if path.stat().st_size > largest:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, more than {largest:,}: it is not a run's")
    return path


def check_declared(path: Path, most: int = 1 << 28, largest: int = LARGEST_TABLE) -> Path:
    """A Parquet file that declares to unpack to no more than so many values in a column, and so many bytes.

    Each of its row groups, which may be read one by one, has `LARGEST_TABLE` at most.
    """
    from pyarrow import parquet

    about = parquet.read_metadata(data_file(path, largest))
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    values = [sum(group.column(number).num_values for group in groups) for number in range(about.num_columns)]
    sizes = [group.total_byte_size for group in groups]
    if max([about.num_rows, *values]) > most or sum(sizes) > largest or max(sizes, default=0) > LARGEST_TABLE:
        raise ValueError(
            f"it declares {about.num_rows:,} rows, and up to {max(values, default=0):,} values in a column"
        )
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a run's mapping of plain values; `${…}` stays as it is written, and what references repeat is bounded."""
    import yaml

    with reading(path):
        loader = yaml.SafeLoader(data_file(path).read_text(encoding="utf-8"))
        node, count = loader.get_single_node(), 0
        pending = [node] if node else []
        while pending:
            value, count = pending.pop().value, count + 1
            if count > MOST_NODES:
                raise ValueError(f"more than {MOST_NODES:,} values")
            parts = [] if isinstance(value, str) else value  # nodes, or pairs of key and value
            pending += [inner for part in parts for inner in (part if isinstance(part, tuple) else (part,))]
        return dict(loader.construct_document(node) or {}) if node else {}


def read_json(path: Path) -> dict[str, Any]:
    """Read a run's mapping of plain values."""
    with reading(path):
        return dict(json.loads(data_file(path).read_text(encoding="utf-8")))


def read_environment(run_dir: Path) -> dict[str, Any]:
    """Read the `environment.json` of a run; empty where there is none or it is damaged."""
    try:
        return read_json(run_dir / "environment.json")
    except UserError:
        return {}


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
def imagenet_classes() -> dict[str, str]:
    """Name of each of the 1,000 ILSVRC-2012 classes, as torchvision spells it, by WordNet id, in the logits' order."""
    lines = Path(__file__).with_name("imagenet_classes.txt").read_text("ascii").splitlines()
    return dict(line.split(maxsplit=1) for line in lines)


def named_classes(classes: Sequence[str]) -> dict[str, Any]:
    """Names, and ids, of classes that may be called by ImageNet's WordNet ids, as its folders are."""
    names = imagenet_classes()
    if not names.keys() >= set(classes):
        return {"classes": classes}
    return {"classes": [names[wnid] for wnid in classes], "class_ids": classes}


def _shipped(name: str) -> Path:
    """Find what lies inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / name if (package / name).exists() else package.parent / name
