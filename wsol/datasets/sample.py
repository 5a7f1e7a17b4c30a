"""What every dataset is made of: samples that know where their pixels are, and the sequence that holds them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsol.datasets.images import read_image, read_mask
from wsol.errors import UserError

__all__ = ["Dataset", "Pixels", "Sample", "check_text"]

Pixels = np.ndarray | Path | Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """One image and one class asked for.

    Parameters
    ----------
    sample_id : str
        `image_id`, or `image_id#class` where an image has several classes.
    label : int
        Index into the dataset's `classes`.
    image : array of uint8 (H, W, 3), path, or function without arguments that returns such an array
        The picture, or where to get it; nothing is decoded before `read_image`.
    boxes : array (G, 4) of float64, optional
        True boxes `x0 y0 x1 y1` in pixels of the original image, corners inclusive; None: no annotation.
    mask, ignore : array of bool (H, W), path, or function, optional
        The object's pixels, and pixels that do not count.
    image_size : (width, height), optional
        Where it is known without decoding the image.
    image_id : str, optional
        By default the sample id; the samples of one image have the same.

    Examples
    --------
    >>> picture = np.zeros((2, 3, 3), np.uint8)
    >>> Sample(sample_id="a", label=0, image=picture, boxes=[[0, 0, 2, 1]]).size()
    (3, 2)
    """

    sample_id: str
    label: int
    image: Pixels
    boxes: np.ndarray | None = None
    mask: Pixels | None = None
    ignore: Pixels | None = None
    image_size: tuple[int, int] | None = None
    image_id: str = ""

    def __post_init__(self) -> None:
        if self.boxes is not None:
            object.__setattr__(self, "boxes", np.asarray(self.boxes, np.float64).reshape(-1, 4))
        check_text(self.sample_id, "sample id")
        if not self.image_id:
            object.__setattr__(self, "image_id", self.sample_id)
        if self.image_size is None and isinstance(self.image, np.ndarray):
            object.__setattr__(self, "image_size", (self.image.shape[1], self.image.shape[0]))

    def read_image(self) -> np.ndarray:
        """Decode the picture: uint8 (H, W, 3). Raises `UserError` naming the file if it can't be decoded."""
        return read_image(self.image, self.sample_id)

    def read_mask(self) -> np.ndarray | None:
        """Decode the object's mask: bool (H, W), or None without one."""
        return None if self.mask is None else read_mask(self.mask, self.sample_id)

    def read_ignore(self) -> np.ndarray | None:
        """Decode the mask of pixels that do not count: bool (H, W), or None without one."""
        return None if self.ignore is None else read_mask(self.ignore, self.sample_id)

    def size(self) -> tuple[int, int]:
        """Width and height in pixels; decodes the image only where the annotation doesn't say."""
        if self.image_size is not None:
            return self.image_size
        height, width = self.read_image().shape[:2]
        return width, height


def check_text(name: str, what: str) -> None:
    """Refuse a name that no table could hold: of a file, say, whose bytes are no UTF-8.

    Raises
    ------
    UserError
        With the name, and what it is.
    """
    try:
        name.isascii() or name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{what} {name!r} is no text in UTF-8, so no table can hold it: rename it") from None


class Dataset(ABC):
    """A sequence of samples with names for its classes. Subclass it for your own data.

    A subclass sets `name`, `split`, `classes` (and `class_ids`, where the files name classes otherwise than
    people do; and `role`, what the split is for in the sense of Choe et al., CVPR 2020: "train-weaksup",
    "train-fullsup" or "test") and defines `__len__` and `__getitem__`. Building a sample must be cheap: paths, not
    pixels.

    Examples
    --------
    >>> class Two(Dataset):
    ...     name, split, classes = "two", "test", ("cat", "dog")
    ...     def __len__(self): return 2
    ...     def __getitem__(self, index):
    ...         return Sample(sample_id=str(index), label=index, image=np.zeros((8, 8, 3), np.uint8))
    >>> Two().labels
    array([0, 1])
    """

    name: str
    split: str
    classes: tuple[str, ...]
    class_ids: tuple[str, ...] = ()
    knobs: Mapping[str, object] = {}
    role: str = ""  # what the split is for: "train-weaksup", "train-fullsup", "test"; "" where nobody said
    multilabel: bool = False  # images show several classes, a sample each: none is "the" class, so Top-k stays empty

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @property
    def labels(self) -> np.ndarray:
        """Label of every sample, int64 (N,)."""
        return np.array([sample.label for sample in self], np.int64)

    @property
    def ids(self) -> tuple[str, ...]:
        """What keys the classes on disk (WordNet ids, say); the names where nothing else does."""
        return tuple(self.class_ids) or tuple(self.classes)
