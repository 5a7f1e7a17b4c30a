"""The Shapes set: pictures made on the fly, where a small mark tells the class, not the object around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

import numpy as np

from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError

LENGTHS = {"train": 20_000, "val": 1_000, "test": 500}
ROLES = {"train": "train-weaksup", "val": "train-fullsup", "test": "test"}
GLYPH_NAMES = (
    "ring", "cross", "triangle", "bars", "arch", "tee", "disc", "zigzag", "corner", "dots", "arrow",
    "hourglass", "comb", "frame", "heart", "wye", "rails", "moon", "pair", "target", "key", "bar", "aitch",
    "star",
)  # fmt: skip


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
        self, split: str = "test", length: int | None = None, size: int = 96, classes: int = 10,
        object_size: Sequence[float] = (0.28, 0.70), glyph: float = 0.35, glyph_pixels: int = 10, distractors: int = 4,
        false_marks: int = 2, background_bias: float = 0.0, objects: int = 1, seed: int = 0,
    ) -> None:  # fmt: skip
        from wsol.datasets.shapes_kernel import Knobs  # here: other datasets don't compile the kernel

        if split not in LENGTHS:
            raise UserError(f"Shapes has no split {split!r}: choose dataset.split from {', '.join(LENGTHS)}")
        if not isinstance(object_size, Sequence) or isinstance(object_size, str) or len(object_size) != 2:
            raise UserError(f"dataset.object_size = {object_size!r}: give two shares of the side, [0.28, 0.7]")
        smallest, largest = (_share("object_size", share, 1, 950) for share in object_size)
        if smallest > largest:
            raise UserError(f"dataset.object_size = {object_size!r}: the smaller share comes first")
        self.split, self.role, self._split = split, ROLES[split], tuple(LENGTHS).index(split)
        self.length = _whole("length", LENGTHS[split] if length is None else length, 1, 10**8)
        self.seed = _whole("seed", seed, 0, 2**63 - 1)
        self._knobs = Knobs(
            size=_whole("size", size, 16, 1024),
            classes=_whole("classes", classes, 2, len(GLYPH_NAMES)),
            object_size=(smallest, largest),
            glyph=_share("glyph", glyph, 1, 600),
            background_bias=_share("background_bias", background_bias, 0, 1000),
            glyph_pixels=_whole("glyph_pixels", glyph_pixels, 5, 1024),
            distractors=_whole("distractors", distractors, 0, 100),
            false_marks=_whole("false_marks", false_marks, 0, 100),
            objects=_whole("objects", objects, 1, 8),
        )
        self._check_fit()
        self.classes = GLYPH_NAMES[:classes]
        self._glyphs = glyph_table()

    def _check_fit(self) -> None:
        """Refuse glyphs that are larger than the smallest object or than an object's share of the picture."""
        size, pixels, objects = self._knobs.size, self._knobs.glyph_pixels, self._knobs.objects
        smallest = size * self._knobs.object_size[0] / 1000
        if pixels > smallest:
            raise UserError(f"dataset.glyph_pixels = {pixels} exceeds the smallest object, {smallest:g} pixels")
        room = size * (1000 if objects == 1 else 450 if objects <= 4 else 200) // 1000
        if pixels * 3 // 2 + 4 > room:
            reason = f"leaves {room} pixels to an object, too few for a glyph of {pixels}: raise dataset.size"
            raise UserError(f"dataset.objects = {objects} {reason}")

    @property
    def knobs(self) -> Mapping[str, object]:  # type: ignore[override]
        """What a classifier for these images depends on, equal to what JSON gives back; not split, length and seed."""
        knobs: dict[str, object] = self._knobs._asdict()
        knobs["object_size"] = [share / 1000 for share in self._knobs.object_size]
        return knobs | {name: getattr(self._knobs, name) / 1000 for name in ("glyph", "background_bias")}

    @property
    def labels(self) -> np.ndarray:
        """Label of every image without drawing it: int64 (N,)."""
        return np.array([self._label(index) for index in range(self.length)], np.int64)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        from wsol.datasets.shapes_kernel import render

        index = range(self.length)[index]
        label = self._label(index)
        canvas, mask, boxes = render(self.seed, self._split, index, label, self._knobs, self._glyphs)
        name, image = f"{self.split}/{index:05d}", canvas.astype(np.uint8)
        return Sample(sample_id=name, label=label, image=image, boxes=boxes, mask=mask)

    def _label(self, index: int) -> int:
        from wsol.datasets.shapes_kernel import label_of

        return int(label_of(self.seed, self._split, index, self._knobs.classes))


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


def glyph_table() -> np.ndarray:
    """Every mark, its corners rounded, with a border: int64 (24 + 6, 13, 13), 0 … 256; the last six have no class.

    No two of the first 24 become each other when turned or mirrored, so turns and flips keep a label true.
    """
    marks = []
    for block in files("wsol.datasets").joinpath("shapes_glyphs.txt").read_text("ascii").split("\n\n"):
        rows = [line.split() for line in block.splitlines()]
        marks += [[row[column] for row in rows] for column in range(len(rows[0]))]
    table = np.zeros((len(marks), 13, 13), np.int64)
    for mark, picture in zip(table, marks, strict=True):
        mark[1:-1, 1:-1] = [[16 * (cell == "#") for cell in row] for row in picture]
    wide = np.pad(table, ((0, 0), (1, 1), (1, 1)))
    wide = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
    return wide[:, :, :-2] + 2 * wide[:, :, 1:-1] + wide[:, :, 2:]
