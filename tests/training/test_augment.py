"""Each augmentation does what it says and nothing else, and the same for the same generator."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from wsol.training.recipe import Augmentation, augment

SEEDS = range(60)
KINDS = get_args(Augmentation)


def picture(height: int = 24, width: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def changed(image: np.ndarray, *kinds: str, size: tuple[int, int] = (24, 24), seed: int = 0) -> np.ndarray:
    return augment(image, kinds, size, "bilinear", np.random.default_rng(seed)).numpy()


@pytest.mark.parametrize("kinds", [(), *((kind,) for kind in KINDS), KINDS])
@pytest.mark.parametrize("size", [(24, 24), (16, 40), (5, 7)])
@pytest.mark.parametrize("source", [(24, 24), (50, 31), (1, 1)])
def test_shape_and_type(kinds: tuple[str, ...], size: tuple[int, int], source: tuple[int, int]) -> None:
    for interpolation in ("bilinear", "bicubic"):
        pixels = augment(picture(*source), kinds, size, interpolation, np.random.default_rng(0))
        assert (pixels.shape, pixels.dtype) == ((*size, 3), torch.uint8) and pixels.is_contiguous()


@pytest.mark.parametrize("kind", KINDS)
def test_same_generator_same_picture_and_the_source_is_left_alone(kind: str) -> None:
    image = picture()
    before = image.copy()
    result = [changed(image, kind, seed=seed) for seed in SEEDS]
    assert all(np.array_equal(result[seed], changed(image, kind, seed=seed)) for seed in SEEDS)
    assert np.array_equal(image, before)
    assert len({pixels.tobytes() for pixels in result}) > 1


def test_flip_is_left_to_right_in_half_of_the_cases() -> None:
    image = picture()
    assert np.array_equal(changed(image), image)
    mirrored = sum(np.array_equal(changed(image, "flip", seed=seed), image[:, ::-1]) for seed in SEEDS)
    kept = sum(np.array_equal(changed(image, "flip", seed=seed), image) for seed in SEEDS)
    assert mirrored + kept == len(SEEDS)
    assert 18 <= mirrored <= 42


def test_turn_is_by_quarters_and_leaves_oblong_input_as_it_is() -> None:
    image, oblong = picture(), picture(16, 40)
    turns = [np.rot90(image, k) for k in range(4)]
    seen = [[np.array_equal(changed(image, "turn", seed=seed), turn) for turn in turns].index(True) for seed in SEEDS]
    assert set(seen) == {0, 1, 2, 3}
    assert all(np.array_equal(changed(oblong, "turn", size=(16, 40), seed=seed), oblong) for seed in SEEDS)


def test_shift_is_by_an_eighth_at_most() -> None:
    image, places = picture(), set()
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="reflect")
    for seed in range(200):
        result = changed(image, "shift", seed=seed)
        windows = [(y, x) for y in range(7) for x in range(7) if np.array_equal(result, padded[y : y + 24, x : x + 24])]
        assert len(windows) == 1
        places.add(windows[0])
    assert {y for y, _ in places} == {x for _, x in places} == set(range(7))


def test_crop_is_a_part_of_the_stated_area_and_aspect() -> None:
    """On a ramp the corner colors say which part it was."""
    y, x = np.mgrid[:200, :160].astype(np.uint8)
    shares, lefts = [], []
    for seed in SEEDS:
        result = changed(np.stack([x, y, x], -1), "crop", size=(100, 100), seed=seed).astype(float)
        width = (result[50, 89, 0] - result[50, 10, 0]) / 79 * 100
        height = (result[89, 50, 1] - result[10, 50, 1]) / 79 * 100
        shares.append(width * height / (200 * 160))
        lefts.append(result[50, 0, 0])
        assert 0.72 < width / height < 1.40
    assert 0.33 < min(shares) < 0.5
    assert 0.8 < max(shares) <= 1.02
    assert min(lefts) < 10 < 40 < max(lefts)


def test_window_is_cut_from_the_whole_image_at_eight_sevenths() -> None:
    y, x = np.mgrid[:64, :64].astype(np.uint8)
    image, places = np.stack([x, y, x], -1), set()
    for seed in range(200):  # 64 x 64 is 56 / 0.875: nothing is resized
        result = changed(image, "window", size=(56, 56), seed=seed)
        left, top = map(int, result[0, 0, :2])
        assert np.array_equal(result, image[top : top + 56, left : left + 56])
        places.add((top, left))
    assert {top for top, _ in places} == {left for _, left in places} == set(range(9))


def test_crop_of_an_image_too_long_for_the_aspect_is_the_image() -> None:
    image = picture(1, 60)
    assert all(np.array_equal(changed(image, "crop", size=(1, 60), seed=seed), image) for seed in range(9))


def test_color_keeps_places_and_grays() -> None:
    gray = np.full((24, 24, 3), 100, np.uint8)
    levels = set()
    for seed in SEEDS:
        result = changed(gray, "color", seed=seed)
        assert len(np.unique(result)) == 1
        levels.add(int(result[0, 0, 0]))
    assert min(levels) >= 69
    assert max(levels) <= 131
    assert max(levels) - min(levels) > 30
    halves = gray.copy()
    halves[:, 12:] = (200, 60, 20)
    result = changed(halves, "color")
    assert len(np.unique(result[:, :12].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(result[:, 12:].reshape(-1, 3), axis=0)) == 1
