"""The layout in which most papers of the field keep their data: `metadata/<set>/<split>/*.txt` and `dataset/<set>/`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from wsol.datasets.annotations import Rows, are_boxes, read_lines, safe_join
from wsol.datasets.classes import imagenet_names, imagenet_wnids
from wsol.datasets.images import read_mask
from wsol.datasets.sample import Dataset, Pixels, Table, reader
from wsol.errors import UserError

__all__ = ["WSOLEvaluation"]

ROLES = {"train": "train-weaksup", "val": "train-fullsup", "test": "test"}
BOX = ("image id", "x0", "y0", "x1", "y1")
MASK = ("image id", "mask", "ignore mask")
CLASS_FOLDERS = ("CUB", "OpenImages")  # sets whose image ids name the class in every split
HINT = "dataset.root is the folder that holds metadata/<set>/<split>/ and dataset/<set>/"


@reader
def WSOLEvaluation(
    root: str | Path,
    name: str,
    split: str = "test",
    images: str | Path | None = None,
    proxy: bool = False,
    num_val_sample_per_class: int = 0,
    seed: int = 0,
) -> Dataset:
    """CUB (val: CUBV2), ILSVRC (val: ImageNetV2), OpenImages (OpenImages30k), and any other set in this layout.

    A split is `image_ids.txt` and `class_labels.txt` (`id,label`), and where there are any `localization.txt`
    (`id,x0,y0,x1,y1`, or `id,mask,ignore mask`; an image may have several lines) and `image_sizes.txt`
    (`id,width,height`). Images and masks lie in `dataset/<set>/`; nobody looks there before one is read, so ready
    heatmaps can be scored without any image.

    Parameters
    ----------
    root : path
        The folder that holds `metadata/` and `dataset/`.
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

    Raises
    ------
    UserError
        If a file is missing, a line can't be read, the files don't list the same images, or an image id leads out of
        its folder.

    Notes
    -----
    Labels are kept as the files have them. What they mean is nowhere written down, but follows: in CUB and
    OpenImages from the image ids' class folders (`001.Black_footed_Albatross`; `0bt_c3`, a Freebase id without
    `/m/`), looked up in the other splits' `class_labels.txt` too; in ILSVRC label i is the i-th of the sorted WordNet
    ids, as the ids of train and of val (ImageNetV2's folders) show, which is checked. In other sets, class folders
    count where each label has one of its own. A class that is named nowhere is called by its number.

    Boxes are inclusive corners, as annotated. An image's mask is the union of its instances' masks; OpenImages' masks
    may have another resolution than their images.

    References
    ----------
    Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020.
    """
    home = Path(root).expanduser()
    folder = _find(home, str(name), str(split))
    base = home / "dataset" / str(name) if images is None else Path(images).expanduser()
    listing = read_lines(folder / f"image_ids{'_proxy' if proxy else ''}.txt", ["image id"], hint=HINT)
    listing.check_paths("image id", base)
    ids, matcher = listing["image id"], _Matcher(listing, proxy)
    if not ids:
        raise UserError(f"{listing.path} lists no image; is the copy complete?")
    label_rows = read_lines(folder / "class_labels.txt", ["image id", "label"], hint=HINT)
    labels = label_rows.integers("label")[matcher.one_each(label_rows)]
    chosen = _draw(labels, num_val_sample_per_class if split == "val" else 0, seed, label_rows.path)
    columns, wrong_box = _read_truth(folder / "localization.txt", base, matcher)
    columns |= _read_sizes(folder / "image_sizes.txt", matcher)
    columns |= {"sample_id": ids, "image": ids}
    if len(chosen) < len(ids):
        columns = {key: [values[row] for row in chosen] for key, values in columns.items()}
    classes, class_ids = _classes(folder, label_rows)
    return Dataset(
        Table(base, label=labels[chosen], **columns),
        wrong_box=wrong_box,
        name=str(name),
        split=str(split),
        role=ROLES.get(str(split), ""),
        classes=classes,
        class_ids=class_ids,
    )


class _Matcher:
    """Finds the rows of other files that belong to the listed images; a proxy set is a part of what those list."""

    def __init__(self, listing: Rows, proxy: bool) -> None:
        self.positions, self.source, self.proxy = listing.unique("image id"), listing.path, proxy

    def __call__(self, rows: Rows) -> np.ndarray:
        """Image of each row (N,); -1 where it is none of the proxy set's."""
        return rows.match("image id", self.positions, self.source, extra=self.proxy)

    def one_each(self, rows: Rows) -> np.ndarray:
        """Row of each image (number of images,)."""
        rows.unique("image id")
        images = self(rows)
        order = np.argsort(images)
        return order[np.searchsorted(images[order], 0) :]

    def groups(self, rows: Rows) -> list[np.ndarray]:
        """Rows of each image, in their order."""
        images = self(rows)
        order = np.argsort(images, kind="stable")
        bounds = np.searchsorted(images[order], np.arange(len(self.positions) + 1))
        return np.split(order, bounds)[1:-1]


def _find(home: Path, name: str, split: str) -> Path:
    """Folder of a split's files."""
    if not home.is_dir():
        raise UserError(f"dataset.root={home}: no such folder; {HINT}")
    if not (home / "metadata").is_dir():
        raise UserError(f"dataset.root={home}: there is no metadata/ in it; {HINT}")
    folder = home / "metadata"
    for key, value in (("name", name), ("split", split)):
        there = sorted(path.name for path in folder.iterdir() if path.is_dir())
        if value not in there:
            raise UserError(f"dataset.{key}={value}: {folder} has {', '.join(there) or 'no folder'}; pass one of these")
        folder = folder / value
    return folder


def _is_empty(path: Path) -> bool:
    return not path.is_file() or path.stat().st_size == 0


def _read_sizes(path: Path, matcher: _Matcher) -> dict[str, Sequence]:
    """Width and height of each image; nothing where the file is empty, as in OpenImages, or missing."""
    if _is_empty(path):
        return {}
    rows = read_lines(path, ["image id", "width", "height"])
    order = matcher.one_each(rows)
    width, height = (rows.integers(side, least=1)[order].tolist() for side in ("width", "height"))
    return {"image_size": list(zip(width, height, strict=True))}


def _read_truth(path: Path, base: Path, matcher: _Matcher) -> tuple[dict[str, Sequence], str]:
    """Boxes or masks, and what is wrong with a box; splits for training have an empty file or none."""
    if _is_empty(path):
        return {}, ""
    with path.open("rb") as file:
        masks = file.readline().count(b",") == len(MASK) - 1
    rows = read_lines(path, MASK if masks else BOX)
    if masks:
        return _masks(rows, base, matcher), ""
    corners = rows.floats(BOX[1:])
    boxes = [corners[group] if len(group) else None for group in matcher.groups(rows)]
    return {"boxes": boxes}, rows.first_wrong(are_boxes(corners), "is inverted, negative or not finite; fix the box")


def _masks(rows: Rows, base: Path, matcher: _Matcher) -> dict[str, Sequence]:
    rows.check_paths("mask", base)
    masks: list[Pixels] = []
    ignores: list[Path | None] = []
    for image_id, group in zip(matcher.positions, matcher.groups(rows), strict=True):
        paths = tuple(base / rows["mask"][row] for row in group)
        masks.append(paths[0] if len(paths) == 1 else partial(_read_union, paths, image_id))
        ignored = [row for row in group if rows["ignore mask"][row]]
        if len(ignored) > 1:
            rows.refuse(ignored[1], "has the second ignore mask of this image; keep one")
        ignores.append(next((safe_join(base, rows["ignore mask"][r], rows.where(r)) for r in ignored), None))
    return {"mask": masks, "ignore": ignores}


def _read_union(paths: tuple[Path, ...], image_id: str) -> np.ndarray:
    masks = [read_mask(path, image_id) for path in paths]
    for path, mask in zip(paths, masks, strict=True):
        if mask.shape != masks[0].shape:
            raise UserError(
                f"{path} has {mask.shape[1]} x {mask.shape[0]} pixels, {paths[0]} has {masks[0].shape[1]} x "
                f"{masks[0].shape[0]}: masks of one image must have one size; fix them"
            )
    return np.logical_or.reduce(masks)


def _draw(labels: np.ndarray, per_class: int, seed: int, path: Path) -> np.ndarray:
    """Choose so many samples of each class, in their order; 0: all."""
    if per_class == 0:
        return np.arange(len(labels))
    counts = np.bincount(labels)
    fewest = int(counts[counts > 0].min())
    if not 0 < per_class <= fewest:
        raise UserError(
            f"dataset.num_val_sample_per_class={per_class}: class {int(np.flatnonzero(counts == fewest)[0])} of {path} "
            f"has {fewest} images; pass 1 to {fewest}, or 0 for all"
        )
    generator = np.random.default_rng(seed)
    chosen = [
        generator.choice(np.flatnonzero(labels == label), per_class, replace=False) for label in np.flatnonzero(counts)
    ]
    return np.sort(np.concatenate(chosen))


def _classes(folder: Path, labels: Rows) -> tuple[Sequence[str], Sequence[str]]:
    """Names and ids of the classes, as far as they can be known."""
    name = folder.parent.name
    if name == "ILSVRC":
        _check_imagenet(labels)
        return imagenet_names(), imagenet_wnids()
    # The other splits may have more classes, or name those that are missing here.
    others = sorted(path / "class_labels.txt" for path in folder.parent.iterdir() if path != folder)
    files = [labels, *(read_lines(path, tuple(labels.columns)) for path in others if path.is_file())]
    pairs = {pair for file in files for pair in _pairs(file)}
    label_of, count = dict(pairs), 1 + max(label for _, label in pairs)
    if not len(label_of) == len(set(label_of.values())) == len(pairs):
        if name in CLASS_FOLDERS:
            _refuse_mixture(files)
        label_of = {}
    folder_of = {label: folder for folder, label in label_of.items()}
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
    wnids = imagenet_wnids()
    labels.integers("label", most=len(wnids) - 1)
    for row, (folder, label) in enumerate(_pairs(labels)):
        number = folder.isdecimal() and int(folder) != label
        if number or (folder != wnids[label] and re.fullmatch(r"n\d{8}", folder)):
            labels.refuse(row, f"gives label {label} ({wnids[label]}) to an image of folder {folder!r}; fix the label")


def _refuse_mixture(files: Sequence[Rows]) -> None:
    """Name the first line in which folder and label are not the pair that they were before."""
    labels: dict[str, tuple[int, str]] = {}
    folders: dict[int, tuple[str, str]] = {}
    for file in files:
        for row, (folder, label) in enumerate(_pairs(file)):
            earlier_label, label_line = labels.setdefault(folder, (label, file.where(row)))
            earlier_folder, folder_line = folders.setdefault(label, (folder, file.where(row)))
            if earlier_label != label or earlier_folder != folder:
                line = label_line if earlier_label != label else folder_line
                file.refuse(row, f"pairs folder {folder!r} with label {label}, unlike {line}; fix one of them")
