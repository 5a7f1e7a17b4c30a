"""Tiny-ImageNet in the layout it is handed out in: 64 × 64 photographs, each with its box."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsol.datasets.box_faults import wrong_boxes_stop
from wsol.datasets.inside import inside
from wsol.datasets.sample import Dataset, Sample
from wsol.datasets.subset import choose_classes
from wsol.errors import UserError

__all__ = ["TinyImageNet"]


class TinyImageNet(Dataset):
    """`train/<wnid>/<wnid>_boxes.txt` or `val/val_annotations.txt`, with `words.txt` for the names.

    Parameters
    ----------
    root : path
        The folder that holds `train/`, `val/` and `wnids.txt`. Copies with fewer classes are fine: the classes
        are those of `wnids.txt`, sorted; without that file, the folders under `train/`.
    split : "train" or "val"
        The test split was handed out without labels.
    classes : sequence of WordNet ids, optional
        Keep these only, in this order.

    Raises
    ------
    UserError
        If a file or a class is missing, a line can't be read, or nothing is left.

    Notes
    -----
    Boxes are as annotated: `x0 y0 x1 y1`, corners inclusive.

    The role of val is `test`, as that of ILSVRC's val is in the field: the test split has no labels, so val is what
    figures are reported on, and no hyper-parameter should be chosen there unnoticed. Train is `train-weaksup`.

    References
    ----------
    Le and Yang, "Tiny ImageNet Visual Recognition Challenge", CS 231N, Stanford, 2015.
    """

    name = "tiny_imagenet"

    def __init__(self, root: str | Path, split: str = "val", classes: Sequence[str] | None = None) -> None:
        self.root = Path(root).expanduser()
        self.split, self.role = split, "train-weaksup" if split == "train" else "test"
        if not self.root.is_dir():
            raise UserError(f"dataset.root={root}: no such folder; pass the one that holds train/, val/, wnids.txt")
        if split not in ("train", "val"):
            raise UserError(f"dataset.split={split}: Tiny-ImageNet has labels for train and val only")
        self.class_ids = choose_classes(self._wnids(), classes, f"{self.root / 'wnids.txt'}")
        words = self._words()
        self.classes = tuple(words.get(wnid, wnid) for wnid in self.class_ids)
        index = {wnid: label for label, wnid in enumerate(self.class_ids)}
        rows = self._read_train() if split == "train" else self._read_val(set(self._wnids()))
        kept = [(path, index[wnid], box) for path, wnid, box in rows if wnid in index]
        if not kept:
            raise UserError(f"{self.root / split}: no image of the {len(index)} classes asked for; is the split empty?")
        self._paths = [path for path, _, _ in kept]
        self._labels = np.array([label for _, label, _ in kept], np.int64)
        self._boxes = np.array([box for _, _, box in kept], np.float64)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        path = self._paths[index]
        return Sample(
            sample_id=path.relative_to(self.root).as_posix(),
            label=int(self._labels[index]),
            image=path,
            boxes=self._boxes[index],
        )

    @property
    def labels(self) -> np.ndarray:
        """Label of every sample, int64 (N,)."""
        return self._labels

    def _wnids(self) -> list[str]:
        listing, folder = self.root / "wnids.txt", self.root / "train"
        if listing.is_file():
            wnids = sorted(set(_read(listing).split()))
            for wnid in wnids:
                inside(folder, wnid, str(listing))
            return wnids
        if folder.is_dir():
            return sorted(child.name for child in folder.iterdir() if child.is_dir())
        raise UserError(f"{self.root}: neither wnids.txt nor train/; is this Tiny-ImageNet's folder?")

    def _words(self) -> dict[str, str]:
        path = self.root / "words.txt"
        if not path.is_file():
            return {}
        pairs = (line.partition("\t") for line in _read(path).splitlines())
        return {wnid: names.strip() for wnid, tab, names in pairs if tab}

    def _read_train(self) -> list[tuple[Path, str, list[float]]]:
        rows = []
        for wnid in self.class_ids:
            folder = self.root / "train" / wnid
            for number, fields in _lines(folder / f"{wnid}_boxes.txt", 5):
                box = _box(fields[1:], folder / f"{wnid}_boxes.txt", number)
                rows.append((folder / "images" / fields[0], wnid, box))
        return rows

    def _read_val(self, known: set[str]) -> list[tuple[Path, str, list[float]]]:
        path, rows = self.root / "val" / "val_annotations.txt", []
        for number, fields in _lines(path, 6):
            if fields[1] not in known:
                raise UserError(
                    f"{path}, line {number}: class {fields[1]!r} is not in {self.root / 'wnids.txt'}; "
                    f"add it there or remove the line"
                )
            rows.append((self.root / "val" / "images" / fields[0], fields[1], _box(fields[2:], path, number)))
        return rows


def _lines(path: Path, columns: int) -> list[tuple[int, list[str]]]:
    """Read a table of words: line number and fields of each line that is not empty."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; is this Tiny-ImageNet in its original layout?")
    rows = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        fields = line.split()
        if len(fields) != columns or "/" in fields[0] or fields[0].startswith("."):
            raise UserError(f"{path}, line {number}: {line.strip()!r}; wanted {columns} columns, a file name first")
        rows.append((number, fields))
    return rows


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as UTF-8 text: {error}; replace the file") from error


def _box(fields: list[str], path: Path, number: int) -> list[float]:
    try:
        box = [float(field) for field in fields]
    except ValueError:
        raise UserError(f"{path}, line {number}: box {' '.join(fields)!r} is not four numbers") from None
    right = np.isfinite(box).all() and 0 <= box[0] <= box[2] and 0 <= box[1] <= box[3]
    if wrong_boxes_stop() and not right:
        raise UserError(f"{path}, line {number}: box {' '.join(fields)!r} is inverted, negative or not finite; mend it")
    return box
