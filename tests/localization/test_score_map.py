"""Score maps: resized as torch does, normalized, zero where the view did not look."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from wsol import Protocol, load_protocol, score_map, sweep_thresholds
from wsol.localization import score_maps
from wsol.localization.kernels.pixels import interpolation_weights


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_weights_are_torchs_to_the_bit(interpolation: str) -> None:
    options = {} if interpolation == "nearest" else {"align_corners": False}
    # Torch's kernels for processors without fused multiply-add round otherwise.
    fused = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    for old, new in itertools.product((1, 2, 3, 5, 7, 13, 14, 28, 64), (1, 4, 9, 46, 74, 224, 333)):
        identity = torch.eye(old, dtype=torch.float64)[None, None]
        torchs = torch.nn.functional.interpolate(identity, size=(new, old), mode=interpolation, **options)[0, 0]
        first, weights = interpolation_weights(old, new, interpolation)
        dense = np.zeros((new, old))
        dense[np.arange(new)[:, None], first[:, None] + np.arange(weights.shape[1])] = weights
        assert np.abs(dense - torchs.numpy()).max() <= (0 if fused else 1e-14), (old, new)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize("shape", [(7, 7), (1, 1), (1, 9), (60, 40)])
def test_resizing_is_torchs_in_float64(interpolation: str, shape: tuple[int, int]) -> None:
    raw = np.random.default_rng(0).normal(size=shape)
    options = {} if interpolation == "nearest" else {"align_corners": False}
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(raw)[None, None], size=(30, 50), mode=interpolation, **options
    )[0, 0].numpy()
    values = score_map(raw, Protocol(size=(50, 30), interpolation=interpolation))
    assert values.shape == (30, 50) and values.dtype == np.float64
    if raw.size == 1:
        assert not values.any()
    else:
        assert np.abs(values - (expected - expected.min()) / np.ptp(expected)).max() <= 1e-12
        assert values.min() == 0 and values.max() == 1


def test_opencv_gives_the_same() -> None:
    cv2 = pytest.importorskip("cv2")
    raw = np.random.default_rng(0).random((14, 14))
    for interpolation, flag in (("bicubic", cv2.INTER_CUBIC), ("bilinear", cv2.INTER_LINEAR)):
        expected = cv2.resize(raw, (224, 224), interpolation=flag)
        expected = (expected - expected.min()) / np.ptp(expected)
        assert np.abs(score_map(raw, Protocol(interpolation=interpolation)) - expected).max() <= 1e-6


def test_divided_by_the_maximum_after_clipping() -> None:
    raw = np.array([[-1.0, 0.0], [1.0, 4.0]])
    protocol = Protocol(size=(2, 2), normalization="max")
    assert score_map(raw, protocol).tolist() == [[0, 0], [0.25, 1]]
    assert not score_map(-np.abs(raw), protocol).any()


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e-300])
@pytest.mark.parametrize("normalization", ["minmax", "max"])
def test_equal_values_make_an_empty_map(value: float, normalization: str) -> None:
    assert not score_map(np.full((3, 5), value), Protocol(normalization=normalization)).any()


def test_outside_the_rectangle_there_is_nothing() -> None:
    values = score_map(np.array([[1.0, 2.0], [3.0, 4.0]]), Protocol(), (500, 375), (62.5, 0, 437.5, 375))
    assert values.shape == (224, 224)
    assert not values[:, :28].any() and not values[:, 196:].any()
    inside = score_map(np.array([[1.0, 2.0], [3.0, 4.0]]), Protocol(size=(168, 224)))
    assert np.array_equal(values[:, 28:196], inside)


def test_many_at_once_are_as_alone() -> None:
    raw = np.random.default_rng(0).normal(size=(5, 6, 4))
    protocol = Protocol(size=None)
    sizes = [(20, 30), (31, 17), (20, 30), (4, 6), (31, 17)]
    rectangles = [None, (0, 0, 30, 17), (5, 5, 20, 20), None, None]
    for one, heatmap, size, rectangle in zip(
        score_maps(raw, protocol, sizes, rectangles), raw, sizes, rectangles, strict=True
    ):
        assert np.array_equal(one, score_map(heatmap, protocol, size, rectangle))
    assert np.array_equal(
        score_map(torch.from_numpy(raw[0]).half(), Protocol()), score_map(raw[0].astype(np.float16), Protocol())
    )


@pytest.mark.parametrize(
    ("heatmap", "options", "message"),
    [
        (np.array([[0.0, np.nan]]), {}, "NaN or infinity"),
        (np.array([[0.0, np.inf]]), {}, "NaN or infinity"),
        (np.zeros((2, 2, 2)), {}, "shape"),
        (np.zeros((0, 2)), {}, "shape"),
        (np.array([["a"]]), {}, "'a'"),
        (np.eye(2), {"protocol": "exact"}, "pass image_size"),
        (np.eye(2), {"rectangle": (0, 0, 1, 1)}, "needs image_size"),
        (np.eye(2), {"rectangle": (0, 0, 9, 1), "image_size": (4, 4)}, "not inside the image of 4 x 4"),
        (np.eye(2), {"rectangle": (1, 0, 1, 1), "image_size": (4, 4)}, "is empty"),
    ],
)
def test_bad_input_is_named(heatmap: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_map(heatmap, **{"protocol": "choe2020", **options})


@pytest.mark.parametrize("name", ["wu2022_bas", "xie2022_ccam", "chen2022_lctr"])
def test_a_map_of_the_whole_image_is_cut_like_its_ground_truth(name: str) -> None:
    # A box of cells in a map of the whole image comes out where the protocol sees the same box of pixels.
    protocol = replace(load_protocol(name).for_dataset("cub"), interpolation="nearest", empty_box=None)
    heatmap, (width, height) = np.zeros((30, 30)), (480, 480)
    heatmap[10:20, 5:15] = 1
    values = score_map(heatmap, protocol, (width, height))
    truth = [5 * 16, 10 * 16, 15 * 16, 20 * 16]
    sweep = sweep_thresholds(values, truth, replace(protocol, threshold=0.5), (width, height))
    assert sweep.iou_largest.max() > 0.8  # cells of CCAM are coarse
