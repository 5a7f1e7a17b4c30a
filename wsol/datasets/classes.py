"""Which class of a dataset is which logit of a classifier, and where the true class ranks.

Classes meet logits by id where all ids are known to the classifier, else by name; by file or position when asked for.
Names are compared without case, with underscores as spaces; of a list of synonyms ("tabby, tabby cat") any one
suffices, and where several logits match, an exact match wins, then the same case, then the same first synonym.
"""

from __future__ import annotations

import csv
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from wsol.errors import UserError, first_names, suggest
from wsol.io import read_text

HEADINGS = ("dataset class", "dataset_class", "class")  # of a map file's first column
Names = Sequence[str]


@dataclass(frozen=True, eq=False)
class ClassMap:
    """Which logit stands for which class of the dataset."""

    to_model: np.ndarray  # (C,) int64: the logit of each class
    how: str  # "id", "name", "position" or "file NAME"
    notes: tuple[str, ...] = ()  # what a reader of the tables should know

    @property
    def present(self) -> np.ndarray:
        """Logits that stand for some class of the dataset, ascending, int64."""
        return np.unique(self.to_model)


def map_classes(
    dataset_classes: Names, dataset_ids: Names | None, model_classes: Names | None, model_ids: Names | None,
    num_logits: int, how: str | os.PathLike[str] | None = None,
) -> ClassMap:  # fmt: skip
    """Find the logit of every class of a dataset; the classifier's names and ids come in the order of its logits.

    `how` is "id", "name", "position", a path to a CSV or JSON file that gives, for every class of the dataset (name or
    id), the index, id or name of a logit; or None: by id or name, never by position.
    """
    classes, ids = tuple(map(str, dataset_classes)), tuple(map(str, dataset_ids or ()))
    logits = _Logits(model_classes, model_ids, num_logits)
    if how == "position":
        if len(classes) > num_logits:
            raise UserError(f"dataset.class_map=position: {len(classes)} classes, but only {num_logits} logits")
        return _class_map(list(range(len(classes))), "position", classes, num_logits)
    if how not in (None, "id", "name"):
        return _by_file(Path(how).expanduser(), classes, ids, logits)
    return _by_id_or_name(classes, ids, logits, None if how is None else str(how))


def _by_id_or_name(classes: Names, ids: Names, logits: _Logits, how: str | None) -> ClassMap:
    if not logits.names:
        raise UserError(f"what the {logits.count} logits mean is not known: pass dataset.class_map=position or =FILE")
    # Ids that only repeat the names, met by a classifier without ids, are none: names decide.
    has_ids = bool(ids) and (bool(logits.ids) or ids != classes)
    matches = {
        "id": [logits.with_id(key) for key in ids] if has_ids else [[]] * len(classes),
        "name": [logits.named(name) for name in classes],
    }
    if how is None:
        hits = {way: sum(len(logits_of) == 1 for logits_of in column) for way, column in matches.items()}
        how = "id" if hits["id"] == len(classes) or hits["id"] > hits["name"] else "name"
    unmatched = [index for index, each in enumerate(matches[how]) if len(each) != 1]
    if unmatched:
        why = [f"{classes[i]!r} (id {ids[i] if ids else 'unknown'})" for i in unmatched]
        if how == "name":
            why = [logits.mismatch(classes[i], matches["name"][i]) for i in unmatched]
        text = f"{len(unmatched)} of the dataset's {len(classes)} classes meet no logit of the classifier by {how}"
        raise UserError(f"{text}: {first_names(why, 3)}. Pass a classifier that has them, or dataset.class_map=FILE")
    return _class_map([match for (match,) in matches[how]], how, classes, logits.count)


def _class_map(indices: Sequence[int], how: str, classes: Names, num_logits: int, may_share: bool = False) -> ClassMap:
    members: dict[int, list[str]] = defaultdict(list)
    for index, name in zip(indices, classes, strict=True):
        members[index].append(repr(name))
    shared = first_names((f"{' and '.join(names)} (logit {i})" for i, names in members.items() if len(names) > 1), 3)
    if shared and not may_share:
        raise UserError(f"by {how} two classes of the dataset meet one logit: {shared}; pass dataset.class_map=FILE")
    notes = []
    if len(members) < num_logits:
        part = f"{len(members)} of {num_logits} logits"
        notes.append(f"the first {part} are used" if how == "position" else f"{part} stand for classes of the dataset")
    if shared:
        notes.append(f"classes that share a logit: {shared}")
    return ClassMap(np.array(indices, np.int64), how, tuple(notes))


class _Logits:
    """What a classifier calls its logits, and which of them a name or an id may mean."""

    def __init__(self, classes: Names | None, ids: Names | None, count: int) -> None:
        self.ids, self.count = tuple(map(str, ids or ())), count
        self.names = tuple(map(str, classes or ())) or self.ids
        for what, names in (("classes", self.names), ("class ids", self.ids)):
            if names and len(names) != count:
                raise UserError(f"the classifier has {count} logits, but {len(names)} {what}: fix the checkpoint's")
        self.by_synonym: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(self.names):
            for synonym in _synonyms(name):
                self.by_synonym[synonym].append(index)
        # A classifier trained on folders knows their names, which are ids, as its classes.
        self.by_id = {key: index for index, key in reversed([*enumerate(self.ids or self.names)])}

    def with_id(self, key: str) -> list[int]:
        """The logit of an id, or none."""
        return [self.by_id[key]] if key in self.by_id else []

    def named(self, name: str) -> list[int]:
        """Logits that a name may mean; one where it is clear."""
        matches = sorted({index for synonym in _synonyms(name) for index in self.by_synonym.get(synonym, ())})
        for form in (str, _first, lambda text: _synonyms(text)[0]):  # ever less alike
            alike = [index for index in matches if form(self.names[index]) == form(name)]
            if len(alike) == 1:
                return alike
        return matches

    def mismatch(self, name: str, matches: Sequence[int]) -> str:
        """Why a name means no logit, or not one alone."""
        if matches:
            return f"{name!r} fits several logits ({first_names((f'{i}: {self.names[i]}' for i in matches), 4)})"
        return f"{name!r} is not among the classifier's class names{suggest(name, self.by_synonym)}"

    def find(self, text: str, where: str) -> int:
        """The logit that a person means by its index, id or name; `where` it was said is for the message."""
        if text.isdecimal() and int(text) < self.count:
            return int(text)
        matches = self.with_id(text) if text in self.ids else self.named(text)
        if len(matches) != 1:
            raise UserError(f"{where}: {self.mismatch(text, matches)}")
        return matches[0]


def find_logit(text: str, model_classes: Names | None, model_ids: Names | None, num_logits: int, where: str) -> int:
    """Find the logit that a person means by its index, id or name; `where` it was said is for the message."""
    return _Logits(model_classes, model_ids, num_logits).find(text, where)


def _spaced(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def _first(name: str) -> str:
    return _spaced(name.split(",")[0])


def _synonyms(name: str) -> list[str]:
    parts = [_spaced(part).casefold() for part in name.split(",")]
    # The whole list too: "maillot, tank suit" is one name where another class is "maillot".
    return list(dict.fromkeys([part for part in parts if part] + [_spaced(name).casefold()]))


def _by_file(path: Path, classes: Names, ids: Names, logits: _Logits) -> ClassMap:
    places = {name: index for index, name in reversed([*enumerate(classes)])} | {key: i for i, key in enumerate(ids)}
    to_model: dict[int, int] = {}
    for where, name, logit in _file_rows(path):
        if name not in places:
            raise UserError(f"{where}: the dataset has no class {name!r}{suggest(name, places)}")
        if places[name] in to_model:
            raise UserError(f"{where}: class {name!r} was given a logit already: remove one of the rows")
        to_model[places[name]] = logits.find(logit, where)
    missing = [repr(name) for index, name in enumerate(classes) if index not in to_model]
    if missing:
        raise UserError(f"{path} gives no logit for {first_names(missing, 3)}: add a row for each")
    indices = [to_model[index] for index in range(len(classes))]
    return _class_map(indices, f"file {path.name}", classes, logits.count, may_share=True)


def _file_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Where each row stands, its class and its logit, as text; nothing of an empty one and of headings."""
    text = read_text(path, "dataset.class_map is id, name, position, or a CSV or JSON file")
    try:
        rows: Any = csv.reader(text.splitlines(), skipinitialspace=True)
        if path.suffix.lower() == ".json":
            rows = json.loads(text, object_pairs_hook=list)
        rows = [[str(cell).strip() for cell in row] for row in rows]
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} can't be read as classes and their logits: {error}") from error
    for number, cells in enumerate(rows, start=1):
        if any(cells) and not (number == 1 and cells[0].casefold() in HEADINGS):
            if len(cells) != 2 or "" in cells:
                raise UserError(f"{path}, row {number}: {cells} is no class and its logit; quote names with a comma")
            yield f"{path}, row {number}", *cells


def allowed_logits(class_map: ClassMap, predict_over: str = "all") -> np.ndarray | None:
    """Logits that a prediction may choose from: None for all, or the indices of those present in the dataset."""
    if predict_over not in ("all", "present"):
        raise UserError(f"predict_over={predict_over!r}: pass all or present")
    return None if predict_over == "all" else class_map.present


def rank_of_true(logits: ArrayLike, targets: ArrayLike, allowed: ArrayLike | None = None) -> np.ndarray:
    """Rank of each true class among the (allowed) logits (N, C), 0 for the best, by a stable sort: int64 (N,)."""
    values, targets = _finite(logits), np.asarray(targets, np.int64)
    competes = np.ones(values.shape[1], bool)
    if allowed is not None:
        competes = np.isin(np.arange(values.shape[1]), allowed)
    true = np.take_along_axis(values, targets[:, None], axis=1)  # (N, 1)
    earlier = np.arange(values.shape[1]) < targets[:, None]  # (N, C)
    ahead = ((values > true) | ((values == true) & earlier)) & competes  # (N, C)
    return ahead.sum(axis=1, dtype=np.int64)


def top_classes(logits: ArrayLike, k: int = 5, allowed: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k best of the (allowed) logits (N, C), best first: indices int64 (N, k), and probabilities among them (N, k).

    Equal logits stand in the order of their index; fewer come where fewer are allowed.
    """
    values = _finite(logits)
    competing = np.arange(values.shape[1]) if allowed is None else np.unique(allowed)
    values = values[:, competing]  # (N, allowed)
    weights = np.exp(values - values.max(axis=1, keepdims=True))  # (N, allowed)
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]  # (N, k)
    probabilities = np.take_along_axis(weights / weights.sum(axis=1, keepdims=True), order, axis=1)  # (N, k)
    return competing[order], probabilities


def _finite(logits: ArrayLike) -> np.ndarray:
    """Logits float64 (N, C). A NaN would rank first, silently."""
    values = np.asarray(logits, np.float64)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise UserError(f"the logits of row {bad[0]} are not finite: check the weights and the image's normalization")
    return values
