"""PxAP of resampled images: the same as if every drawn image had been scored anew."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from wsol import score
from wsol.datasets import Shapes
from wsol.heatmaps.store import center
from wsol.localization import load_protocol, score_map
from wsol.metrics import PxAP
from wsol.metrics.pixels import ResampledPxAP, average_precision, pixel_histograms, resize_mask
from wsol.metrics.statistics import draws_of, resamples_of


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


def test_without_an_object_there_is_no_precision() -> None:
    assert np.isnan(average_precision(np.zeros((2, 3)), np.ones((2, 3)))).all()


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
