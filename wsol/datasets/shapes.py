"""The Shapes set: pictures made on the fly, where a small mark tells the class, not the object around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from wsol.datasets.sample import Dataset, Sample
from wsol.datasets.shapes_glyphs import GLYPH_NAMES, glyph_table, sine_table
from wsol.datasets.shapes_kernel import label_of, render, stream
from wsol.errors import UserError

__all__ = ["Shapes"]

_LENGTHS = {"train": 20_000, "val": 1_000, "test": 500}
_ROLES = {"train": "train-weaksup", "val": "train-fullsup", "test": "test"}


class Shapes(Dataset):
    """Generated pictures of shapes on textured ground, with exact boxes and masks.

    An object is a body whose form, color, size and place say nothing about its class, and one small glyph on
    it that says everything. Around it lie plain polygons and marks of no class. Every image is a function of
    (seed, split, index) and the knobs, the same to the byte on every machine.

    Parameters
    ----------
    split : "train", "val" or "test"
        Splits share no image.
    length : int, optional
        Number of images; by default 20,000, 1,000 and 500. An image does not depend on it.
    size : int
        Side of the square image in pixels, 16 to 1024.
    classes : int
        Number of classes, 2 to 24; each comes equally often.
    object_size : (smallest, largest)
        Longer side of the body's box as a share of the image's side, in (0, 0.95].
    glyph : float
        Side of the class-telling glyph as a share of the object's, in (0, 0.6].
    glyph_pixels : int
        The least side of a glyph in pixels, 5 or more.
    distractors, false_marks : int
        How many plain polygons, and marks that belong to no class, lie behind the objects; 0 to 100.
    background_bias : float
        Share of the images whose ground has their class's own texture, in [0, 1]; the others draw from 24.
    objects : int
        Objects in each image, 1 to 8, all of one class and apart from each other; where they are many, they
        are smaller than `object_size` says.
    seed : int
        0 or more; another seed, other images of the same kind.

    Raises
    ------
    UserError
        If a knob is out of its range, or glyphs as large as asked don't fit.

    Examples
    --------
    >>> sample = Shapes(split="test", length=20)[3]
    >>> sample.sample_id, sample.read_image().shape, sample.boxes.shape
    ('test/00003', (96, 96, 3), (1, 4))
    """

    name = "shapes"

    def __init__(
        self,
        split: str = "test",
        length: int | None = None,
        size: int = 96,
        classes: int = 10,
        object_size: Sequence[float] = (0.28, 0.70),
        glyph: float = 0.35,
        glyph_pixels: int = 10,
        distractors: int = 4,
        false_marks: int = 2,
        background_bias: float = 0.0,
        objects: int = 1,
        seed: int = 0,
    ) -> None:
        if split not in _LENGTHS:
            raise UserError(f"Shapes has no split {split!r}: choose dataset.split from {', '.join(_LENGTHS)}")
        self.split, self.role = split, _ROLES[split]
        self.length = _whole("length", _LENGTHS[split] if length is None else length, 1, 10**8)
        self.seed = _whole("seed", seed, 0, 2**63 - 1)
        self.size = _whole("size", size, 16, 1024)
        count = _whole("classes", classes, 2, len(GLYPH_NAMES))
        pair = isinstance(object_size, Sequence) and not isinstance(object_size, str)
        if not pair or len(object_size) != 2:
            raise UserError(f"dataset.object_size = {object_size!r}: give two shares of the side, [0.28, 0.7]")
        smallest, largest = (_share("object_size", share, 1, 950) for share in object_size)
        if smallest > largest:
            raise UserError(f"dataset.object_size = {object_size!r}: the smaller share comes first")
        shares = {"glyph": _share("glyph", glyph, 1, 600)}
        shares["background_bias"] = _share("background_bias", background_bias, 0, 1000)
        counts = {"glyph_pixels": _whole("glyph_pixels", glyph_pixels, 5, 1024)}
        counts["distractors"] = _whole("distractors", distractors, 0, 100)
        counts["false_marks"] = _whole("false_marks", false_marks, 0, 100)
        counts["objects"] = _whole("objects", objects, 1, 8)
        self._check_fit(smallest, counts["glyph_pixels"], counts["objects"])
        self._knobs: dict[str, object] = {"size": self.size, "classes": count}
        self._knobs["object_size"] = [smallest / 1000, largest / 1000]  # equal to what JSON gives back
        self._knobs.update({knob: share / 1000 for knob, share in shares.items()})
        self._knobs.update(counts)
        self.classes = GLYPH_NAMES[:count]
        self._split = tuple(_LENGTHS).index(split)
        flat = [self.size, count, smallest, largest, shares["glyph"], counts["glyph_pixels"]]
        flat += [counts["distractors"], counts["false_marks"], shares["background_bias"], counts["objects"]]
        self._flat = np.array(flat, np.int64)
        self._tables = (glyph_table(), sine_table())

    def _check_fit(self, smallest: int, pixels: int, objects: int) -> None:
        """Refuse glyphs that are larger than the smallest object or than an object's share of the picture."""
        if pixels * 1000 > smallest * self.size:
            raise UserError(
                f"dataset.glyph_pixels = {pixels} exceeds the smallest object, {smallest / 1000:g} of "
                f"{self.size} pixels: raise dataset.object_size or dataset.size, or lower this"
            )
        room = self.size * (1000 if objects == 1 else 450 if objects <= 4 else 200) // 1000
        if pixels * 3 // 2 + 4 > room:
            raise UserError(
                f"dataset.objects = {objects} leaves {room} of {self.size} pixels to an object, too few for "
                f"a glyph of {pixels}: lower dataset.objects or dataset.glyph_pixels, or raise dataset.size"
            )

    @property
    def knobs(self) -> Mapping[str, object]:  # type: ignore[override]
        """What a classifier for these images depends on; split, length and seed are not among them."""
        return dict(self._knobs)

    @property
    def labels(self) -> np.ndarray:
        """Label of every image without drawing it: int64 (N,)."""
        return np.array([self._label(index) for index in range(self.length)], np.int64)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not -self.length <= index < self.length:
            raise IndexError(f"index {index} of {self.length} images")
        index = int(index) % self.length
        label = self._label(index)
        canvas = np.empty((self.size, self.size, 3), np.int64)
        mask = np.zeros((self.size, self.size), np.bool_)
        boxes = np.empty((self._flat[-1], 4), np.int64)
        render(stream(self.seed, self._split, index), label, self._flat, *self._tables, canvas, mask, boxes)
        name, image = f"{self.split}/{index:05d}", canvas.astype(np.uint8)
        return Sample(sample_id=name, label=label, image=image, boxes=boxes, mask=mask)

    def _label(self, index: int) -> int:
        return int(label_of(self.seed, self._split, index, len(self.classes)))


def _whole(knob: str, value: object, low: int, high: int) -> int:
    """Return a whole number in [low, high], or the error that says so."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise UserError(f"dataset.{knob} = {value!r}: give a whole number from {low} to {high}")
    return int(value)


def _share(knob: str, value: object, low: int, high: int) -> int:
    """Return a share in whole thousandths in [low, high], or the error that says so."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not low <= 1000 * value <= high:  # type: ignore[operator]
        raise UserError(f"dataset.{knob} = {value!r}: give a number from {low / 1000:g} to {high / 1000:g}")
    return round(1000 * value)  # type: ignore[operator]
