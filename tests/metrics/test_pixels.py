"""PxAP to the reference's last digit, of drawn images too, histograms to numpy's, and the pointing game by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsol import score
from wsol.datasets import Shapes
from wsol.errors import UserError
from wsol.heatmaps.store import StoredHeatmap, center, full
from wsol.localization import load_protocol, score_map
from wsol.metrics import PxAP, pixel_histograms, point_and_energy
from wsol.metrics.pixels import ResampledPxAP, at_image_size, average_precision, resize_mask, stored_point_and_energy
from wsol.metrics.statistics import draws_of, resamples_of

GOLDEN = Path(__file__).parents[1] / "golden" / "openimages_val_5.npz"
OPENIMAGES = Path("/work/shared/data/wsolevaluation")


@pytest.mark.skipif(not OPENIMAGES.is_dir(), reason="the five OpenImages masks are not beside this checkout")
@pytest.mark.parametrize("width", [0.01, 0.001])
def test_pxap_equals_the_reference(width: float) -> None:
    golden = np.load(GOLDEN)
    lines = (OPENIMAGES / "metadata/OpenImages/val/localization.txt").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    metric = PxAP(width)
    for image_id, scores in zip(golden["image_ids"], golden["heatmaps_uint8"], strict=True):
        own = [row for row in rows if row[0] == image_id]
        instances = [_read(row[1]) for row in own]
        ignore = next(_read(row[2]) for row in own if row[2])
        metric.update(*pixel_histograms(scores / 255.0, np.any(instances, axis=0), ignore, metric.edges))
    assert 100 * float(metric.compute()["pxap"]) == pytest.approx(float(golden[f"pxap_interval_{width}"]), abs=1e-9)


def _read(name: str) -> np.ndarray:
    return resize_mask(np.asarray(Image.open(OPENIMAGES / "dataset/OpenImages" / name).convert("L")) > 0, (224, 224))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.001, 0.5, 0.3]))
def test_histograms_equal_numpy(seed: int, width: float) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.random((13, 9))
    edges = PxAP(width).edges
    flat = scores.ravel()
    flat[:30] = edges[generator.integers(0, len(edges) - 2, 30)]  # right on the edges, and 1.0
    mask, ignore = generator.random((2, 13, 9)) < 0.4
    of_object, of_background = pixel_histograms(scores, mask, ignore, edges)
    assert np.array_equal(of_object, np.histogram(scores[mask], edges)[0])
    assert np.array_equal(of_background, np.histogram(scores[~mask & ~ignore], edges)[0])


def test_pxap_and_peak_iou_by_hand() -> None:
    metric = PxAP(0.25)
    scores = np.array([[0.9, 0.6, 0.3, 0.1]])
    mask = np.array([[True, False, True, False]])
    metric.update(*pixel_histograms(scores, mask, None, metric.edges))
    # From the brightest: found 1 of 2 at precision 1; then 1 at 1/2; then 2 at 2/3.
    assert float(metric.compute()["pxap"]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert float(metric.compute()["peak_mask_iou"]) == pytest.approx(2 / 3)
    assert float(metric.compute()["peak_threshold"]) == 0.25


def test_pxap_without_object_pixels_is_nan() -> None:
    metric = PxAP(0.1)
    assert metric.empty
    assert all(np.isnan(value).all() for value in metric.compute().values())


def test_masks_of_another_size_are_named() -> None:
    with pytest.raises(UserError, match=r"mask has shape \(2, 2\), the score map \(3, 3\)"):
        pixel_histograms(np.zeros((3, 3)), np.zeros((2, 2), bool), None, PxAP(0.1).edges)
    with pytest.raises(UserError, match="ignore mask has shape"):
        pixel_histograms(np.zeros((3, 3)), np.zeros((3, 3), bool), np.zeros((2, 2), bool), PxAP(0.1).edges)


def test_resize_mask_equals_opencv_at_every_size() -> None:
    cv2 = pytest.importorskip("cv2")
    for width in range(1, 1200, 7):
        mask = np.random.default_rng(width).random((3, width)) < 0.5
        reference = cv2.resize(mask.astype(np.float32), (224, 5), interpolation=cv2.INTER_NEAREST) > 0.5
        assert np.array_equal(resize_mask(mask, (224, 5)), reference), width


def test_pointing_tolerance_and_energy() -> None:
    heatmap = np.zeros((40, 40))
    heatmap[30, 30] = 3.0
    heatmap[5, 5] = 1.0
    heatmap[0, 39] = -9.0  # negative evidence is clipped
    assert point_and_energy(heatmap, np.array([[0, 0, 19, 30]])) == (True, 0.25)  # 11 pixels beside the box
    assert point_and_energy(heatmap, np.array([[0, 0, 10, 10]])) == (False, 0.25)
    assert point_and_energy(heatmap, np.array([[0, 0, 14, 30], [29, 29, 31, 31]])) == (True, 1.0)
    assert point_and_energy(-heatmap * 0, np.array([[0, 0, 10, 10]])) == (False, 0.0)


@pytest.mark.parametrize("kind", ["center", "full"])
@pytest.mark.parametrize("size", [(96, 64), (33, 50), (1, 7)])
def test_a_baseline_is_asked_without_its_pixels(kind: str, size: tuple[int, int]) -> None:
    generator, whole = np.random.default_rng(0), (center if kind == "center" else full)(size)
    for count in (1, 1, 1, 3):
        low = generator.integers(0, size, (count, 2))
        boxes = np.concatenate([low, generator.integers(low, size)], axis=1).astype(float)
        wanted = point_and_energy(whole, boxes)
        hit, energy = stored_point_and_energy(StoredHeatmap(None, kind, size, (0, 0, *size)), boxes)
        assert hit == wanted[0]
        assert energy == pytest.approx(wanted[1], abs=1e-14)


@pytest.mark.parametrize("rectangle", [(0, 0, 96, 64), (16, 3, 80, 40), (0, 0, 96, 0.2)])
@pytest.mark.parametrize("levels", [None, 3, 1])
def test_a_heatmap_is_asked_without_most_of_its_pixels(rectangle: tuple[float, ...], levels: int | None) -> None:
    """The very pixel that is the first peak, also among equals; sums but for rounding."""
    generator = np.random.default_rng(0)
    for shape in ((7, 7), (14, 9), (1, 1), (80, 120)):
        values = generator.random(shape) if levels is None else generator.integers(0, levels, shape) / 2
        heatmap = StoredHeatmap(values, "raw", (96, 64), rectangle)
        whole = at_image_size(heatmap)
        y, x = np.unravel_index(whole.argmax(), whole.shape)
        low = generator.integers(0, (96, 64), (4, 2))
        boxes = np.concatenate([low, generator.integers(low, (96, 64))], axis=1).astype(float)
        for box in np.concatenate([boxes, [[x, y, x, y], [x + 16, y, x + 20, y], [x, y + 15, x, y + 16]]]):
            hit, energy = stored_point_and_energy(heatmap, box[None])
            wanted = point_and_energy(whole, box[None])
            assert hit == wanted[0]
            assert energy == pytest.approx(wanted[1], abs=1e-13)


def test_each_class_is_counted_by_itself_and_all_together() -> None:
    pxap, both, generator = PxAP(0.1, 3), PxAP(0.1), np.random.default_rng(0)
    alone = {0: PxAP(0.1), 2: PxAP(0.1)}
    for label in (0, 2, 2):
        scores, mask = generator.random((5, 5)), generator.random((5, 5)) < 0.4
        counts = pixel_histograms(scores, mask, None, pxap.edges)
        pxap.update(*counts, label)
        both.update(*counts)
        alone[label].update(*counts)
    for label, metric in alone.items():
        assert pxap.compute()["class_pxap"][label] == metric.compute()["pxap"]
        assert pxap.compute()["class_peak_mask_iou"][label] == metric.compute()["peak_mask_iou"]
    assert np.isnan(pxap.compute()["class_pxap"][1])
    assert pxap.compute()["pxap"] == both.compute()["pxap"]


def test_resamples_are_what_scoring_each_drawn_image_would_give() -> None:
    generator, metric = np.random.default_rng(0), PxAP(0.05)
    image = np.array([0, 0, 1, 2, 2, 2, 3])  # some images have several samples
    samples = pd.DataFrame({"image_id": [f"image {number}" for number in image]})
    draws, found = draws_of(samples, resamples=25, seed=3)
    assert (found == image).all()
    pairs = []
    for number in range(len(image)):
        scores = generator.random((9, 11)) ** (number % 3 + 1)
        mask = scores + generator.normal(0, 0.4, scores.shape) > 0.6
        pairs.append(pixel_histograms(scores, mask, generator.random(scores.shape) < 0.1, metric.edges))
    scored = ResampledPxAP(0.05, 1, draws, image)
    for part in ([0, 1, 2], [3], [4, 5, 6]):
        scored.add(np.array(part), np.array([pairs[number] for number in part]), np.zeros(len(part), int))
    for estimate, chosen in zip(scored.resamples(), np.random.default_rng(3).integers(0, 4, (25, 4)), strict=True):
        anew = PxAP(0.05)
        for number in chosen:
            for sample in np.flatnonzero(image == number):
                anew.update(*pairs[sample])
        assert estimate == pytest.approx(float(anew.compute()["pxap"]), abs=1e-12)


def test_a_run_draws_its_pixels_and_writes_the_interval() -> None:
    dataset, rules = Shapes(split="test", length=6), load_protocol("choe2020")
    found = score(dataset, None, ["choe2020", "choe2020_v2"], methods=["center", "full"], progress=False)
    assert found.resamples.groupby(["method", "protocol"]).size().tolist() == [2000] * 4
    own = found.resamples.query("method == 'center' and protocol == 'choe2020'")["pxap"].to_numpy()
    pairs = []
    for sample in dataset:
        scores = score_map(center(rules.mask_size), rules, rules.mask_size)
        pairs.append(pixel_histograms(scores, resize_mask(sample.read_mask(), rules.mask_size), None, PxAP().edges))
    drawn = np.einsum("ri,ikb->krb", next(resamples_of(6, 20)), np.array(pairs))  # (2, R, bins)
    assert own[:20] == pytest.approx(average_precision(*drawn), abs=1e-12)
    overall = found.metrics.query(
        "metric == 'pxap' and `class` == '' and method == 'center' and protocol == 'choe2020'"
    )
    assert len(overall) == 1
    wanted = 100 * np.quantile(own, [0.025, 0.975])
    assert overall[["low", "high"]].to_numpy()[0] == pytest.approx(wanted, abs=1e-8)
    value = found.summary.query("method == 'center' and protocol == 'choe2020'")["pxap"].iloc[0]
    assert overall["value"].iloc[0] == pytest.approx(value, abs=1e-8)
    assert overall["low"].iloc[0] <= value <= overall["high"].iloc[0]
