"""Oxford-IIIT Pet through torchvision: 37 breeds, a trimap for every picture, and boxes made of the trimaps."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from torchvision import datasets

from wsol.datasets.images import read_values
from wsol.datasets.labeled import known_split, open_torchvision
from wsol.datasets.listing import Listing
from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError

__all__ = ["OxfordPet"]

COLUMNS = ("picture", "breed", "species", "number")
PET, BACKGROUND, BORDER = 1, 2, 3
ROLES = {"trainval": "train-weaksup", "test": "test"}


class OxfordPet(Dataset):
    """`oxford-iiit-pet/` with `images/`, `annotations/<split>.txt` and `annotations/trimaps/`.

    Parameters
    ----------
    root : path
        The folder that holds `oxford-iiit-pet/`, or that folder itself.
    split : "trainval" or "test"
    download : bool
        Fetch it first where it is missing.

    Raises
    ------
    UserError
        If a file is missing or a line can't be read; when a sample is made, if its trimap is no trimap.

    Notes
    -----
    A trimap tells pet, background and border, the band where the annotators did not decide. The mask is the pet, and
    the border is ignored: PxAP counts neither a hit nor a false alarm there. The box surrounds pet and border
    together, since thin parts such as tails and ears are all border. The boxes in `annotations/xmls/` are of the heads
    only, and only of some pictures, so they are not used.

    References
    ----------
    Parkhi et al., "Cats and Dogs", CVPR 2012.
    """

    name = "pet"

    def __init__(self, root: str | Path, split: str = "test", download: bool = False) -> None:
        known_split(self.name, split, ("trainval", "test"))
        base = Path(root).expanduser()
        base = base.parent if base.name == "oxford-iiit-pet" else base
        home = base / "oxford-iiit-pet"
        file = home / "annotations" / f"{split}.txt"
        if file.is_file():
            _read(file)  # a damaged line is named here; torchvision stumbles over it without saying which
        open_torchvision(datasets.OxfordIIITPet, self.name, base, split=split, download=download)
        listing = _read(file)
        self.split, self.role = split, ROLES[split]
        self._names = listing["picture"]
        self._images, self._trimaps = home / "images", home / "annotations" / "trimaps"
        _, first, self._labels = np.unique(listing.integers("breed"), return_index=True, return_inverse=True)
        self.classes = tuple(_breed(self._names[row]) for row in first)
        self._boxes: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        name = self._names[index]
        trimap = self._trimaps / f"{name}.png"
        if index not in self._boxes:  # decoding a trimap takes longer than all else here
            values = _trimap(trimap, name)
            if not (values == PET).any():
                raise UserError(f"{trimap} has no pixel of the pet (value 1); replace the file")
            rows, columns = np.nonzero(values != BACKGROUND)
            self._boxes[index] = np.array([[columns.min(), rows.min(), columns.max(), rows.max()]], np.float64)
        return Sample(
            sample_id=name,
            label=int(self._labels[index]),
            image=self._images / f"{name}.jpg",
            boxes=self._boxes[index],
            mask=partial(_pixels, trimap, name, PET),
            ignore=partial(_pixels, trimap, name, BORDER),
        )

    @property
    def labels(self) -> np.ndarray:
        """Label of every sample, int64 (N,)."""
        return self._labels


def _read(file: Path) -> Listing:
    listing = Listing(file, COLUMNS, separator=None)
    for column in COLUMNS[1:]:
        listing.integers(column, least=1)
    listing.safe("picture", file.parent)
    if not len(listing):
        raise UserError(f"{file} lists no pictures; replace the file")
    return listing


def _breed(name: str) -> str:
    return " ".join(part.title() for part in name.split("_")[:-1])


def _trimap(path: Path, name: str) -> np.ndarray:
    values = read_values(path, name)
    if values.min() < PET or values.max() > BORDER:
        raise UserError(
            f"{path} has values {values.min()} to {values.max()}; a trimap has 1 (pet), 2 (background) and 3 (border): "
            f"replace the file"
        )
    return values


def _pixels(path: Path, name: str, value: int) -> np.ndarray:
    return _trimap(path, name) == value
