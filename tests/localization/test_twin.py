"""The kernel against its slow twin, property by property, and against OpenCV's contours."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wsol
from wsol import Protocol
from wsol.localization.boxes import box_iou, truth_boxes

from . import twin

TAUS = tuple(np.arange(0, 1, 0.04).tolist())


@st.composite
def score_maps(draw: st.DrawFn) -> np.ndarray:
    """Random maps: noise, ties, plateaus, smooth hills, sparse pixels, one row, one column, one pixel, constant."""
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["noise", "ties", "binary", "sparse", "plateaus", "hills", "constant", "zero"]))
    noise = generator.random((height, width))
    if kind == "ties":
        return np.round(noise * 4) / 4
    if kind == "binary":
        return (noise < draw(st.floats(0.1, 0.9))).astype(np.float64)
    if kind == "sparse":
        return noise * (generator.random((height, width)) < draw(st.floats(0.1, 0.9)))
    if kind == "plateaus":
        return np.kron(noise, np.ones((3, 3)))[:height, :width]
    if kind == "hills":
        y, x = np.mgrid[:height, :width]
        return (np.sin(x / 2 + noise[0, 0] * 6) * np.cos(y / 2 + noise[-1, -1] * 6) + 1) / 2
    if kind in ("constant", "zero"):
        return np.full((height, width), noise[0, 0] if kind == "constant" else 0.0)
    return noise


@st.composite
def protocols(draw: st.DrawFn) -> Protocol:
    """Every rule that the sweep knows, in any combination."""
    thresholds = draw(st.sampled_from([TAUS, 0.013, "levels"]))
    view = draw(st.sampled_from(["squash", "square_crop", "short_side_crop", "short_side"]))
    return Protocol(
        size=draw(st.sampled_from([(224, 224), *["heatmap"] * view.startswith("squ")])),
        view=view,
        view_share=draw(st.sampled_from([0.875, 0.9333, 0.5])),
        levels=draw(st.sampled_from([None, 256, 16, 1000])),
        cut_of=draw(st.sampled_from(["max", "absolute"] + [90.0, 100.0, 33.3] * (thresholds != "levels"))),
        pixel_comparison=draw(st.sampled_from([">", ">="])),
        connectivity=draw(st.sampled_from([8, 4])),
        area=draw(st.sampled_from(["contour", "pixels"])),
        tie=draw(st.sampled_from(["last", "first"])),
        holes=draw(st.booleans()),
        box_convention=draw(st.sampled_from(["inclusive", "half_open", "half_open_clipped"])),
        iou_convention=draw(st.sampled_from(["inclusive", "corners", "continuous"])),
        iou_clamped=draw(st.booleans()),
        truths=draw(st.sampled_from(["best", "first", "last"])),
        truth_origin=draw(st.sampled_from([0, 1])),
        truth_end=draw(st.sampled_from(["as_annotated", "last_pixel"])),
        truth_integers=draw(st.sampled_from(["none", "corners", "sides"])),
        truth_scaling=draw(st.sampled_from(["multiply_first", "divide_first"])),
        truth_rounding=draw(st.sampled_from(["truncate", "none"])),
        truth_clipped=draw(st.sampled_from(["none", "one_sided", "one_sided_last_pixel", "both", "both_last_pixel"])),
        empty_box=draw(st.sampled_from([None, (0, 0, 0, 0), (0, 0, 1, 1), "image"])),
        thresholds=thresholds,
    )


def some_boxes(generator: np.random.Generator, width: int, height: int) -> np.ndarray:
    """One to three boxes in an image; one in four ends one pixel late, which may be at the width itself."""
    corners = np.sort(generator.integers(0, [[width], [height]], (generator.integers(1, 4), 2, 2)), axis=2)
    boxes = corners.transpose(0, 2, 1).reshape(-1, 4)
    boxes[:, 2] += generator.random(len(boxes)) < 0.25
    return boxes


def assert_equal(sweep: wsol.Sweep, expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        assert getattr(sweep, name).shape == values.shape, name
        assert np.abs(getattr(sweep, name) - values).max() <= (0 if "box" in name else 1e-12), name


def equal_to_the_twin(score_map: np.ndarray, protocol: Protocol, seed: int, scaled: bool) -> None:
    height, width = score_map.shape
    generator = np.random.default_rng(seed)
    size = (int(generator.integers(1, 40)), int(generator.integers(1, 40))) if scaled else (width, height)
    truth = some_boxes(generator, *size)
    image_size = size if scaled else None
    sweep = wsol.sweep_thresholds(score_map, truth, protocol, image_size)
    assert_equal(sweep, twin.slow_sweep(score_map, truth, protocol, image_size))


@pytest.mark.parametrize("count", [100, pytest.param(300, marks=pytest.mark.long)])
def test_equal_to_the_twin(count: int) -> None:
    drawn = given(score_maps(), protocols(), st.integers(0, 1000), st.booleans())(equal_to_the_twin)
    settings(max_examples=count, deadline=None)(drawn)()


@pytest.mark.parametrize("shape", [(375, 500), (1, 300), (300, 1), (224, 224)])
@pytest.mark.parametrize("name", ["choe2020_v2", "exact"])
def test_equal_to_the_twin_at_real_sizes(shape: tuple[int, int], name: str) -> None:
    generator = np.random.default_rng(0)
    small = generator.random((max(shape[0] // 40, 1), max(shape[1] // 40, 1)))
    score_map = wsol.score_map(small, Protocol(size=(shape[1], shape[0]), interpolation="bilinear"))
    protocol = replace(wsol.load_protocol(name), thresholds=(0.1, 0.35, 0.5, 0.8))
    truth = np.array([[0, 0, shape[1] // 2, shape[0] // 2]])
    assert_equal(wsol.sweep_thresholds(score_map, truth, protocol), twin.slow_sweep(score_map, truth, protocol))


@settings(max_examples=100, deadline=None)
@given(score_maps(), protocols(), st.integers(0, 1000))
def test_runs_and_conversions_agree(score_map: np.ndarray, protocol: Protocol, seed: int) -> None:
    height, width = score_map.shape
    truth = some_boxes(np.random.default_rng(seed), width, height)
    sweep = wsol.sweep_thresholds(score_map, truth, protocol)
    plain = wsol.sweep_thresholds(score_map, truth, replace(protocol, box_convention="inclusive", empty_box=None))
    there = plain.boxes_largest[:, 2] >= 0
    assert np.array_equal(sweep.to_inclusive().boxes_largest[there], plain.boxes_largest[there])
    for which in ("largest", "any", "union"):
        runs = sweep.runs(which)
        assert runs.first[0] == 0 and (np.diff(runs.first) > 0).all()
        lengths = np.diff(runs.first, append=len(sweep.thresholds))
        assert np.array_equal(np.repeat(runs.boxes, lengths, axis=0), getattr(sweep, f"boxes_{which}"))
        assert np.array_equal(np.repeat(runs.iou, lengths), getattr(sweep, f"iou_{which}"))
    if protocol.iou_convention == "inclusive":
        counted = truth_boxes(truth, protocol, None, (width, height))
        scored = box_iou(sweep.boxes_any, counted, "inclusive", protocol.iou_clamped)
        assert np.abs(scored.max(axis=1) - sweep.iou_any)[there].max(initial=0) <= 1e-12


@settings(max_examples=60, deadline=None)
@given(score_maps(), st.integers(0, 1000))
def test_contours_equal_opencv(score_map: np.ndarray, seed: int) -> None:
    cv2 = pytest.importorskip("cv2")
    height, width = score_map.shape
    levels = (score_map * 255).astype(np.uint8)
    truth = some_boxes(np.random.default_rng(seed), width, height)
    sweep = wsol.sweep_thresholds(score_map, truth, Protocol(thresholds=TAUS))
    for index, tau in enumerate(TAUS):
        above = (levels > int(tau * levels.max())).astype(np.uint8)
        contours = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        expected = [[0, 0, 0, 0]]
        for contour in sorted(contours, key=cv2.contourArea, reverse=True):
            x, y, w, h = cv2.boundingRect(contour)
            expected.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
        expected = expected[1:] or expected
        assert sweep.boxes_largest[index].tolist() == expected[0], tau
        assert sweep.iou_any[index] == pytest.approx(box_iou(np.array(expected), truth, "inclusive").max(), abs=1e-12)


def test_a_tie_may_be_lost_by_beginning_earlier() -> None:
    # Lines have area 0, so the component that begins last wins: the one on the right, until it grows upward.
    score_map = np.zeros((3, 7))
    score_map[2, 5], score_map[1, 2], score_map[1, 5], score_map[0, 5] = 1.0, 0.9, 0.5, 0.25
    sweep = wsol.sweep_thresholds(
        score_map, [0, 0, 6, 2], Protocol(thresholds=(0.2, 0.4, 0.7), box_convention="inclusive")
    )
    assert sweep.boxes_largest.tolist() == [[2, 1, 2, 1], [5, 1, 5, 2], [5, 2, 5, 2]]


def test_every_level_is_a_threshold() -> None:
    score_map = np.array([[0.0, 0.25, 0.5], [1.0, 0.25, 0.75]])
    sweep = wsol.sweep_thresholds(score_map, [0, 0, 2, 1], Protocol(thresholds="levels", levels=None))
    assert sweep.thresholds.tolist() == [0.0, 0.25, 0.5, 0.75]


def test_threads_do_not_share_scratch_memory() -> None:
    generator = np.random.default_rng(1)
    maps = [generator.random((height, 7)) for height in range(5, 45)]
    boxes = [some_boxes(generator, 7, len(score_map)) for score_map in maps]
    alone = list(map(wsol.sweep_thresholds, maps, boxes))
    with ThreadPoolExecutor(3) as pool:
        for sweep, other in zip(pool.map(wsol.sweep_thresholds, maps, boxes), alone, strict=True):
            assert np.array_equal(sweep.boxes_any, other.boxes_any)
            assert np.array_equal(sweep.iou_largest, other.iou_largest)


@pytest.mark.parametrize(
    ("score_map", "boxes", "message"),
    [
        (np.full((3, 3), np.nan), [0, 0, 1, 1], "NaN"),
        (np.full((3, 3), 1.5), [0, 0, 1, 1], r"\[0, 1\]"),
        (np.full((3, 3), -0.1), [0, 0, 1, 1], r"\[0, 1\]"),
        (np.zeros(3), [0, 0, 1, 1], "shape"),
        (np.zeros((3, 0)), [0, 0, 1, 1], "shape"),
        (np.zeros((3, 3)), [0, 0, 9, 1], "inside 3 x 3"),
        (np.zeros((3, 3)), [-1, 0, 1, 1], "inside 3 x 3"),
        (np.zeros((3, 3)), [2, 0, 1, 1], "inverted"),
        (np.zeros((3, 3)), [0, 0, np.nan, 1], "nan"),
        (np.zeros((3, 3)), np.zeros((0, 4)), "at least one box"),
        (np.zeros((3, 3)), "none", "none"),
    ],
)
@pytest.mark.parametrize("levels", [256, None])
def test_bad_input_is_named(score_map: np.ndarray, boxes: object, message: str, levels: int | None) -> None:
    with pytest.raises(ValueError, match=message):
        wsol.sweep_thresholds(score_map, boxes, Protocol(levels=levels))


def test_boxes_are_checked_in_the_image_they_belong_to() -> None:
    wsol.sweep_thresholds(np.eye(4), [10, 10, 100, 50], image_size=(100, 50))
    with pytest.raises(ValueError, match="inside 99 x 50"):
        wsol.sweep_thresholds(np.eye(4), [10, 10, 100, 50], image_size=(99, 50))


@settings(max_examples=150, deadline=None)
@given(
    score_maps(),
    st.sampled_from(["minmax", "max", "relu_minmax", "percentile", "none"]),
    st.sampled_from(["squash", "square_crop", "short_side_crop", "short_side"]),
    st.sampled_from(["bicubic", "bilinear", "nearest"]),
    st.booleans(),
    st.integers(0, 1000),
)
def test_score_maps_equal_the_twins(
    heatmap: np.ndarray, normalization: str, view: str, interpolation: str, before: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    heatmap = heatmap if normalization == "none" else heatmap - generator.choice([0, 0.5])
    low, high = np.sort(generator.choice([0, 0.1, 0.45, 0.9, 1], 2, replace=False)).tolist()
    protocol = Protocol(
        size="heatmap" if view.startswith("squ") and seed % 3 == 0 else (24, 24),
        view=view,
        interpolation=interpolation,
        normalization=normalization,
        normalization_percentiles=(low, high),
        normalization_order="before_resizing" if before else "after_resizing",
        normalization_epsilon=float(generator.choice([0, 1e-5])),
    )
    width, height = (int(side) for side in generator.integers(5, 60, 2))
    x, y = np.sort(generator.uniform(0, [[width], [height]], (2, 2)), axis=1).tolist()
    rectangle = (x[0], y[0], x[1], y[1]) if seed % 2 else None
    values = wsol.score_map(heatmap, protocol, (width, height), rectangle)
    assert values == pytest.approx(twin.slow_score_map(heatmap, protocol, (width, height), rectangle), abs=1e-9)
