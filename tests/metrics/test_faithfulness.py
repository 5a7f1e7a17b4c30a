"""Faithfulness against closed forms, against plain loops, and against what two libraries compute under that name."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional

import wsol
from wsol.datasets import Shapes
from wsol.errors import UserError
from wsol.metrics.faithfulness import impute, measure_faithfulness
from wsol.metrics.faithfulness_presets import Faithfulness, faithfulness_names, load_faithfulness
from wsol.metrics.statistics import rank_agreement
from wsol.models import shapes_classifier

SIZE = 16


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
    return nn.Sequential(*layers).eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def heatmaps():
    generator = torch.Generator().manual_seed(2)
    return {"a": torch.rand(3, 4, 4, generator=generator), "b": torch.rand(3, 7, 5, generator=generator) - 0.5}


def linear(weight):
    return lambda images: torch.stack([(images * weight).flatten(1).sum(1), torch.zeros(len(images))], 1)


def test_curves_of_a_linear_score_are_sums_of_what_is_left():
    weight, images = torch.rand(1, 6, 6).double(), torch.randn(2, 1, 6, 6).double()
    maps = torch.rand(2, 6, 6).double()
    options = {"score": "logit", "relative": False, "pixels_per_step": 5, "insertion_baseline": "mean"}
    preset = Faithfulness(metrics=["deletion", "insertion"], **options)
    measured = measure_faithfulness(linear(weight), images, {"m": maps}, torch.tensor([0, 0]), preset)
    counts = [0, 5, 10, 15, 20, 25, 30, 35, 36]
    for number in range(2):
        order = np.argsort(-maps[number].ravel().numpy(), kind="stable")
        parts = (images[number] * weight).ravel().numpy()[order]
        left = np.array([parts[count:].sum() for count in counts])
        np.testing.assert_allclose(measured.curves["deletion"][0, number], left, atol=1e-12)
        np.testing.assert_allclose(measured.curves["insertion"][0, number], parts.sum() - left, atol=1e-12)
        area = trapezoid(left, np.array(counts) / 36)
        np.testing.assert_allclose(measured.values["deletion"][0, number], area, atol=1e-12)


def plain_deletion_and_insertion(network, image, relevance, target, step):
    """RISE's definition: one pixel after the other, `step` of them between two looks at the probability."""
    kernel = np.zeros((11, 11))
    kernel[5, 5] = 1
    kernel = torch.tensor(gaussian_filter(kernel, 5), dtype=image.dtype)
    blurred = functional.conv2d(image[:, None], kernel[None, None], padding=5)[:, 0]
    pixels = sorted(np.ndindex(*relevance.shape), key=lambda place: -relevance[place])  # stable
    areas = []
    for start, end in ((image, torch.zeros_like(image)), (blurred, image)):
        now, scores = start.clone(), []
        for count in range(len(pixels) + 1):
            if count % step == 0:
                scores.append(network(now[None]).softmax(1)[0, target].item())
            if count < len(pixels):
                now[:, pixels[count][0], pixels[count][1]] = end[:, pixels[count][0], pixels[count][1]]
        areas.append((sum(scores) - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1))
    return areas


def test_rise_written_plainly(network, images):
    maps = torch.randint(0, 6, (3, SIZE, SIZE)).float()  # many ties
    preset = replace(load_faithfulness("petsiuk2018"), pixels_per_step=SIZE)
    measured = measure_faithfulness(network, images, {"m": maps}, torch.tensor([0, 1, 2]), preset, chunk=7)
    with torch.no_grad():
        for number in range(3):
            areas = plain_deletion_and_insertion(network, images[number], maps[number].numpy(), number, SIZE)
            assert [measured.values[name][0, number] for name in preset.metrics] == pytest.approx(areas, abs=1e-6)


def test_torchcams_numbers(network, images):
    torchcam = pytest.importorskip("torchcam.metrics")
    from torchcam.methods import CAM

    extractor = CAM(network, "1", "4")
    softmax = partial(torch.softmax, dim=-1)
    curves = torchcam.DeletionInsertionMetric(extractor, softmax)
    drops = torchcam.ClassificationMetric(extractor, softmax)
    targets, maps = [], []
    for image in images:
        curves.update(image[None].clone())
        drops.update(image[None].clone())
        logits = network(image[None])
        targets.append(int(logits.argmax()))
        maps.append(torch.einsum("k,khw->hw", network[4].weight[targets[-1]], network[1](network[0](image))).detach())
    preset = load_faithfulness("torchcam")
    measured = measure_faithfulness(network, images, {"cam": torch.stack(maps)}, torch.tensor(targets), preset)
    theirs = curves.summary() | drops.summary()
    for name, key in (("deletion", "deletion_auc"), ("insertion", "insertion_auc"),
                      ("average_drop", "avg_drop"), ("increase", "conf_increase")):  # fmt: skip
        assert measured.values[name].mean() == pytest.approx(theirs[key], abs=1e-5), name


def test_the_library_grad_cams_numbers(network, images):
    metrics = pytest.importorskip("pytorch_grad_cam.metrics.cam_mult_image")
    from pytorch_grad_cam.metrics import road
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    preset = replace(load_faithfulness("gradcam_library"), noise=0.0)
    # Half of the map is 0, as of many a Grad-CAM; the rest are different multiples of 1/256, exact in any precision.
    values = torch.randperm(SIZE * SIZE, generator=torch.Generator().manual_seed(3)).view(1, SIZE, SIZE) - 128
    maps = (values.clamp(min=0).float() / 127).expand(3, -1, -1)
    given, targets = maps.numpy(), [ClassifierOutputTarget(2)] * 3
    measured = measure_faithfulness(network, images, {"m": maps}, torch.tensor([2, 2, 2]), preset)
    theirs = {
        "average_drop": metrics.DropInConfidence()(images, given, targets, network),
        "increase": metrics.IncreaseInConfidence()(images, given, targets, network),
    }
    quiet = road.NoisyLinearImputer(noise=0.0)
    for name, remover in (("road_most", road.RemoveMostRelevantFirst), ("road_least", road.RemoveLeastRelevantFirst)):
        changes = [
            road.PerturbationConfidenceMetric(remover(percentile, quiet))(images, given, targets, network)
            for percentile in range(10, 100, 10)
            # Where ties leave no pixel to start from, the library's equations have no solution of their own.
            if name == "road_least" or percentile > 50
        ]
        theirs[name] = np.mean(changes, 0)
    few = replace(preset, shares=(0.1, 0.2, 0.3, 0.4), metrics=["road_most"])
    values = dict(measured.values)
    values |= measure_faithfulness(network, images, {"m": maps}, torch.tensor([2, 2, 2]), few).values
    for name, expected in theirs.items():
        np.testing.assert_allclose(values[name][0], expected, atol=1e-5, err_msg=name)


def test_drop_increase_and_gain_are_their_formulas(network, images, heatmaps):
    preset, mean, std = load_faithfulness("chattopadhay2018"), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    targets = torch.tensor([0, 1, 4])
    measured = measure_faithfulness(network, images, heatmaps, targets, preset, mean=mean, std=std)
    with torch.no_grad():
        for row, maps in enumerate(heatmaps.values()):
            for number, target in enumerate(targets):
                raw = maps[None, number : number + 1].double()
                mask = functional.interpolate(raw, (SIZE, SIZE), mode="bilinear")[0]
                mask = (mask - mask.min()) / (mask.max() - mask.min())
                colors = images[number] * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
                seen = (colors * mask - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
                before, after = (network(x[None].float()).softmax(1)[0, target].item() for x in (images[number], seen))
                expected = (max(0, before - after) / before, after > before, max(0, after - before) / (1 - before))
                values = [measured.values[name][row, number] for name in preset.metrics]
                assert values == pytest.approx([float(value) for value in expected], abs=1e-5)


def test_road_keeps_counts_where_values_are_equal(network, images):
    seen = []

    def watching(batch):
        seen.append(batch.clone())
        return network(batch)

    preset = replace(load_faithfulness("rong2022"), noise=0.0, shares=(0.25, 0.5))
    flat = torch.zeros(1, SIZE, SIZE)
    measure_faithfulness(watching, images[:1], {"m": flat}, torch.tensor([0]), preset)
    changed = [int((image != images[0]).any(0).sum()) for batch in seen[1:] for image in batch]
    assert changed == [64, 128, 64, 128]
    first, last = seen[1][0], seen[2][0]
    assert torch.equal(first[:, 4:], images[0, :, 4:])  # the first in raster order count as the most relevant
    assert torch.equal(last[:, :12], images[0, :, :12])


def test_a_pixel_is_imputed_from_its_neighbors():
    image = np.arange(25, dtype=np.float64).reshape(1, 5, 5) ** 2
    known = np.ones((5, 5), bool)
    known[2, 2] = known[0, 0] = False
    kernel = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12
    filled = impute(image, known)[0]
    assert filled[2, 2] == pytest.approx((kernel * image[0, 1:4, 1:4]).sum())
    assert filled[0, 0] == pytest.approx((image[0, 0, 1] / 6 + image[0, 1, 0] / 6 + image[0, 1, 1] / 12) / (5 / 12))
    assert np.array_equal(filled[known], image[0][known])


def test_many_unknown_pixels_solve_the_same_equations():
    rng = np.random.default_rng(0)
    image, known = rng.random((3, 12, 9)), rng.random((12, 9)) < 0.2
    filled, steps = impute(image, known), np.where(known, image, 0.5)
    for _ in range(4000):  # the slow way: again and again the mean of the neighbors
        total, weights = np.zeros_like(steps), np.zeros((12, 9))
        padded = np.pad(steps, ((0, 0), (1, 1), (1, 1)))
        inside = np.pad(np.ones((12, 9)), 1)
        for y in (-1, 0, 1):
            for x in (-1, 0, 1):
                if (y, x) != (0, 0):
                    weight = 1 / 6 if 0 in (y, x) else 1 / 12
                    total += weight * padded[:, 1 + y : 13 + y, 1 + x : 10 + x]
                    weights += weight * inside[1 + y : 13 + y, 1 + x : 10 + x]
        steps = np.where(known, image, total / weights)
    np.testing.assert_allclose(filled, steps, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_constant_maps(value, network, images):
    maps = torch.full((3, 4, 4), value)
    preset = load_faithfulness("chattopadhay2018")
    normalization = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    measured = measure_faithfulness(network, images, {"m": maps}, torch.tensor([0, 1, 2]), preset, **normalization)
    if value > 0:  # it hides nothing, to the last bit
        assert not any(values.any() for values in measured.values.values())
    else:
        assert (measured.values["average_drop"] + measured.values["gain"] > 0).all()


def test_one_pixel():
    preset = Faithfulness(metrics=["deletion", "insertion", "road"], pixels_per_step=224, noise=0.0)
    image, network = torch.ones(1, 3, 1, 1), lambda images: images.flatten(1)
    measured = measure_faithfulness(network, image, {"m": torch.ones(1, 1, 1)}, torch.tensor([0]), preset)
    assert measured.shares.tolist() == [0.0, 1.0]
    assert np.isfinite([value.item() for value in measured.values.values()]).all()


def test_chunks_and_the_company_of_other_methods_change_nothing(network, images, heatmaps):
    targets = torch.tensor([0, 3, 2])
    for name in faithfulness_names():
        preset = load_faithfulness(name)
        together = measure_faithfulness(network, images, heatmaps, targets, preset, chunk=5)
        alone = measure_faithfulness(network, images[1:2], {"b": heatmaps["b"][1:2]}, targets[1:2], preset)
        for metric, values in together.values.items():
            assert values[1, 1] == pytest.approx(alone.values[metric][0, 0], abs=1e-6), (name, metric)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"metrics": ["deletion"]}, "steps"),
        ({"metrics": ["deletion"], "steps": 3, "pixels_per_step": 3}, "steps"),
        ({"metrics": ["average_drop"], "score": "logit"}, "relative"),
        ({"metrics": []}, "metrics"),
        ({"metrics": ["auc"]}, "metrics"),
        ({"metrics": ["road"], "shares": [0.5, 0.5]}, "shares"),
        ({"metrics": ["road"], "noise": float("nan")}, "noise"),
        ({"metrics": ["insertion"], "steps": 3, "blur_kernel": 10}, "blur_kernel"),
    ],
)
def test_what_does_not_fit_is_named(options, named):
    with pytest.raises(UserError, match=named):
        Faithfulness(**options)


def test_an_unknown_preset_is_named(tmp_path):
    with pytest.raises(UserError, match="petsuik"):
        load_faithfulness("petsuik2018")
    path = tmp_path / "mine.yaml"
    path.write_text("metrics: [road]\nshares: [0.5]\n")
    assert load_faithfulness(path).name == "mine"


@pytest.fixture(scope="module")
def evaluated():
    def run(**options):
        dataset, options = Shapes(length=6), {"methods": ["cam", "center"], "progress": False} | options
        return wsol.evaluate(dataset, shapes_classifier(), protocols=["choe2020"], batch_size=2, **options)

    return run


@pytest.mark.long
def test_a_run_measures_the_first_samples_in_whatever_shards(evaluated, tmp_path):
    asked = {"faithfulness": ["chattopadhay2018", "petsiuk2018"], "faithfulness_limit": 5}
    results = evaluated(**asked)
    table = results.faithfulness
    assert table.columns.tolist() == ["preset", "method", "metric", "share", "sample_id", "value"]
    values = table[table["share"].isna()]
    assert values.groupby(["preset", "method", "metric"]).size().tolist() == [5] * 10
    assert set(values["sample_id"]) == set(results.samples["sample_id"][:5])
    curve = table[(table["metric"] == "deletion") & (table["method"] == "cam") & table["share"].notna()]
    assert curve.groupby("sample_id")["share"].agg(["min", "max"]).drop_duplicates().values.tolist() == [[0, 1]]
    row = results.metrics[(results.metrics["metric"] == "deletion") & results.metrics["class"].isna()].iloc[0]
    expected = 100 * values[(values["metric"] == "deletion") & (values["method"] == row["method"])]["value"].mean()
    assert row["value"] == pytest.approx(expected) and row["low"] <= row["value"] <= row["high"]
    for shard_size, folder in ((2, tmp_path / "a"), (4, tmp_path / "b")):
        evaluated(**asked, shard_size=shard_size, run_dir=folder, report=False, pictures=0)
    files = [(tmp_path / name / "faithfulness.parquet").read_bytes() for name in "ab"]
    assert files[0] == files[1]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a" / "faithfulness.parquet"), table)


def test_the_heatmap_is_that_of_the_class_which_is_asked(evaluated):
    """A network that is never sure: the predicted class is not the label's."""
    classifier = shapes_classifier()
    with torch.no_grad():
        classifier.module.get_submodule("fc" if hasattr(classifier.module, "fc") else "classifier").bias[3] = 1e4
    dataset, fields = Shapes(length=3), {"metrics": ["deletion"], "steps": 1, "score": "logit", "relative": False}
    presets = {"label": fields, "predicted": fields | {"target": "predicted"}}
    table = wsol.evaluate(dataset, classifier, ["cam"], ["choe2020"], faithfulness=presets, progress=False).faithfulness
    whole = table[table["share"] == 0].set_index(["preset", "sample_id"])["value"]
    assert (whole["predicted"] > 5e3).all() and (whole["label"] < 5e3).all()


def test_several_views_of_an_image_are_refused(evaluated):
    with pytest.raises(UserError, match="view"):
        evaluated(faithfulness=["rong2022"], flip=True)
    with pytest.raises(UserError, match="petsuik"):
        evaluated(faithfulness=["petsuik"])


@pytest.mark.usefixtures("no_figures")  # those of accuracy: its own are drawn
def test_the_page_shows_what_was_measured(evaluated, tmp_path):
    methods = ["cam", "gradcam", "center"]
    asked = {"my_steps": {"metrics": ["insertion"], "steps": 4}, "my_road": {"metrics": ["road"], "shares": [0.2, 0.6]}}
    evaluated(methods=methods, faithfulness=asked, faithfulness_limit=3, run_dir=tmp_path / "run", pictures=0)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert 'id="faithfulness"' in page and all(word in page for word in (*asked, "insertion", "road_least"))
    assert {path.name for path in (tmp_path / "run" / "figures").glob("faithfulness_*.png")} == {
        "faithfulness_curves.png", "faithfulness_localization.png",
    }  # fmt: skip


def test_the_agreement_of_two_orders_is_spearmans():
    rng = np.random.default_rng(0)
    first, second = rng.random((40, 6)), rng.random((40, 6))
    rho, low, high = rank_agreement(first, second)
    assert rho == pytest.approx(spearmanr(first.mean(0), second.mean(0)).statistic) and low <= rho <= high
    assert np.isnan(rank_agreement(np.ones((4, 3)), second[:4, :3])[0])
