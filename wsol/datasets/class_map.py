"""How a dataset's classes meet a classifier's logits: by id, name, file or, when said, position."""

from __future__ import annotations

import csv
import difflib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsol.errors import UserError

__all__ = ["ClassMap", "find_logit", "map_classes"]


@dataclass(frozen=True, eq=False)
class ClassMap:
    """Which logit stands for which class of the dataset.

    Parameters
    ----------
    to_model : array of int64 (C,)
        Index of the logit for each class of the dataset.
    how : str
        How it was found: "id", "name", "position" or "file NAME".
    notes : tuple of str
        What a reader of the tables should know (unused logits, shared logits).

    Examples
    --------
    >>> ClassMap(np.array([7, 2]), "name").present
    array([2, 7])
    """

    to_model: np.ndarray
    how: str
    notes: tuple[str, ...] = ()

    @property
    def present(self) -> np.ndarray:
        """Logits that stand for some class of the dataset, ascending, int64."""
        return np.unique(self.to_model)


def map_classes(
    dataset_classes: Sequence[str],
    dataset_ids: Sequence[str] | None,
    model_classes: Sequence[str] | None,
    model_ids: Sequence[str] | None,
    num_logits: int,
    how: str | os.PathLike[str] | None = None,
) -> ClassMap:
    """Find the logit of every class of a dataset.

    Names are compared without case, with underscores as spaces; of a list of synonyms ("tabby, tabby cat")
    any one suffices, and where several logits match, an exact match wins.

    Parameters
    ----------
    dataset_classes, dataset_ids : sequence of str (C,)
        Names for people, and what keys the classes on disk (WordNet ids, say; may equal the names, may be
        None).
    model_classes, model_ids : sequence of str (num_logits,), optional
        The same of the classifier, in the order of its logits, where known.
    num_logits : int
        How many logits the classifier has.
    how : "id", "name", "position", path, or None
        None: by id where all ids are known to the classifier, else by name; never by position. A path leads
        to a CSV or JSON file that gives, for every class of the dataset (name or id), the index, id or name
        of a logit.

    Returns
    -------
    ClassMap

    Raises
    ------
    UserError
        If a class can't be found or is ambiguous (the first few are named, with what comes nearest), if the
        classifier's names are unknown and neither position nor a file was said, or if a file has wrong rows.

    Examples
    --------
    >>> map_classes(["Tabby_cat", "lion"], None, ["lion", "tabby, tabby cat"], None, 2).to_model
    array([1, 0])
    >>> map_classes(["a", "b"], None, None, None, 5, how="position").notes
    ('the first 2 of 5 logits are used',)
    """
    data = _Names(tuple(map(str, dataset_classes)), tuple(map(str, dataset_ids or ())))
    model = _Names(tuple(map(str, model_classes or ())), tuple(map(str, model_ids or ())))
    for what, names in (("classes", model.classes), ("class ids", model.ids)):
        if names and len(names) != num_logits:
            raise UserError(f"the classifier has {num_logits} logits, but {len(names)} {what}: mend the checkpoint's")
    if how == "position":
        return _by_position(data, num_logits)
    if how not in (None, "id", "name"):
        return _by_file(Path(how).expanduser(), data, model, num_logits)
    if not model.classes and not model.ids:
        raise UserError(
            f"what the classifier's {num_logits} logits mean is not known, so they can't be matched with the "
            f"dataset's {len(data.classes)} classes: pass dataset.class_map=position if they come in the "
            "same order, or dataset.class_map=FILE"
        )
    if how == "id":
        return _finish(_by_id(data, model, demanded=True), "id", data, num_logits)
    if how == "name":
        return _finish(_by_name(data.classes, model.classes), "name", data, num_logits)
    by_id = _by_id(data, model, demanded=False)
    if all(isinstance(found, int) for found in by_id):
        return _finish(by_id, "id", data, num_logits)
    by_name = _by_name(data.classes, model.classes or model.ids)
    hits_by_id, hits_by_name = (sum(isinstance(found, int) for found in way) for way in (by_id, by_name))
    if hits_by_id > hits_by_name:
        return _finish(by_id, "id", data, num_logits)
    return _finish(by_name, "name", data, num_logits)


def find_logit(
    wanted: str, model_classes: Sequence[str] | None, model_ids: Sequence[str] | None, num_logits: int, where: str
) -> int:
    """Find the logit that a person means.

    Parameters
    ----------
    wanted : str
        Its index, id or name; names are compared as in `map_classes`.
    model_classes, model_ids : sequence of str (num_logits,), optional
        What the classifier calls its logits, where known.
    num_logits : int
    where : str
        Where the person said so, for messages.

    Raises
    ------
    UserError
        If there is no such logit (naming the nearest), or there are several.

    Examples
    --------
    >>> find_logit("Tabby_cat", ["lion", "tabby, tabby cat"], None, 2, "target")
    1
    """
    return _logit(wanted, _Names(tuple(model_classes or ()), tuple(model_ids or ())), num_logits, where)


@dataclass(frozen=True)
class _Names:
    classes: tuple[str, ...]
    ids: tuple[str, ...]


def _by_position(data: _Names, num_logits: int) -> ClassMap:
    count = len(data.classes)
    if count > num_logits:
        raise UserError(
            f"dataset.class_map=position: the dataset has {count} classes, the classifier only {num_logits} "
            "logits: pass a classifier with more, or dataset.class_map=FILE"
        )
    notes = () if count == num_logits else (f"the first {count} of {num_logits} logits are used",)
    return ClassMap(np.arange(count, dtype=np.int64), "position", notes)


def _by_id(data: _Names, model: _Names, demanded: bool) -> list[int | str]:
    """Per class its logit, or a text that says why there is none."""
    if demanded and not data.ids:
        raise UserError("dataset.class_map=id: the dataset has no class ids: pass name, or a file")
    # A classifier trained on folders knows their names, which are ids, as its classes.
    keys = model.ids or model.classes
    if demanded and not model.ids and not set(keys) & set(data.ids):
        raise UserError("dataset.class_map=id: the classifier's class ids are not known: pass name, or a file")
    if not data.ids or (data.ids == data.classes and not model.ids):
        return ["has no id"] * len(data.classes)
    index: dict[str, int] = {}
    for position, key in enumerate(keys):
        index.setdefault(key, position)
    return [index.get(key, f"(id {key}) is not among the classifier's ids") for key in data.ids]


def _by_name(wanted: Sequence[str], names: Sequence[str]) -> list[int | str]:
    """Per wanted name its logit, or a text that says why there is none."""
    spoken: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        for synonym in _synonyms(name):
            spoken.setdefault(synonym, []).append(position)
    return [_one_name(name, names, spoken) for name in wanted]


def _one_name(name: str, names: Sequence[str], spoken: Mapping[str, list[int]]) -> int | str:
    exact = [position for position, other in enumerate(names) if other == name]
    if len(exact) == 1:
        return exact[0]
    synonyms = _synonyms(name)
    found = sorted({position for synonym in synonyms for position in spoken.get(synonym, ())})
    if len(found) > 1:
        same_case = [p for p in found if _spaced(names[p].split(",")[0]) == _spaced(name.split(",")[0])]
        same_start = [p for p in found if _synonyms(names[p])[0] == synonyms[0]]
        found = next((better for better in (same_case, same_start) if len(better) == 1), found)
    if len(found) == 1:
        return found[0]
    if found:
        return f"fits several logits ({', '.join(f'{p}: {names[p]}' for p in found[:4])})"
    near = [
        names[spoken[match][0]]
        for synonym in synonyms
        for match in difflib.get_close_matches(synonym, spoken, n=2, cutoff=0.6)
    ]
    hint = f", the nearest are {', '.join(dict.fromkeys(near))}" if near else ""
    return f"is not among the classifier's class names{hint}"


def _spaced(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def _synonyms(name: str) -> list[str]:
    parts = [_spaced(part).casefold() for part in name.split(",")]
    # The whole list too: "maillot, tank suit" is one name where another class is "maillot".
    return list(dict.fromkeys([part for part in parts if part] + [_spaced(name).casefold()]))


def _finish(found: Sequence[int | str], how: str, data: _Names, num_logits: int) -> ClassMap:
    wrong = [f"{name!r} {why}" for name, why in zip(data.classes, found, strict=True) if isinstance(why, str)]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(
            f"{len(wrong)} of the dataset's {len(data.classes)} classes meet no logit of the classifier "
            f"by {how}: {'; '.join(wrong[:3])}{more}. Pass one that has them, dataset.class_map=FILE,"
            " or a dataset without them"
        )
    indices = np.array(found, np.int64)
    shared = _shared(indices, data)
    if shared:
        raise UserError(
            f"matched by {how}, two classes of the dataset meet the same logit: {shared}. "
            "Pass dataset.class_map=FILE, which says which is which"
        )
    return ClassMap(indices, how, _unused(indices, num_logits))


def _shared(indices: np.ndarray, data: _Names) -> str:
    values, counts = np.unique(indices, return_counts=True)
    pairs = [
        f"{' and '.join(repr(data.classes[i]) for i in np.flatnonzero(indices == value))} (logit {value})"
        for value in values[counts > 1]
    ]
    return ", ".join(pairs[:3])


def _unused(indices: np.ndarray, num_logits: int) -> tuple[str, ...]:
    used = len(np.unique(indices))
    return () if used == num_logits else (f"{used} of {num_logits} logits stand for classes of the dataset",)


def _by_file(path: Path, data: _Names, model: _Names, num_logits: int) -> ClassMap:
    found: list[int | None] = [None] * len(data.classes)
    places = {name: i for i, name in reversed(list(enumerate(data.classes)))}
    places.update({key: i for i, key in enumerate(data.ids)})
    for where, left, right in _read_rows(path):
        if left not in places:
            near = difflib.get_close_matches(left, places, n=3)
            hint = f": did you mean {', '.join(near)}?" if near else ": remove the row"
            raise UserError(f"{where}: the dataset has no class {left!r}{hint}")
        place = places[left]
        if found[place] is not None:
            raise UserError(f"{where}: class {left!r} was given a logit already: remove one of the rows")
        found[place] = _logit(right, model, num_logits, where)
    missing = [name for name, logit in zip(data.classes, found, strict=True) if logit is None]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(f"{path} gives no logit for {', '.join(map(repr, missing[:3]))}{more}: add a row for each")
    indices = np.array(found, np.int64)
    shared = _shared(indices, data)
    notes = _unused(indices, num_logits) + ((f"classes that share a logit: {shared}",) if shared else ())
    return ClassMap(indices, f"file {path.name}", notes)


def _logit(value: str, model: _Names, num_logits: int, where: str) -> int:
    if value.isdecimal():
        if int(value) < num_logits:
            return int(value)
        raise UserError(f"{where}: logit {value} does not exist: the classifier has 0 to {num_logits - 1}")
    if value in model.ids:
        return model.ids.index(value)
    if not model.classes and not model.ids:
        raise UserError(f"{where}: the classifier's class names are not known, so {value!r} must be an index")
    names = model.classes or model.ids
    found = _by_name([value], names)[0]
    if isinstance(found, str):
        there = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise UserError(f"{where}: {value!r} {found}; there are {there}")
    return found


def _read_rows(path: Path) -> list[tuple[str, str, str]]:
    """Where each row stands, its class and its logit, as text."""
    if not path.is_file():
        raise UserError(f"dataset.class_map={path}: no such file: pass id, name, position, or a CSV or JSON file")
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"dataset.class_map={path} can't be read ({error}): save it as UTF-8 text") from error
    if path.suffix.lower() == ".json":
        return _json_rows(path, text)
    rows = []
    for number, row in enumerate(csv.reader(text.splitlines(), skipinitialspace=True), start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and cells[0].casefold() in ("dataset class", "dataset_class", "class")):
            continue
        if len(cells) != 2 or not all(cells):
            raise UserError(
                f"{path}, line {number}: {','.join(row)!r} is not `dataset class,logit` (index, id or name; "
                'names that contain a comma go into "quotes")'
            )
        rows.append((f"{path}, line {number}", cells[0], cells[1]))
    return rows


def _json_rows(path: Path, text: str) -> list[tuple[str, str, str]]:
    try:
        # As pairs, so that a class that comes twice is seen.
        content = json.loads(text, object_pairs_hook=lambda pairs: pairs)
    except json.JSONDecodeError as error:
        raise UserError(f"dataset.class_map={path} is no JSON ({error}): write an object {{class: logit}}") from error
    rows = []
    for pair in content if isinstance(content, list) else [content]:
        entry = tuple(pair) if isinstance(pair, list | tuple) else ()
        if len(entry) != 2 or not isinstance(entry[0], str) or type(entry[1]) not in (int, str):
            raise UserError(f"{path}: {pair!r} is no pair of class and logit: write an object {{class: logit}}")
        rows.append((f"{path}, class {entry[0]!r}", entry[0], str(entry[1])))
    return rows
