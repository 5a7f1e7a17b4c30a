"""ImageNet's relatives: ILSVRC as image-net.org's archives, its devkit and Kaggle unpack it, and Tiny-ImageNet.

What is looked for below ILSVRC's root, in this order:

- images in `ILSVRC/Data/CLS-LOC/<split>/` (Kaggle), `Data/CLS-LOC/<split>/`, `<split>/` or `ILSVRC2012_img_<split>/`,
  flat or in a folder for each class;
- boxes of val in `LOC_val_solution.csv` (Kaggle) or, as one XML file per image, in `Annotations/CLS-LOC/val/`,
  `ILSVRC2012_bbox_val_v3/`, `bbox/val/`, or beside the images;
- classes and their names in `LOC_synset_mapping.txt`; else they are the 1,000 as torchvision spells them.

An image of val has the class of its folder, else of its annotation, else (then without boxes) the devkit's: line i of
`ILSVRC2012_validation_ground_truth.txt` is image i, and `map_clsloc.txt` or `meta.mat` beside it say which class the
number stands for. The devkit's numbers have an order of their own; nothing is matched by position.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from wsol.datasets.annotations import CORNERS, XML_CORNERS, Rows, read_lines, read_xml, safe_join
from wsol.datasets.sample import Dataset, Size, Table, choose_classes, reader
from wsol.errors import UserError
from wsol.io import imagenet_classes, read_text

# Choe et al. test on val; what they choose thresholds on is ImageNetV2, which WSOLEvaluation reads.
ROLES = {"train": "train-weaksup", "val": "test"}
IMAGES = ("ILSVRC/Data/CLS-LOC/{0}", "Data/CLS-LOC/{0}", "{0}", "ILSVRC2012_img_{0}")
ANNOTATIONS = (
    "ILSVRC/Annotations/CLS-LOC/val", "Annotations/CLS-LOC/val", "ILSVRC2012_bbox_val_v3/val", "ILSVRC2012_bbox_val_v3",
    "bbox/val", "val",
)  # fmt: skip
SUFFIXES = (".jpeg", ".jpg", ".png")
WNID = re.compile(r"n\d{8}")
GROUND_TRUTH = ("ILSVRC2012_validation_ground_truth.txt", "ILSVRC2015_clsloc_validation_ground_truth.txt")


@reader("ilsvrc", ROLES)
def ILSVRC(
    root: str | Path, split: str = "val", images: str | Path | None = None, annotations: str | Path | None = None,
    classes: Sequence[str] | None = None,
) -> Dataset:  # fmt: skip
    """The ImageNet Large Scale Visual Recognition Challenge (Russakovsky et al., IJCV 115, 2015), 1,000 classes.

    Parameters
    ----------
    root : path
        Holds `train/` and `val/`, or Kaggle's `ILSVRC/`; the module says what is looked for.
    split : "train" or "val"
        val has the role `test`, as in Choe et al.
    images, annotations : path, optional
        Where they are, if elsewhere. Annotations: a `LOC_<split>_solution.csv`, or a folder of XML files, flat or in
        class folders. With split=train they are read only if given, and the images that they cover, less than half of
        the 1.28 million, are then the dataset; training needs none.
    classes : sequence of WordNet ids, optional
        Keep these only, in this order.

    Notes
    -----
    Sample ids are `val/ILSVRC2012_val_00000001.JPEG` and `train/n01440764/n01440764_18.JPEG` in every layout, as in
    `WSOLEvaluation`. Boxes are as annotated: corners inclusive, counted from 0. To score ready heatmaps the images
    need not be there. The CSV is read many times faster than 50,000 files, which on their part tell the images' sizes.
    """
    home = Path(root).expanduser()
    synsets = _read_synsets(_beside_kaggle(home, "LOC_synset_mapping.txt"))
    class_ids = choose_classes(list(synsets), classes, "ILSVRC")
    places = [home / place.format(split) for place in IMAGES]
    folder = Path(images).expanduser() if images else next((p for p in places if p.is_dir()), places[0])
    files, truth = _list_files(folder, SUFFIXES), _find_truth(home, split, annotations)
    if split == "val":
        wnid_of = _val_classes(home, folder, files, truth)
    elif truth.rows:
        wnid_of = {name: name.rpartition("_")[0] for name in truth.rows}
    else:
        wnid_of = {name: file.partition("/")[0] for name, file in files.items()}
    for name, wnid in wnid_of.items():
        if wnid not in synsets:
            truth.refuse(name, f"is of class {wnid!r}, none of ILSVRC's {len(synsets)} or of LOC_synset_mapping.txt")
    label_of = {wnid: label for label, wnid in enumerate(class_ids)}
    names = sorted(name for name, wnid in wnid_of.items() if wnid in label_of)
    paths = [f"{wnid_of[name]}/{name}.JPEG" if split == "train" else f"{name}.JPEG" for name in names]
    columns: dict[str, Any] = {
        "sample_id": [f"{split}/{path}" for path in paths],
        "label": [label_of[wnid_of[name]] for name in names],
        "image": [files.get(name, path) for name, path in zip(names, paths, strict=True)],
    }
    columns |= truth.columns(names, wnid_of) if truth.rows else {}
    names_of_classes = [synsets[wnid] for wnid in class_ids]
    return Dataset(Table(folder, **columns), wrong_box=truth.wrong_box, classes=names_of_classes, class_ids=class_ids)


class _Truth:
    """What is annotated in the images of a split, classes and boxes by the stem of the image's file; maybe nothing."""

    def __init__(self, source: Path, objects: Rows, sizes: Mapping[str, Size | None]) -> None:
        self.source, self.objects, self.sizes = source, objects, sizes
        self.rows: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(objects["image"]):
            self.rows[name].append(row)
        self.corners, self.wrong_box = objects.boxes(XML_CORNERS)

    def refuse(self, name: str, why: str) -> NoReturn:
        if name in self.rows:
            self.objects.refuse(self.rows[name][0], why)
        raise UserError(f"image {name} {why}")

    def columns(self, names: Sequence[str], wnid_of: Mapping[str, str]) -> dict[str, list]:
        """Boxes (G, 4) and size of each image: of its objects those of its class."""
        kinds, boxes = self.objects["name"], []
        for name in names:
            # Objects named in words, as some dogs in train are, are of the image's class too.
            rows = [row for row in self.rows[name] if kinds[row] == wnid_of[name] or not WNID.fullmatch(kinds[row])]
            if not rows:
                self.refuse(name, f"is not of the image's class, {wnid_of[name]}, nor is another object; fix one")
            boxes.append(self.corners[rows])
        return {"boxes": boxes, "image_size": [self.sizes.get(name) for name in names]}


def _beside_kaggle(home: Path, name: str) -> Path | None:
    """Find a file that Kaggle puts beside its `ILSVRC/`, which may be the root itself."""
    above = (home.parent,) if home.name == "ILSVRC" else ()
    return next((file for folder in (home, *above) if (file := folder / name).is_file()), None)


def _read_synsets(path: Path | None) -> dict[str, str]:
    """Name of each class by WordNet id, sorted by id: from `LOC_synset_mapping.txt`, else those of ILSVRC-2012."""
    if path is None:
        return imagenet_classes()
    rows = read_lines(path, ["class", "name"], separator=None)
    return {wnid: rows["name"][row] for wnid, row in sorted(rows.unique("class").items())}


def _list_files(folder: Path, suffixes: Sequence[str]) -> dict[str, str]:
    """Files in a folder and in its class folders: the stem of each, and its path below the folder."""
    files: dict[str, str] = {}
    for place, _, names in os.walk(folder, followlinks=True):
        below = "" if place == str(folder) else f"{os.path.relpath(place, folder)}/"
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in suffixes:
                files[stem] = below + name
    return files


def _find_truth(home: Path, split: str, annotations: str | Path | None) -> _Truth:
    places = [] if annotations is None else [Path(annotations).expanduser()]
    if annotations is None and split == "val":
        solution = _beside_kaggle(home, "LOC_val_solution.csv")
        places = [solution] if solution else [home / place for place in ANNOTATIONS]
    for place in places:
        truth = _read_solution(place) if place.suffix == ".csv" else _read_xml_folder(place)
        if truth.rows or annotations is not None:
            return truth
    return _Truth(home, read_xml([])[1], {})


def _read_solution(path: Path) -> _Truth:
    """Read Kaggle's `LOC_val_solution.csv`: `ImageId,PredictionString`, the latter `class x0 y0 x1 y1` repeated."""
    rows = read_lines(path, ["ImageId", "PredictionString"])
    rows.check_paths("ImageId", path.parent)
    rows.unique("ImageId")
    columns: dict[str, list[str]] = {name: [] for name in ("name", *XML_CORNERS, "image")}
    places: list[str | int] = []
    for row, (name, text) in enumerate(zip(rows["ImageId"], rows["PredictionString"], strict=True)):
        words = text.split()
        if name == "ImageId":
            continue
        if not words or len(words) % 5:
            rows.refuse(row, "is not `ImageId,class x0 y0 x1 y1 …`; fix the line")
        count = len(words) // 5
        places += [rows.places[row]] * count
        columns["image"] += [name] * count
        for start, column in enumerate(("name", *XML_CORNERS)):
            columns[column] += words[start::5]
    return _Truth(path, Rows(path, columns, places), {})


def _read_xml_folder(folder: Path) -> _Truth:
    """Read one PASCAL-style file per image, flat or in class folders."""
    files = _list_files(folder, (".xml",))
    sizes, objects = read_xml([folder / file for file in files.values()])
    names = list(files)
    objects.columns["image"] = [names[image] for image in objects["image"]]
    return _Truth(folder, objects, dict(zip(names, sizes, strict=True)))


def _val_classes(home: Path, folder: Path, files: Mapping[str, str], truth: _Truth) -> dict[str, str]:
    """Class of each image, from its folder, its annotation, or the devkit."""
    wnid_of = {name: file.rpartition("/")[0] for name, file in files.items() if "/" in file}
    if not truth.rows:
        return wnid_of | _devkit_classes(home, folder, [name for name in files if name not in wnid_of])
    alone = sorted(files.keys() - truth.rows.keys())
    if alone:
        raise UserError(f"{folder / files[alone[0]]} and {len(alone) - 1} more have no annotation in {truth.source}")
    for name, rows in truth.rows.items():
        kinds = {truth.objects["name"][row] for row in rows}
        if name not in wnid_of and len(kinds) > 1:
            truth.refuse(name, f"is one of {', '.join(sorted(kinds))}, and no folder says which the image stands for")
        wnid_of.setdefault(name, kinds.pop())
    return wnid_of


def _devkit_classes(home: Path, folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Class of each image by the devkit, whose ground truth has a line for image 1, 2, and so on."""
    places = (home, home / "data", *sorted(home.glob("*devkit*/data")), home / "ILSVRC/devkit/data")
    path = next((file for place in places for name in GROUND_TRUTH if (file := place / name).is_file()), None)
    numbers, wnids = ([], {}) if path is None else (read_text(path).split(), _devkit_numbers(path))
    wnid_of = {f"{image:08d}": wnids[number] for image, number in enumerate(numbers, start=1) if number in wnids}
    unknown = [name for name in names if name[-8:] not in wnid_of]
    if unknown:
        what = f"nothing says which class {unknown[0]} has ({len(unknown)} such images in {folder})"
        raise UserError(f"{what}: no class folder, annotation or line of the devkit; pass dataset.annotations=FILE")
    return {name: wnid_of[name[-8:]] for name in names}


def _devkit_numbers(path: Path) -> dict[str, str]:
    """WordNet id of each number that the devkit gives to a class; its order is not that of the logits."""
    table, matrix = path.with_name("map_clsloc.txt"), path.with_name("meta.mat")
    if table.is_file():
        rows = read_lines(table, ["class", "number", "name"], separator=None)
        return dict(zip(rows["number"], rows["class"], strict=True))
    from scipy.io import loadmat  # hardly anyone needs it

    synsets = loadmat(matrix, squeeze_me=True, variable_names=["synsets"])["synsets"]
    return {str(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}


@reader("tiny_imagenet", ROLES)
def TinyImageNet(root: str | Path, split: str = "val", classes: Sequence[str] | None = None) -> Dataset:
    """Tiny-ImageNet in its original layout (Le and Yang, CS 231N, Stanford, 2015): 64 × 64 pixels, a box for each.

    Parameters
    ----------
    root : path
        The folder that holds `train/<wnid>/<wnid>_boxes.txt`, `val/val_annotations.txt`, `wnids.txt` and `words.txt`
        (names, if there). The classes are those of `wnids.txt`, else the folders of `train/`, sorted.
    split : "train" or "val"
        The test split was handed out without labels. So val has the role `test`: it is what figures are reported on,
        and no hyper-parameter should be chosen there unnoticed.
    classes : sequence of WordNet ids, optional
        Keep these only, in this order.
    """
    home = Path(root).expanduser()
    listing, words = home / "wnids.txt", home / "words.txt"
    folders = [] if listing.is_file() else [path.name for path in home.glob("train/n*") if WNID.fullmatch(path.name)]
    wnids = sorted(folders or set(read_text(listing, "dataset.root holds train/, val/ and wnids.txt").split()))
    class_ids = choose_classes(wnids, classes, str(listing))
    parts = {"val": home / "val/val_annotations.txt"}
    if split == "train":
        folders_of = {wnid: safe_join(home / "train", wnid, str(listing)) for wnid in class_ids}
        parts = {f"train/{wnid}": folder / f"{wnid}_boxes.txt" for wnid, folder in folders_of.items()}
    label_of = {wnid: label for label, wnid in enumerate(class_ids)}
    members, wrong_box = set(wnids), ""
    samples: list[tuple[str, int, np.ndarray]] = []
    for folder, path in parts.items():
        of_val, hint = ["class"] if split == "val" else [], "is this Tiny-ImageNet as handed out?"
        rows = read_lines(path, ["file", *of_val, *CORNERS], separator=None, hint=hint)
        rows.check_paths("file", path.parent)
        corners, wrong = rows.boxes(CORNERS)
        wrong_box = wrong_box or wrong
        for row, wnid in enumerate(rows["class"] if of_val else [path.parent.name] * len(rows)):
            if wnid not in members:
                rows.refuse(row, f"is of a class that is not in {listing}; add it there or remove the line")
            if wnid in label_of:
                samples.append((f"{folder}/images/{rows['file'][row]}", label_of[wnid], corners[row]))
    lines = read_text(words).splitlines() if words.is_file() else []
    names = {wnid: name.strip() for wnid, tab, name in (line.partition("\t") for line in lines) if tab}
    files, labels, boxes = ([sample[column] for sample in samples] for column in range(3))
    table = Table(home, sample_id=files, image=files, label=labels, boxes=boxes)
    names = names or imagenet_classes()
    names_of_classes = [names.get(wnid, wnid) for wnid in class_ids]
    return Dataset(table, wrong_box=wrong_box, classes=names_of_classes, class_ids=class_ids)
