"""ILSVRC (ImageNet-1k) in the layouts it is handed out in: image-net.org's archives and devkit, Kaggle's folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from wsol.datasets.ilsvrc_files import (
    WNID,
    Truth,
    list_files,
    read_devkit,
    read_solution,
    read_synsets,
    read_xml_folder,
)
from wsol.datasets.labeled import known_split
from wsol.datasets.sample import Dataset, Sample
from wsol.datasets.subset import choose_classes
from wsol.errors import UserError

__all__ = ["ILSVRC"]

# Choe et al. test on val; what they choose thresholds on is ImageNetV2, which WSOLEvaluation reads.
ROLES = {"train": "train-weaksup", "val": "test"}
IMAGES = ("ILSVRC/Data/CLS-LOC/{0}", "Data/CLS-LOC/{0}", "{0}", "ILSVRC2012_img_{0}")
ANNOTATIONS = (
    "LOC_{0}_solution.csv", "ILSVRC/Annotations/CLS-LOC/{0}", "Annotations/CLS-LOC/{0}", "ILSVRC2012_bbox_{0}_v3/{0}",
    "ILSVRC2012_bbox_{0}_v3", "bbox/{0}", "{0}",
)  # fmt: skip
SUFFIXES = (".jpeg", ".jpg", ".png")


class ILSVRC(Dataset):
    """The ImageNet Large Scale Visual Recognition Challenge, 1,000 classes keyed by WordNet id.

    What is looked for below the root, in this order:

    - images in `ILSVRC/Data/CLS-LOC/<split>/` (Kaggle), `Data/CLS-LOC/<split>/`, `<split>/` or
      `ILSVRC2012_img_<split>/`, flat or in a folder for each class;
    - boxes of val in `LOC_val_solution.csv` (Kaggle) or, as one XML file per image, in `Annotations/CLS-LOC/val/`,
      `ILSVRC2012_bbox_val_v3/`, `bbox/val/`, or beside the images;
    - classes and their names in `LOC_synset_mapping.txt`; else they are the 1,000 as torchvision spells them.

    An image of val has the class of its folder, else of its annotation, else (then without boxes) the devkit's: line
    i of `ILSVRC2012_validation_ground_truth.txt` is image i, and `map_clsloc.txt` or `meta.mat` beside it say which
    class the number stands for. The devkit's numbers have an order of their own; nothing is matched by position.

    Parameters
    ----------
    root : path
    split : "train" or "val"
        val has the role `test`, as in Choe et al.
    images, annotations : path, optional
        Where they are, if elsewhere. Annotations: a `LOC_<split>_solution.csv`, or a folder of XML files, flat or in
        class folders. With split=train they are read only if given, and the images that they cover, less than half of
        the 1.28 million, are then the dataset; training needs none.
    classes : sequence of WordNet ids, optional
        Keep these only, in this order.

    Raises
    ------
    UserError
        If a file is missing or can't be read, a class is unknown, or an image has no class or no box of its class.

    Notes
    -----
    Sample ids are `val/ILSVRC2012_val_00000001.JPEG` and `train/n01440764/n01440764_18.JPEG` in every layout, as in
    `WSOLEvaluation`. Boxes are as annotated: corners inclusive, counted from 0. To score ready heatmaps the images
    need not be there. The CSV is read many times faster than 50,000 files, which on their part tell the images' sizes.

    References
    ----------
    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 115, 2015.
    """

    name = "ilsvrc"

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        images: str | Path | None = None,
        annotations: str | Path | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        known_split("ILSVRC", split, tuple(ROLES))
        self.split, self.role = split, ROLES[split]
        self.root = Path(root).expanduser()
        if not self.root.is_dir():
            raise UserError(
                f"dataset.root={root}: no such folder; pass the one that holds train/ and val/, or Kaggle's ILSVRC/"
            )
        synsets = read_synsets(self._beside_kaggle("LOC_synset_mapping.txt"))
        self.class_ids = choose_classes(list(synsets), classes, "ILSVRC")
        self.classes = tuple(synsets[wnid] for wnid in self.class_ids)
        self.images = self._find_images(images)
        files, truths = list_files(self.images, SUFFIXES), self._read_truths(annotations)
        wnids = self._train_classes(files, truths) if split == "train" else self._val_classes(files, truths)
        _check_classes(wnids, synsets, files, truths, self.images)
        index = {wnid: label for label, wnid in enumerate(self.class_ids)}
        names = sorted(name for name, wnid in wnids.items() if wnid in index)
        if not names:
            raise UserError(
                f"dataset.root={root}: no image of split {split} and the {len(index)} classes asked for, neither in "
                f"{self.images} nor in annotations; pass dataset.images=FOLDER or dataset.annotations=FILE"
            )
        self._labels = np.array([index[wnids[name]] for name in names], np.int64)
        folder = {name: f"{wnids[name]}/" if split == "train" else "" for name in names}
        self._files = [files.get(name, f"{folder[name]}{name}.JPEG") for name in names]
        self._truths = [_own(truths[name], wnids[name]) for name in names] if truths else []

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        file, label = self._files[index], int(self._labels[index])
        truth = self._truths[index] if self._truths else None
        folder = f"train/{self.class_ids[label]}" if self.split == "train" else "val"
        return Sample(
            sample_id=f"{folder}/{Path(file).stem}.JPEG",
            label=label,
            image=self.images / file,
            boxes=None if truth is None else np.array([box for _, box in truth.objects]),
            image_size=None if truth is None else truth.size,
        )

    @property
    def labels(self) -> np.ndarray:
        """Label of every sample, int64 (N,)."""
        return self._labels

    def _beside_kaggle(self, name: str) -> Path | None:
        """Find a file that Kaggle puts beside its `ILSVRC/`, which may be the root itself."""
        above = (self.root.parent,) if self.root.name == "ILSVRC" else ()
        return next((file for folder in (self.root, *above) if (file := folder / name).is_file()), None)

    def _find_images(self, given: str | Path | None) -> Path:
        if given is not None:
            folder = Path(given).expanduser()
            if not folder.is_dir():
                raise UserError(f"dataset.images={given}: no such folder; pass the one with the images of {self.split}")
            return folder
        places = [self.root / place.format(self.split) for place in IMAGES]
        return next((place for place in places if place.is_dir()), places[0])

    def _read_truths(self, given: str | Path | None) -> dict[str, Truth]:
        """Read boxes by the stem of the image's file; empty where there are none."""
        places: list[Path] = []
        if given is not None:
            places = [Path(given).expanduser()]
        elif self.split == "val":
            solution = self._beside_kaggle(ANNOTATIONS[0].format(self.split))
            places = [solution] if solution else [self.root / place.format(self.split) for place in ANNOTATIONS[1:]]
        for place in places:
            truths = (read_solution if place.suffix == ".csv" else read_xml_folder)(place)
            if truths:
                self.annotations = place
                return truths
        if given is not None:
            raise UserError(f"dataset.annotations={given} holds no annotation; pass a CSV or a folder of XML files")
        return {}

    def _train_classes(self, files: Mapping[str, str], truths: Mapping[str, Truth]) -> dict[str, str]:
        """Class folder of each image; where annotations were given, of those only."""
        if truths:
            return {name: name.rpartition("_")[0] for name in truths}
        for file in files.values():
            if "/" not in file:
                raise UserError(
                    f"{self.images / file}: training images lie in a folder for each class, as n01440764/; move it "
                    f"there, or pass dataset.images=FOLDER"
                )
        return {name: file.partition("/")[0] for name, file in files.items()}

    def _val_classes(self, files: Mapping[str, str], truths: Mapping[str, Truth]) -> dict[str, str]:
        """Class of each image, from its folder, its annotation, or the devkit."""
        alone = sorted(files.keys() - truths.keys()) if truths else []
        if alone:
            raise UserError(
                f"{self.images / files[alone[0]]} has no annotation in {self.annotations} ({len(alone)} of {len(files)}"
                f" images); complete them, or pass dataset.annotations=FILE"
            )
        found = {name: folder for name, file in files.items() if (folder := file.rpartition("/")[0])}
        for name, truth in truths.items():
            kinds = {kind for kind, _ in truth.objects}
            if name not in found:
                if len(kinds) > 1:
                    raise UserError(
                        f"{truth.where}: objects of {len(kinds)} classes ({', '.join(sorted(kinds))}), and no folder "
                        f"says which the image stands for; mend it"
                    )
                found[name] = kinds.pop()
        return found | self._devkit_classes([name for name in files if name not in found])

    def _devkit_classes(self, names: Sequence[str]) -> dict[str, str]:
        if not names:
            return {}
        devkit = read_devkit(self.root)
        if devkit is None:
            raise UserError(
                f"nothing says which class {names[0]} has ({len(names)} such images in {self.images}): looked for "
                f"class folders, for {', '.join(ANNOTATIONS[:3]).format(self.split)}, and for the devkit's "
                f"ground truth; pass dataset.annotations=FILE"
            )
        path, wnids = devkit
        found = {}
        for name in names:
            number = name.rpartition("_")[2]
            if not number.isdecimal() or not 1 <= int(number) <= len(wnids):
                raise UserError(
                    f"{self.images / name}: {path} has lines 1 to {len(wnids)}, none for this image; remove it"
                )
            found[name] = wnids[int(number) - 1]
        return found


def _check_classes(
    wnids: Mapping[str, str],
    synsets: Mapping[str, str],
    files: Mapping[str, str],
    truths: Mapping[str, Truth],
    images: Path,
) -> None:
    for name, wnid in wnids.items():
        if wnid not in synsets:
            where = truths[name].where if name in truths else str(images / files[name])
            raise UserError(
                f"{where}: class {wnid!r} is not one of ILSVRC's {len(synsets)}; mend it, or list the classes of this "
                f"data in LOC_synset_mapping.txt below dataset.root"
            )


def _own(truth: Truth, wnid: str) -> Truth:
    """Keep the objects of the image's class; those that are named in words, as some dogs in train are, are of it."""
    objects = [(kind, box) for kind, box in truth.objects if kind == wnid or not WNID.fullmatch(kind)]
    if not objects:
        kinds = ", ".join(sorted({kind for kind, _ in truth.objects}))
        raise UserError(f"{truth.where}: the image is of class {wnid}, its objects of {kinds}; mend one of them")
    return Truth(truth.where, objects, truth.size)
