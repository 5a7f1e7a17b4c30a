"""The layout in which most papers of the field keep their data: `metadata/<set>/<split>/*.txt` and `dataset/<set>/`."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from wsol.datasets.box_faults import wrong_boxes_stop
from wsol.datasets.classes import imagenet_names, imagenet_wnids
from wsol.datasets.images import read_mask
from wsol.datasets.inside import inside
from wsol.datasets.listing import Listing
from wsol.datasets.sample import Dataset, Pixels, Sample
from wsol.errors import UserError

__all__ = ["WSOLEvaluation"]

ROLES = {"train": "train-weaksup", "val": "train-fullsup", "test": "test"}
BOX = ("image id", "x0", "y0", "x1", "y1")
MASK = ("image id", "mask", "ignore mask")
CLASS_FOLDERS = ("CUB", "OpenImages")  # sets whose image ids name the class in every split
HINT = "dataset.root is the folder that holds metadata/<set>/<split>/ and dataset/<set>/"


class WSOLEvaluation(Dataset):
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

    def __init__(
        self,
        root: str | Path,
        name: str,
        split: str = "test",
        images: str | Path | None = None,
        proxy: bool = False,
        num_val_sample_per_class: int = 0,
        seed: int = 0,
    ) -> None:
        self.root = Path(root).expanduser()
        self.name, self.split, self.role = str(name), str(split), ROLES.get(str(split), "")
        self.images = self.root / "dataset" / self.name if images is None else Path(images).expanduser()
        folder = _find(self.root, self.name, self.split)
        listing = Listing(folder / f"image_ids{'_proxy' if proxy else ''}.txt", ["image id"], hint=HINT)
        listing.safe("image id", self.images)
        known = listing.keys("image id")
        if not known:
            raise UserError(f"{listing.path} lists no image; is the copy complete?")
        # A proxy set is a part of what the other files list.
        labels = Listing(folder / "class_labels.txt", ["image id", "label"], hint=HINT)
        places = labels.positions("image id", known, listing.path, extra=proxy)
        self._labels = _ordered(labels.integers("label"), places)
        self.classes, self.class_ids = _classes(folder, labels)
        self._ids = listing["image id"]
        self._sizes = _read_sizes(folder / "image_sizes.txt", known, listing.path, proxy)
        self._boxes, self._bounds = np.zeros((0, 4)), np.zeros(len(known) + 1, np.int64)
        self._masks: list[list[Path]] = []
        self._ignores: list[Path | None] = []
        self._read_truth(folder / "localization.txt", known, listing.path, proxy)
        self._kept = _draw(self._labels, num_val_sample_per_class if split == "val" else 0, seed, labels.path)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Sample:
        place = self._kept[index]
        image_id = self._ids[place]
        boxes = self._boxes[self._bounds[place] : self._bounds[place + 1]]
        size = None if self._sizes is None else (int(self._sizes[place, 0]), int(self._sizes[place, 1]))
        return Sample(
            sample_id=image_id,
            label=int(self._labels[place]),
            image=self.images / image_id,
            boxes=boxes if len(boxes) else None,
            mask=_union(self._masks[place], image_id) if self._masks else None,
            ignore=self._ignores[place] if self._masks else None,
            image_size=size,
        )

    @property
    def labels(self) -> np.ndarray:
        """Label of every sample, int64 (N,)."""
        return self._labels[self._kept]

    def _read_truth(self, path: Path, known: dict[str, int], source: Path, proxy: bool) -> None:
        """Read boxes or masks; splits for training have an empty file or none."""
        if not path.is_file() or path.stat().st_size == 0:
            return
        with path.open("rb") as file:
            masks = file.readline().count(b",") == len(MASK) - 1
        truth = Listing(path, MASK if masks else BOX)
        places = truth.positions("image id", known, source, once=False, extra=proxy)
        if masks:
            self._keep_masks(truth, places, len(known))
            return
        boxes = truth.floats(BOX[1:])
        x0, y0, x1, y1 = boxes.T
        right = np.isfinite(boxes).all(axis=1) & (x0 >= 0) & (y0 >= 0) & (x1 >= x0) & (y1 >= y0)
        if wrong_boxes_stop() and not right.all():
            truth.refuse(int(right.argmin()), "has a box that is inverted, negative or not finite; mend it")
        order = np.argsort(places, kind="stable")
        self._boxes = boxes[order]
        self._bounds = np.searchsorted(places[order], np.arange(len(known) + 1))

    def _keep_masks(self, truth: Listing, places: np.ndarray, count: int) -> None:
        truth.safe("mask", self.images)
        self._masks, self._ignores = [[] for _ in range(count)], [None] * count
        for row, (place, mask, ignore) in enumerate(zip(places, truth["mask"], truth["ignore mask"], strict=True)):
            if place < 0:
                continue
            self._masks[place].append(self.images / mask)
            if ignore:
                if self._ignores[place] is not None:
                    truth.refuse(row, "is the second ignore mask of this image; keep one")
                self._ignores[place] = inside(self.images, ignore, truth.where(row))


def _find(root: Path, name: str, split: str) -> Path:
    """Folder of a split's files."""
    if not root.is_dir():
        raise UserError(f"dataset.root={root}: no such folder; {HINT}")
    if not (root / "metadata").is_dir():
        raise UserError(f"dataset.root={root}: there is no metadata/ in it; {HINT}")
    folder = root / "metadata"
    for key, value in (("name", name), ("split", split)):
        there = sorted(path.name for path in folder.iterdir() if path.is_dir())
        if value not in there:
            raise UserError(f"dataset.{key}={value}: {folder} has {', '.join(there) or 'no folder'}; pass one of these")
        folder = folder / value
    return folder


def _ordered(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Bring rows to their places, without those that have none (-1)."""
    found = np.zeros((places.max() + 1, *values.shape[1:]), values.dtype)
    found[places[places >= 0]] = values[places >= 0]
    return found


def _read_sizes(path: Path, known: dict[str, int], source: Path, proxy: bool) -> np.ndarray | None:
    """Width and height of each image, int64 (N, 2); None where the file is empty, as in OpenImages, or missing."""
    if not path.is_file() or path.stat().st_size == 0:
        return None
    sizes = Listing(path, ["image id", "width", "height"])
    places = sizes.positions("image id", known, source, extra=proxy)
    return _ordered(np.stack([sizes.integers(side, least=1) for side in ("width", "height")], axis=1), places)


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
    drawn = [
        generator.choice(np.flatnonzero(labels == label), per_class, replace=False) for label in np.flatnonzero(counts)
    ]
    return np.sort(np.concatenate(drawn))


def _classes(folder: Path, labels: Listing) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and ids of the classes, as far as they can be known."""
    name = folder.parent.name
    if name == "ILSVRC":
        _check_imagenet(labels)
        return imagenet_names(), imagenet_wnids()
    # The other splits may have more classes, or name those that are missing here.
    others = sorted(path / "class_labels.txt" for path in folder.parent.iterdir() if path != folder)
    files = [labels, *(Listing(path, labels.columns) for path in others if path.is_file())]
    pairs = {pair for file in files for pair in zip(_folders(file), file.integers("label").tolist(), strict=True)}
    found, count = dict(pairs), 1 + max(label for _, label in pairs)
    if not len(found) == len(set(found.values())) == len(pairs):
        if name in CLASS_FOLDERS:
            _refuse_mixture(files)
        found = {}
    ids = {label: folder for folder, label in found.items()}
    keys = tuple(ids.get(label) or str(label) for label in range(count))
    return tuple(_spoken(key) for key in keys), keys


def _folders(labels: Listing) -> list[str]:
    """Folder that each image lies in directly, which in most sets is its class's."""
    return [name.rpartition("/")[0].rpartition("/")[2] for name in labels["image id"]]


def _spoken(key: str) -> str:
    """CUB's `001.Black_footed_Albatross` as people say it; other keys as they are."""
    numbered = re.fullmatch(r"\d+\.(.+)", key)
    return numbered[1].replace("_", " ") if numbered else key


def _check_imagenet(labels: Listing) -> None:
    """Make sure that labels mean what ILSVRC's do, where the image ids show it."""
    wnids = imagenet_wnids()
    values = labels.integers("label", most=len(wnids) - 1).tolist()
    for row, (folder, label) in enumerate(zip(_folders(labels), values, strict=True)):
        number = folder.isdecimal() and int(folder) != label
        if number or (folder != wnids[label] and re.fullmatch(r"n\d{8}", folder)):
            labels.refuse(row, f"gives label {label} ({wnids[label]}) to an image of folder {folder!r}; mend the label")


def _refuse_mixture(files: list[Listing]) -> None:
    """Name the first line in which folder and label are not the pair that they were before."""
    labels: dict[str, tuple[int, str]] = {}
    folders: dict[int, tuple[str, str]] = {}
    for file in files:
        for row, (folder, label) in enumerate(zip(_folders(file), file.integers("label").tolist(), strict=True)):
            for theirs, where in (
                labels.setdefault(folder, (label, file.where(row))),
                folders.setdefault(label, (folder, file.where(row))),
            ):
                if theirs not in (label, folder):
                    file.refuse(row, f"pairs folder {folder!r} with label {label}, unlike {where}; mend one of them")


def _union(paths: list[Path], image_id: str) -> Pixels:
    return paths[0] if len(paths) == 1 else partial(_read_union, tuple(paths), image_id)


def _read_union(paths: tuple[Path, ...], image_id: str) -> np.ndarray:
    masks = [read_mask(path, image_id) for path in paths]
    for path, mask in zip(paths, masks, strict=True):
        if mask.shape != masks[0].shape:
            raise UserError(
                f"{path} has {mask.shape[1]} x {mask.shape[0]} pixels, {paths[0]} has {masks[0].shape[1]} x "
                f"{masks[0].shape[0]}: masks of one image must have one size; mend them"
            )
    return np.logical_or.reduce(masks)
