"""CUB-200-2011 as Caltech hands it out: five text files, `images/`, and segmentations where they were fetched too."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from wsol.datasets.annotations import Rows, are_boxes, read_lines
from wsol.datasets.images import read_values
from wsol.datasets.sample import Dataset, Sample, Size, Table, find_home, reader, size_or_none

BOX = ("x", "y", "width", "height")
MAJORITY = 128  # of 255: three of the five annotators
HINT = "dataset.root is CUB_200_2011/, or the folder that holds it"


@reader("cub", {"train": "train-weaksup", "test": "test"})
def CUB(root: str | Path, split: str = "test") -> Dataset:
    """CUB-200-2011 (Wah et al., CNS-TR-2011-001, California Institute of Technology, 2011).

    Parameters
    ----------
    root : path
        `CUB_200_2011/`, with `images.txt`, `bounding_boxes.txt`, `image_class_labels.txt`, `train_test_split.txt` and
        `classes.txt`, or the folder that holds it.
    split : "train" or "test"
        Images to choose thresholds on (CUBV2) come with `wsol.datasets.WSOLEvaluation`.

    Notes
    -----
    Class ids are the folders' names (`001.Black_footed_Albatross`), sample ids the files of `images.txt`; ids and
    boxes are those of `WSOLEvaluation`. `segmentations/` (an archive of its own, unpacked in `CUB_200_2011/` or beside
    it) gives the masks: a pixel is the bird's where at least three of the five annotators say so, gray 128 and above.
    """
    home = find_home(root, "CUB_200_2011")
    images, classes = _read(home, "images", "image id", "file"), _read(home, "classes", "class", "name")
    images.check_paths("file", home / "images")
    images.unique("file")
    boxes, parts = _read(home, "bounding_boxes", "image id", *BOX), _read(home, "train_test_split", "image id", "train")
    corners = boxes.numbers(BOX)
    corners[:, 2:] += corners[:, :2]
    in_train = parts.integers("train", most=1)[parts.one_each(images, "image id")]
    chosen = np.flatnonzero(in_train == (split == "train"))
    files = [images["file"][row] for row in chosen]
    columns = {"boxes": corners[boxes.one_each(images, "image id")][chosen]}
    masks = next((f for f in (home / "segmentations", home.parent / "segmentations") if f.is_dir()), None)
    if masks is not None:
        columns["mask"] = [partial(_read_majority, (masks / file).with_suffix(".png"), file) for file in files]
    labels = _read(home, "image_class_labels", "image id", "class")
    label = labels.match(classes, "class", whole=False)[labels.one_each(images, "image id")][chosen]
    return Dataset(
        Table(home / "images", sample_id=files, image=files, label=label, **columns),
        measure=_end_with_image,
        wrong_box=boxes.first_wrong(are_boxes(corners), "has an x y width height that is negative or not finite"),
        classes=[name.partition(".")[2].replace("_", " ") or name for name in classes["name"]],
        class_ids=classes["name"],
    )


def _read(home: Path, name: str, *columns: str) -> Rows:
    return read_lines(home / f"{name}.txt", columns, separator=None, hint=HINT)


def _read_majority(path: Path, name: str) -> np.ndarray:
    return read_values(path, name) >= MAJORITY


def _end_with_image(sample: Sample) -> tuple[np.ndarray | None, Size | None]:
    """Bring the box's last column and row, x + width and y + height, to the image's last, where that is there.

    Caltech doesn't say whether x + width is the last column or the one behind it. The boxes that touch the right or
    the lower edge do: among the first 2,889, such a side ends at the last pixel 148 times, one behind it 24 times,
    further out 12 times. The metadata that the field evaluates with have the same corners, for all of these.
    """
    size = size_or_none(sample.image)
    limits = (np.inf, np.inf) if size is None else (size[0] - 1, size[1] - 1)
    return np.minimum(np.asarray(sample.boxes), [np.inf, np.inf, *limits]), size
