"""Bootstrap intervals and tests against SciPy and statsmodels; outcomes rebuilt from sweeps against the tables."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

import wsol
from wsol.datasets import Shapes
from wsol.metrics import statistics
from wsol.metrics.localization import METRICS, Sweeps, sample_outcomes
from wsol.models import Classifier, gapnet
from wsol.report.run import Run

SCRIPT = Path(__file__).parents[2] / "scripts" / "bootstrap_coverage.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    data = Shapes("test", length=12, size=32, classes=7, object_size=(0.4, 0.9))
    network = Classifier(
        name="small", module=gapnet(7, widths=(6, 8), strides=(2, 2), seed=0), layer="features", input_size=(32, 32),
        classes=data.classes, class_ids=data.ids,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("runs") / "a"
    protocols = ("choe2020", "choe2020_v2", "zhou2016", "gao2021", "exact")
    wsol.evaluate(data, network, ("cam", "center"), protocols, run_dir=folder, pictures=0, report=False, progress=False)
    return Run.open(folder)


def test_intervals_are_scipys_on_the_same_resamples() -> None:
    random = np.random.default_rng(0)
    values = np.stack([random.random(57), random.random(57) < 0.7], axis=1)
    low, high = statistics.percentile_interval(statistics.resampled_means(values, None, 400, seed=7))
    for column in range(2):
        reference = scipy.stats.bootstrap(
            (values[:, column],), np.mean, n_resamples=400, method="percentile", random_state=np.random.default_rng(7)
        )
        assert low[column] == pytest.approx(reference.confidence_interval.low, abs=1e-9)
        assert high[column] == pytest.approx(reference.confidence_interval.high, abs=1e-9)


def test_paired_differences_are_scipys() -> None:
    random = np.random.default_rng(1)
    first, second = random.random(40), random.random(40)
    means = statistics.resampled_means(np.stack([first, second], axis=1), None, 300, seed=3)
    low, high = statistics.percentile_interval(means[:, 0] - means[:, 1])
    reference = scipy.stats.bootstrap(
        (first, second), lambda a, b, axis=-1: a.mean(axis) - b.mean(axis), n_resamples=300, paired=True,
        vectorized=True, method="percentile", random_state=np.random.default_rng(3),
    ).confidence_interval  # fmt: skip
    assert (low, high) == (pytest.approx(reference.low, abs=1e-9), pytest.approx(reference.high, abs=1e-9))


def test_chunks_are_bounded_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).random((33, 4))
    whole = statistics.resampled_means(values, None, 50)
    monkeypatch.setattr(statistics, "CHUNK", 100)
    assert {part.shape for part in statistics.resamples_of(33, 50)} == {(3, 33), (2, 33)}
    assert np.allclose(statistics.resampled_means(values, None, 50), whole, rtol=0, atol=1e-15)


def test_samples_of_an_image_are_drawn_together() -> None:
    values, image = np.arange(10.0)[:, None], np.array([0, 1, 1, 2, 0, 3, 3, 3, 4, 0])
    means = statistics.resampled_means(values, image, 20, seed=5)
    drawn = np.random.default_rng(5).integers(0, 5, (20, 5))
    slow = [np.concatenate([values[image == one, 0] for one in row]).mean() for row in drawn]
    assert np.allclose(means[:, 0], slow, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (5, 0), (3, 3), (8, 21), (120, 171), (5000, 5200)])
def test_mcnemar_is_statsmodels(first: int, second: int) -> None:
    reference = reference_mcnemar([[7, first], [second, 9]], exact=True).pvalue
    assert float(statistics.mcnemar(first, second)) == pytest.approx(reference, abs=1e-9, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_statsmodels(seed: int) -> None:
    p = np.random.default_rng(seed).random(20).round(2) ** 3  # with ties
    assert np.allclose(statistics.holm(p), multipletests(p, method="holm")[1], rtol=0, atol=1e-9)
    assert statistics.holm(np.array([np.nan, np.nan])).shape == (2,)


def test_coded_sweeps_are_what_they_stand_for() -> None:
    random, grid = np.random.default_rng(6), np.arange(0, 1, 0.05)
    dense = random.integers(0, 4, (9, 20)) / 4
    rows = [
        {"sample_id": f"s{number}", "threshold": grid[at], "iou": line[at]}
        for number, line in enumerate(dense)
        for at in range(20)
        if at == 0 or line[at] != line[at - 1]
    ]
    ids = ["s4", "absent", "s0", "s8"]
    wanted = np.stack([dense[4], np.zeros(20), dense[0], dense[8]])
    coded = Sweeps.from_table(pd.DataFrame(rows), ids, grid)
    for at in range(20):
        assert (coded.iou_at(at) == wanted[:, at]).all()
    assert not Sweeps.from_table(pd.DataFrame(rows), ["absent"], grid).iou_at(6).any()


def test_rebuilt_outcomes_are_the_runs_own(run: Run) -> None:
    best = run.metrics[(run.metrics["metric"] == "max_box_acc") & (run.metrics["class"] == "")]
    for _, row in run.summary.iterrows():
        method, protocol = row["method"], row["protocol"]
        found = sample_outcomes(row, run.sweep(method, protocol), run.samples, run.protocols[protocol])
        assert {*found.values, "pxap"} == {metric for metric in METRICS if pd.notna(row[metric])}
        for metric in found.values:
            assert 100 * found.mean(metric) == pytest.approx(row[metric], abs=1e-9), (method, protocol, metric)
        per_image = run.per_image(method, protocol, ["sample_id", "iou", "gt_known_loc", "top1_loc", "top5_loc"])
        assert (per_image["sample_id"].astype(str) == run.samples["sample_id"]).all()
        for metric in ("gt_known_loc", "top1_loc", "top5_loc"):
            assert (found.values[metric] == per_image[metric].to_numpy(bool)).all()
        assert np.allclose(found.values["mean_iou"], per_image["iou"], rtol=0, atol=1e-12)
        own = best[(best["method"] == method) & (best["protocol"] == protocol)]
        for delta, threshold in zip(own["iou_threshold"], own["threshold"], strict=True):
            assert found.thresholds[f"max_box_acc_{round(100 * delta)}"] == threshold
        at_half = run.curves.query("method == @method and protocol == @protocol and iou_threshold == 0.5")
        assert np.allclose(100 * found.curves[0.5], at_half["gt_known_loc"], rtol=0, atol=1e-9)


def test_every_number_of_the_summary_has_its_interval(run: Run) -> None:
    table = run.intervals
    keys = ["method", "protocol", "metric"]
    assert not table.duplicated(keys).any()
    summary = run.summary.set_index(["method", "protocol"])
    names = summary[list(METRICS)].drop(columns="max_box_acc").stack()  # that at IoU 50 by another name
    wanted = {(method, protocol, metric) for (method, protocol, metric), value in names.items() if pd.notna(value)}
    assert set(table[keys].itertuples(index=False, name=None)) == wanted
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert (table["low"] < table["high"]).any()
    oracle = table.set_index(keys)["oracle"]
    assert oracle["cam", "choe2020", "gt_known_loc"]
    assert not oracle["cam", "zhou2016", "gt_known_loc"]
    assert oracle["cam", "zhou2016", "max_box_acc_50"]
    assert not oracle["cam", "choe2020", "top1_cls"]


def test_where_the_threshold_is_fixed_intervals_cover_the_truth() -> None:
    spec = importlib.util.spec_from_file_location("bootstrap_coverage", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.coverage(150, *script.SETTINGS["flat"], repetitions=500, resamples=300)
    assert 0.93 <= found["fixed"] <= 0.97
    assert 0.93 <= found["other split"] <= 0.97
    assert found["oracle again"] < min(found["oracle"], 0.90)
