"""The files of ILSVRC: Kaggle's solutions, XML annotations, synset lists, and the devkit's ground truth."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsol.datasets.box_faults import wrong_boxes_stop
from wsol.datasets.classes import imagenet_names, imagenet_wnids
from wsol.datasets.listing import Listing
from wsol.datasets.voc_xml import read_voc_xml
from wsol.errors import UserError

__all__ = ["WNID", "Truth", "list_files", "read_devkit", "read_solution", "read_synsets", "read_xml_folder"]

WNID = re.compile(r"n\d{8}")
GROUND_TRUTH = ("ILSVRC2012_validation_ground_truth.txt", "ILSVRC2015_clsloc_validation_ground_truth.txt")

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Truth:
    """What is annotated in an image.

    Parameters
    ----------
    where : str
        File (and line) where it is written.
    objects : list of (class, (x0, y0, x1, y1))
        As written: inclusive corners. Some annotations of train name a class in words.
    size : (width, height), optional
    """

    where: str
    objects: list[tuple[str, Box]]
    size: tuple[int, int] | None = None


def list_files(folder: Path, suffixes: Sequence[str]) -> dict[str, str]:
    """Find files in a folder and in its class folders: the stem of each, and its path below the folder.

    Raises
    ------
    UserError
        If two files have one stem.
    """
    found: dict[str, str] = {}
    for entry in os.scandir(folder) if folder.is_dir() else ():
        inner = os.scandir(entry.path) if WNID.fullmatch(entry.name) and entry.is_dir() else (entry,)
        for file in inner:
            stem, suffix = os.path.splitext(file.name)
            if suffix.lower() in suffixes:
                path = file.name if file is entry else f"{entry.name}/{file.name}"
                if stem in found:
                    raise UserError(f"{folder} holds {found[stem]} and {path}: one image twice; remove one of them")
                found[stem] = path
    return found


def read_solution(path: Path) -> dict[str, Truth]:
    """Read Kaggle's `LOC_val_solution.csv`: `ImageId,PredictionString`, the latter `class x0 y0 x1 y1` repeated.

    Raises
    ------
    UserError
        If a row can't be read, or an image has two.
    """
    listing = Listing(path, ["ImageId", "PredictionString"])
    listing.safe("ImageId", path.parent)
    listing.keys("ImageId")
    truths = {}
    for row, (name, text) in enumerate(zip(listing["ImageId"], listing["PredictionString"], strict=True)):
        if row == 0 and name == "ImageId":
            continue
        words = text.split()
        try:
            objects = [(words[i], _box(words[i + 1 : i + 5])) for i in range(0, len(words), 5)]
        except ValueError:
            objects = []
        if not objects:
            listing.refuse(row, "is not `ImageId,class x0 y0 x1 y1 …` with boxes in order; mend the line")
        truths[name] = Truth(listing.where(row), objects)
    return truths


def _box(words: Sequence[str]) -> Box:
    x0, y0, x1, y1 = map(float, words)
    if wrong_boxes_stop() and not (0 <= x0 <= x1 < math.inf and 0 <= y0 <= y1 < math.inf):
        raise ValueError("inverted, negative or not finite")
    return x0, y0, x1, y1


def read_xml_folder(folder: Path) -> dict[str, Truth]:
    """Read one PASCAL-style file per image, flat or in class folders.

    Raises
    ------
    UserError
        If a file can't be read, or has no object.
    """
    truths = {}
    for name, path in list_files(folder, (".xml",)).items():
        size, objects = read_voc_xml(folder / path)
        if not objects:
            raise UserError(f"{folder / path} has no object; add its boxes, or remove file and image")
        truths[name] = Truth(str(folder / path), [(thing.name, thing.box) for thing in objects], size)
    return truths


def read_synsets(path: Path | None) -> dict[str, str]:
    """Name of each class by WordNet id, sorted by id: from `LOC_synset_mapping.txt`, else those of ILSVRC-2012.

    Raises
    ------
    UserError
        If a line doesn't begin with a WordNet id, or one comes twice.
    """
    if path is None:
        return dict(zip(imagenet_wnids(), imagenet_names(), strict=True))
    listing = Listing(path, ["class", "name"], separator=None)
    for row, wnid in enumerate(listing["class"]):
        if not WNID.fullmatch(wnid):
            listing.refuse(row, "does not begin with a WordNet id such as n01440764; mend the line")
    rows = listing.keys("class")
    return {wnid: listing["name"][rows[wnid]] for wnid in sorted(rows)}


def read_devkit(root: Path) -> tuple[Path, list[str]] | None:
    """Read the devkit's ground truth: the class of validation image 1, 2, and so on.

    Parameters
    ----------
    root : Path
        Holds the devkit's folder, or its files.

    Returns
    -------
    path : Path
        Of the ground truth.
    wnids : list of str
        None instead of both where there is none.

    Raises
    ------
    UserError
        If what the numbers mean is not there: `map_clsloc.txt` or `meta.mat` beside it.
    """
    folders = (root, root / "data", *sorted(root.glob("*devkit*/data")), root / "ILSVRC/devkit/data")
    path = next((file for folder in folders for name in GROUND_TRUTH if (file := folder / name).is_file()), None)
    if path is None:
        return None
    listing = Listing(path, ["number"])
    meanings = _read_numbers(path)
    for row, number in enumerate(listing.integers("number").tolist()):
        if number not in meanings:
            listing.refuse(row, f"is not one of the {len(meanings)} classes listed beside it; mend the line")
    return path, [meanings[number] for number in listing.integers("number").tolist()]


def _read_numbers(path: Path) -> dict[int, str]:
    """WordNet id of each number that the devkit gives to a class; its order is not that of the logits."""
    table, matrix = path.with_name("map_clsloc.txt"), path.with_name("meta.mat")
    if table.is_file():
        listing = Listing(table, ["class", "number", "name"], separator=None)
        return dict(zip(listing.integers("number").tolist(), listing["class"], strict=True))
    if not matrix.is_file():
        raise UserError(
            f"{path} numbers the classes in an order of its own, and neither {table.name} nor {matrix.name} lies "
            f"beside it; add one of them"
        )
    from scipy.io import loadmat  # comes with scikit-image; hardly anyone needs it

    try:
        synsets = loadmat(matrix, squeeze_me=True, variable_names=["synsets"])["synsets"]
        return {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
    except Exception as error:  # whatever a damaged file makes of it
        raise UserError(f"{matrix} can't be read as the devkit's: {error}; replace the file") from error
