"""The Shapes set: the same bytes everywhere, exact boxes and masks, knobs that do what they say."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol.datasets import shapes_kernel
from wsol.datasets.shapes import GLYPH_NAMES, Shapes, glyph_table
from wsol.errors import UserError

ROOT = Path(__file__).parents[2]

# The start of the SHA-256 of so many images, masks, boxes and labels.
DIGESTS = {
    "test": ({}, 12, "6eb4612a68b7530c"),
    "train": ({"split": "train", "seed": 7, "length": 12}, 12, "a3c4868d2d4319e0"),
    "small": ({"size": 48, "object_size": (0.6, 0.95), "split": "val"}, 12, "4e90d0d3343b359e"),
    "biased": ({"classes": 24, "background_bias": 0.9, "seed": 2**62 + 5}, 24, "5bd6b61fb8dbd17c"),
    "crowded": (
        {"objects": 5, "glyph_pixels": 6, "distractors": 20, "false_marks": 9, "size": 120}, 6, "8005c2fdcee099f7"
    ),
    "tiny": ({"size": 16, "glyph_pixels": 5, "object_size": (0.5, 0.9), "objects": 1}, 3, "bb90c68420d1d842"),
}  # fmt: skip


def digest(dataset: Shapes, count: int) -> str:
    content = hashlib.sha256()
    for index in range(count):
        sample = dataset[index]
        for array in (sample.read_image(), sample.read_mask(), sample.boxes.astype("<i8")):
            content.update(np.ascontiguousarray(array).tobytes())
        content.update(bytes([sample.label]))
    return content.hexdigest()[:16]


def extent(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1], rows[-1]]


@pytest.mark.parametrize("name", DIGESTS)
def test_digests(name: str) -> None:
    knobs, count, expected = DIGESTS[name]
    assert digest(Shapes(**knobs), count) == expected


def _elsewhere(names: list[str], tmp_path: Path, **environment: str) -> list[str]:
    """Digests as another process makes them."""
    code = (
        "import sys, warnings; warnings.simplefilter('error', RuntimeWarning)\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from tests.datasets.test_shapes import DIGESTS, Shapes, digest\n"
        "for name in sys.argv[2:]: print(digest(Shapes(**DIGESTS[name][0]), DIGESTS[name][1]))"
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA_", "NPY_"))}
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT), *names],
        env={**clean, "NUMBA_CACHE_DIR": str(tmp_path), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.long
def test_digests_on_the_plainest_processor(tmp_path: Path) -> None:
    features = " ".join(np.show_config("dicts")["SIMD Extensions"].get("found", []))
    digests = _elsewhere(list(DIGESTS), tmp_path, NUMBA_CPU_NAME="generic", NPY_DISABLE_CPU_FEATURES=features)
    assert digests == [expected for _, _, expected in DIGESTS.values()]


def test_digests_without_compilation(tmp_path: Path) -> None:
    """Python's unbounded integers agree, and numpy warns of no overflow: no product leaves its word."""
    assert _elsewhere(["tiny"], tmp_path, NUMBA_DISABLE_JIT="1") == [DIGESTS["tiny"][2]]


def test_glyphs_differ_when_turned_and_mirrored() -> None:
    table = glyph_table()
    assert table.shape == (30, 13, 13) and table.min() == 0 and table.max() == 256
    table = table >= 128
    for i, first in enumerate(table):
        for second in table[i + 1 :]:
            for mirrored in (second, second.T):
                least = min(np.count_nonzero(np.rot90(mirrored, turn) != first) for turn in range(4))
                assert least >= 15


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(32, 130),
    classes=st.integers(2, 24),
    objects=st.integers(1, 8),
    sizes=st.tuples(st.floats(0.2, 0.95), st.floats(0.2, 0.95)),
    glyph=st.floats(0.05, 0.6),
    seed=st.integers(0, 2**63 - 1),
    index=st.integers(0, 10**6),
)
def test_boxes_are_the_masks_extent(
    size: int, classes: int, objects: int, sizes: tuple[float, float], glyph: float, seed: int, index: int
) -> None:
    if size < 66:
        objects = min(objects, 4)
    dataset = Shapes(
        length=index + 1, size=size, classes=classes, objects=objects, object_size=sorted(sizes), glyph=glyph,
        glyph_pixels=6, seed=seed,
    )  # fmt: skip
    sample = dataset[index]
    image, mask, boxes = sample.read_image(), sample.read_mask(), sample.boxes
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    assert mask.shape == (size, size) and mask.dtype == bool
    assert boxes.shape == (objects, 4) and 0 <= sample.label < classes
    assert (boxes[:, :2] <= boxes[:, 2:]).all() and boxes.min() >= 0 and boxes.max() <= size - 1
    union = np.zeros_like(mask)
    for number, (x0, y0, x1, y1) in enumerate(boxes.astype(int)):
        part = np.zeros_like(mask)
        part[y0 : y1 + 1, x0 : x1 + 1] = mask[y0 : y1 + 1, x0 : x1 + 1]
        assert extent(part) == [x0, y0, x1, y1]
        union |= part
        for a0, b0, a1, b1 in boxes[:number].astype(int):
            assert x1 < a0 or a1 < x0 or y1 < b0 or b1 < y0
    assert np.array_equal(union, mask)


def test_labels_are_balanced_and_those_of_the_samples() -> None:
    for split in ("train", "val", "test"):
        dataset = Shapes(split, length=64, classes=7)
        assert set(np.bincount(dataset.labels, minlength=7)) == {9, 10}
        assert dataset.labels.tolist() == [sample.label for sample in dataset]
    assert [len(Shapes(split)) for split in ("train", "val", "test")] == [20_000, 1_000, 500]
    assert not np.array_equal(Shapes(classes=24).labels[:24], np.arange(24))


def test_an_image_depends_on_its_index_only() -> None:
    whole, short = Shapes(length=50), Shapes(length=8)
    backward = [whole[index].read_image() for index in reversed(range(8))][::-1]
    assert all(np.array_equal(short[index].read_image(), backward[index]) for index in range(8))
    assert np.array_equal(short[-1].read_image(), backward[7])
    assert short[3].sample_id == "test/00003" and short[3].image_size == (96, 96)
    with pytest.raises(IndexError):
        short[8]


def test_body_says_nothing_about_the_class() -> None:
    """With another glyph on it, the picture outside the objects' boxes is the same for every class."""
    drawn = [shapes_kernel.render(0, 2, 0, label, Shapes()._knobs, glyph_table()) for label in (0, 5)]
    (canvas, mask, box), (other, same_mask, same_box) = drawn
    assert np.array_equal(mask, same_mask) and np.array_equal(box, same_box)
    differs = (canvas != other).any(2)
    assert differs.any() and not (differs & ~mask).any()
    assert differs.sum() < 0.4 * mask.sum()


def test_knobs_name_what_a_classifier_depends_on() -> None:
    assert Shapes("train", length=5, seed=3).knobs == Shapes("val").knobs
    assert Shapes(background_bias=0.5).knobs != Shapes().knobs
    assert Shapes(object_size=(0.28, 0.7)).knobs == json.loads(json.dumps(Shapes().knobs))
    assert set(Shapes().knobs) == set(shapes_kernel.Knobs._fields)
    assert Shapes(classes=3).classes == GLYPH_NAMES[:3] == Shapes(classes=3).ids


WRONG: dict[str, list[object]] = {
    "split": ["dev"], "length": [0], "size": [8, 96.5], "classes": [25, True],
    "object_size": [(0.7, 0.2), "0.2", 0.5, (0.2, 1.5)], "glyph": [0.9, float("nan"), "small"], "glyph_pixels": [40],
    "background_bias": [-0.1], "distractors": [-1], "objects": [9], "seed": [-1],
}  # fmt: skip


@pytest.mark.parametrize(("knob", "value"), [(knob, value) for knob, values in WRONG.items() for value in values])
def test_wrong_knobs_are_named(knob: str, value: object) -> None:
    with pytest.raises(UserError, match=knob):
        Shapes(**{knob: value})


def test_a_glyph_must_fit_an_objects_share_of_the_picture() -> None:
    with pytest.raises(UserError, match="objects = 8"):
        Shapes(objects=8, size=64, object_size=(0.5, 0.6))
