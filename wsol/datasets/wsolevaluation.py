"""The layout in which most papers of the field keep their data: `metadata/<set>/<split>/*.txt` and `dataset/<set>/`.

A split is `image_ids.txt` and `class_labels.txt` (`id,label`), and where there are any `localization.txt`
(`id,x0,y0,x1,y1`, or `id,mask,ignore mask`; an image may have several lines) and `image_sizes.txt` (`id,width,height`).
Images and masks lie in `dataset/<set>/`; nobody looks there before one is read, so ready heatmaps can be scored without
any image.

Labels are kept as the files have them. What they mean is nowhere written down, but follows: in ILSVRC label i is the
i-th of the sorted WordNet ids, as the ids of train and of val (ImageNetV2's folders) show, which is checked. In other
sets it is the image ids' class folders (`001.Black_footed_Albatross`; `0bt_c3`, a Freebase id without `/m/`), looked up
in the other splits' `class_labels.txt` too, where each label has one of its own; else a class is called by its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsol.datasets.annotations import CORNERS, Rows, read_lines, safe_join
from wsol.datasets.images import read_mask
from wsol.datasets.sample import Dataset, Table, reader
from wsol.io import imagenet_classes

ROLES = {"train": "train-weaksup", "val": "train-fullsup", "test": "test"}
MASK = ("image id", "mask", "ignore mask")
HINT = "dataset.root holds metadata/<dataset.name>/<dataset.split>/ and dataset/<dataset.name>/"


@reader("wsolevaluation")
def WSOLEvaluation(
    root: str | Path, name: str, split: str = "test", images: str | Path | None = None, proxy: bool = False,
    num_val_sample_per_class: int = 0, seed: int = 0,
) -> Dataset:  # fmt: skip
    """CUB (val: CUBV2), ILSVRC (val: ImageNetV2), OpenImages30k and others in this layout (Choe et al., CVPR 2020).

    Parameters
    ----------
    root : path
        The folder that holds `metadata/` and `dataset/`; the module says which files.
    name : str
        Folder below `metadata/`: CUB, ILSVRC, OpenImages, or one of your own.
    split : str
        Folder below that: train (the role `train-weaksup`), val (`train-fullsup`) or test (`test`).
    images : path, optional
        The folder that image ids and masks are relative to; None: `root/dataset/<name>`.
    proxy : bool
        Take the images of `image_ids_proxy.txt`, a part of the split made for quick searches.
    num_val_sample_per_class : int
        With split=val, so many images of each class, drawn at random; 0: all.
    seed : int
        Of that draw.

    Notes
    -----
    Boxes are inclusive corners, as annotated. An image's mask is the union of its instances' masks; OpenImages' masks
    may have another resolution than their images.
    """
    home = Path(root).expanduser()
    folder = home / "metadata" / str(name) / str(split)
    base = home / "dataset" / str(name) if images is None else Path(images).expanduser()
    listing = read_lines(folder / f"image_ids{'_proxy' if proxy else ''}.txt", ["image id"], hint=HINT)
    listing.check_paths("image id", base)
    ids = listing["image id"]
    label_rows = read_lines(folder / "class_labels.txt", ["image id", "label"], hint=HINT)
    labels = label_rows.integers("label")[label_rows.one_each(listing, "image id", proxy)]
    columns, wrong_box = _read_truth(folder / "localization.txt", base, listing, proxy)
    columns |= _read_sizes(folder / "image_sizes.txt", listing, proxy) | {"sample_id": ids, "image": ids}
    if split == "val" and num_val_sample_per_class:
        chosen = _draw(labels, num_val_sample_per_class, seed)
        columns, labels = {key: [cells[row] for row in chosen] for key, cells in columns.items()}, labels[chosen]
    classes, class_ids = _classes(folder, label_rows)
    table = Table(base, label=labels, **columns)
    role = ROLES.get(str(split), "")
    return Dataset(table, wrong_box=wrong_box, name=str(name), role=role, classes=classes, class_ids=class_ids)


def _is_empty(path: Path) -> bool:
    return not path.is_file() or path.stat().st_size == 0


def _read_sizes(path: Path, listing: Rows, proxy: bool) -> dict[str, Sequence]:
    """Width and height of each image; nothing where the file is empty, as in OpenImages, or missing."""
    if _is_empty(path):
        return {}
    rows = read_lines(path, ["image id", "width", "height"])
    order = rows.one_each(listing, "image id", proxy)
    width, height = (rows.integers(side, least=1)[order].tolist() for side in ("width", "height"))
    return {"image_size": list(zip(width, height, strict=True))}


def _read_truth(path: Path, base: Path, listing: Rows, proxy: bool) -> tuple[dict[str, Sequence], str]:
    """Boxes or masks, and what is wrong with a box; splits for training have an empty file or none."""
    if _is_empty(path):
        return {}, ""
    with path.open("rb") as file:
        masks = file.readline().count(b",") == len(MASK) - 1
    rows = read_lines(path, MASK if masks else ("image id", *CORNERS))
    groups = rows.groups(listing, "image id", proxy)
    if masks:
        return _masks(rows, base, listing["image id"], groups), ""
    corners, wrong_box = rows.boxes(CORNERS)
    return {"boxes": [corners[group] if len(group) else None for group in groups]}, wrong_box


def _masks(rows: Rows, base: Path, ids: Sequence[str], groups: Sequence[np.ndarray]) -> dict[str, Any]:
    rows.check_paths("mask", base)
    columns: dict[str, list[Any]] = {"mask": [], "ignore": []}
    for image_id, group in zip(ids, groups, strict=True):
        paths = [base / rows["mask"][row] for row in group]
        columns["mask"].append(paths[0] if len(paths) == 1 else partial(_read_union, paths, image_id))
        ignored = [row for row in group if rows["ignore mask"][row]]
        if len(ignored) > 1:
            rows.refuse(ignored[1], "has the second ignore mask of this image; keep one")
        paths = [safe_join(base, rows["ignore mask"][row], rows.where(row)) for row in ignored]
        columns["ignore"] += paths or [None]
    return columns


def _read_union(paths: Sequence[Path], image_id: str) -> np.ndarray:
    return np.logical_or.reduce([read_mask(path, image_id) for path in paths])


def _draw(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Choose so many samples of each class, in their order."""
    choose = np.random.default_rng(seed).choice
    rows = [choose(np.flatnonzero(labels == label), per_class, replace=False) for label in np.unique(labels)]
    return np.sort(np.concatenate(rows))


def _classes(folder: Path, labels: Rows) -> tuple[Sequence[str], Sequence[str]]:
    """Names and ids of the classes, as far as they can be known."""
    if folder.parent.name == "ILSVRC":
        _check_imagenet(labels)
        names = imagenet_classes()
        return list(names.values()), list(names)
    # The other splits may have more classes, or name those that are missing here.
    others = sorted(path / "class_labels.txt" for path in folder.parent.iterdir() if path != folder)
    files = [labels, *(read_lines(path, tuple(labels.columns)) for path in others if path.is_file())]
    pairs = {pair for file in files for pair in _pairs(file)}
    folder_of = {label: name for name, label in pairs}
    if not len(pairs) == len(folder_of) == len({name for name, _ in pairs}):
        folder_of = {}  # folders mean something else than classes
    count = 1 + max((label for _, label in pairs), default=-1)
    keys = [folder_of.get(label) or str(label) for label in range(count)]
    return [_spoken(key) for key in keys], keys


def _pairs(labels: Rows) -> Iterator[tuple[str, int]]:
    """Of each row the folder that the image lies in directly, which in most sets is its class's, and the label."""
    folders = (name.rpartition("/")[0].rpartition("/")[2] for name in labels["image id"])
    return zip(folders, labels.integers("label").tolist(), strict=True)


def _spoken(key: str) -> str:
    """CUB's `001.Black_footed_Albatross` as people say it; other keys as they are."""
    numbered = re.fullmatch(r"\d+\.(.+)", key)
    return numbered[1].replace("_", " ") if numbered else key


def _check_imagenet(labels: Rows) -> None:
    """Make sure that labels mean what ILSVRC's do, where the image ids show it."""
    wnids = list(imagenet_classes())
    labels.integers("label", most=len(wnids) - 1)
    for row, (folder, label) in enumerate(_pairs(labels)):
        number = folder.isdecimal() and int(folder) != label
        if number or (folder != wnids[label] and re.fullmatch(r"n\d{8}", folder)):
            labels.refuse(row, f"gives label {label} ({wnids[label]}) to an image of folder {folder!r}; fix the label")
