"""CUB-200-2011 as Caltech hands it out: five text files, `images/`, and segmentations where they were fetched too."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from wsol.datasets.box_faults import wrong_boxes_stop
from wsol.datasets.images import read_size, read_values
from wsol.datasets.labeled import known_split
from wsol.datasets.listing import Listing
from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError

__all__ = ["CUB"]

ROLES = {"train": "train-weaksup", "test": "test"}
BOX = ("x", "y", "width", "height")
MAJORITY = 128  # of 255: three of the five annotators
HINT = "dataset.root is CUB_200_2011/, or the folder that holds it"


class CUB(Dataset):
    """`images.txt`, `bounding_boxes.txt`, `image_class_labels.txt`, `train_test_split.txt`, `classes.txt`.

    Parameters
    ----------
    root : path
        `CUB_200_2011/`, or the folder that holds it.
    split : "train" or "test"
        The roles `train-weaksup` and `test`. Images to choose thresholds on (CUBV2) come with
        `wsol.datasets.WSOLEvaluation`.

    Raises
    ------
    UserError
        If a file is missing, a line can't be read, or the files don't list the same images.

    Notes
    -----
    Class ids are the folders' names (`001.Black_footed_Albatross`), sample ids the files of `images.txt`: both as in
    `WSOLEvaluation`, and so are the boxes, see `inclusive`.

    `segmentations/` (an archive of its own, unpacked in `CUB_200_2011/` or beside it) gives the masks: a pixel is the
    bird's where at least three of the five annotators say so, which is gray 128 and above.

    References
    ----------
    Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", CNS-TR-2011-001, California Institute of Technology, 2011.
    """

    name = "cub"

    def __init__(self, root: str | Path, split: str = "test") -> None:
        known_split("CUB-200-2011", split, tuple(ROLES))
        self.split, self.role = split, ROLES[split]
        above = Path(root).expanduser()
        self.root = above / "CUB_200_2011" if (above / "CUB_200_2011").is_dir() else above
        if not self.root.is_dir():
            raise UserError(f"dataset.root={root}: no such folder; {HINT}")
        images = self._read("images", "image id", "file")
        images.safe("file", self.root / "images")
        images.keys("file")
        self.class_ids, labels = self._read_classes(images)
        self.classes = tuple(name.partition(".")[2].replace("_", " ") or name for name in self.class_ids)
        parts, places = self._beside(images, "train_test_split", "in train")
        chosen = np.zeros(len(images), bool)
        chosen[places] = parts.integers("in train", most=1) == (split == "train")
        if not chosen.any():
            raise UserError(f"{parts.path} has no image in split {split}; is the copy complete?")
        self._names = [images["file"][row] for row in np.flatnonzero(chosen)]
        self._labels, self._boxes = labels[chosen], self._read_boxes(images)[chosen]
        self._sizes: dict[int, tuple[int, int] | None] = {}
        beside = (self.root / "segmentations", self.root.parent / "segmentations")
        self._segmentations = next((folder for folder in beside if folder.is_dir()), None)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        name, size, mask = self._names[index], self._size(index), None
        if self._segmentations is not None:
            mask = partial(_read_majority, (self._segmentations / name).with_suffix(".png"), name)
        return Sample(
            sample_id=name,
            label=int(self._labels[index]),
            image=self.root / "images" / name,
            boxes=inclusive(self._boxes[index], size),
            mask=mask,
            image_size=size,
        )

    @property
    def labels(self) -> np.ndarray:
        """Label of every sample, int64 (N,)."""
        return self._labels

    def _read(self, name: str, *columns: str) -> Listing:
        return Listing(self.root / f"{name}.txt", columns, separator=None, hint=HINT)

    def _beside(self, images: Listing, name: str, *columns: str) -> tuple[Listing, np.ndarray]:
        """Read a file that has one row for each image, and where in `images.txt` each stands."""
        listing = self._read(name, "image id", *columns)
        return listing, listing.positions("image id", images.keys("image id"), images.path)

    def _read_classes(self, images: Listing) -> tuple[tuple[str, ...], np.ndarray]:
        classes = self._read("classes", "class", "name")
        rows = classes.keys("class")
        listing, places = self._beside(images, "image_class_labels", "class")
        for row, number in enumerate(listing["class"]):
            if number not in rows:
                listing.refuse(row, f"has a class that is not in {classes.path}; add it there, or mend the line")
        labels = np.zeros(len(images), np.int64)
        labels[places] = [rows[number] for number in listing["class"]]
        return tuple(classes["name"]), labels

    def _read_boxes(self, images: Listing) -> np.ndarray:
        listing, places = self._beside(images, "bounding_boxes", *BOX)
        boxes = np.zeros((len(images), 4))
        boxes[places] = listing.floats(BOX)
        right = ((boxes >= 0) & np.isfinite(boxes))[places].all(axis=1)
        if wrong_boxes_stop() and not right.all():
            listing.refuse(int(right.argmin()), "is negative or not finite; a box is x y width height, mend it")
        return boxes

    def _size(self, index: int) -> tuple[int, int] | None:
        """Width and height from the image's header; None where there is none, as when ready heatmaps are scored."""
        if index not in self._sizes:
            path = self.root / "images" / self._names[index]
            try:
                self._sizes[index] = read_size(path, self._names[index]) if path.is_file() else None
            except UserError:  # said where the image is read, and on_error=skip can pass it over
                self._sizes[index] = None
        return self._sizes[index]


def inclusive(box: np.ndarray, image_size: tuple[int, int] | None) -> np.ndarray:
    """Corners of Caltech's `x y width height`: x + width is the last column, but never beyond the image.

    Caltech doesn't say whether x + width is the last column or the one behind it. The boxes that touch the right or
    the lower edge do: among the first 2,889, such a side ends at the last pixel 148 times, one behind it 24 times,
    further out 12 times. The metadata that the field evaluates with have the same corners, for all of these.

    Parameters
    ----------
    box : array of float64 (4,)
        x, y, width, height.
    image_size : (width, height), optional
        None: the image isn't there, and a box may end one to three pixels late.

    Returns
    -------
    array of float64 (1, 4)

    Examples
    --------
    >>> inclusive(np.array([0.0, 20.0, 500.0, 100.0]), (500, 375))
    array([[  0.,  20., 499., 120.]])
    """
    x0, y0, width, height = box.tolist()
    x1, y1 = x0 + width, y0 + height
    if image_size is not None:
        x1, y1 = min(x1, image_size[0] - 1), min(y1, image_size[1] - 1)
    return np.array([[x0, y0, x1, y1]])


def _read_majority(path: Path, name: str) -> np.ndarray:
    return read_values(path, name) >= MAJORITY
