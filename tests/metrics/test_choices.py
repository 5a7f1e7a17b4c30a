"""How τ is chosen and what is averaged: values that papers' own evaluators gave, and all tables of one mind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import wsol
from wsol.datasets import Shapes
from wsol.errors import UserError
from wsol.localization import Protocol
from wsol.metrics.localization import OUTCOMES, Sweeps, outcomes_of
from wsol.metrics.statistics import resampled_means
from wsol.models import shapes_classifier
from wsol.report.compare import compare

TAUS = (0.3, 0.35, 0.4)
IOU = np.array([[0.55, 0.62, 0.71], [0.45, 0.52, 0.3], [0.8, 0.49, 0.5], [0.2, 0.51, 0.9]])  # the papers' examples
TOP1 = np.array([0, 6, 0, 6])  # ranks
DELTAS = ("max_box_acc_30", "max_box_acc_50", "max_box_acc_70")


def coded(iou: np.ndarray, taus=TAUS) -> Sweeps:
    count, steps = iou.shape
    return Sweeps(
        np.repeat(np.arange(count), steps), np.tile(np.arange(steps), count), iou.ravel(), count, np.array(taus)
    )


def chosen(ranks: np.ndarray = TOP1, **rules) -> dict[str, float]:
    outcomes = outcomes_of(coded(IOU), ranks, Protocol(thresholds=TAUS, **rules), labels=np.zeros(4, int))
    return {metric: 100 * outcomes.mean(metric) for metric in outcomes.values} | {"tau": outcomes.thresholds}


def test_sat_takes_the_best_sum_and_reports_all_there() -> None:
    sat = chosen(threshold_of="sum", v2_threshold="shared")
    assert sat["tau"]["gt_known_loc"] == sat["tau"]["top1_loc"] == sat["tau"]["max_box_acc_70"] == 0.4
    assert (sat["gt_known_loc"], sat["top1_loc"], *map(sat.get, DELTAS)) == (75, 50, 100, 75, 50)
    assert sat["max_box_acc_v2"] == 75


def test_dawsol_bagcams_and_fcam_choose_for_each() -> None:
    each = chosen(threshold_of="each")
    assert [each[name] for name in DELTAS] == [100, 75, 50] and each["top1_loc"] == 50
    assert (each["tau"]["gt_known_loc"], each["tau"]["top1_loc"]) == (0.35, 0.3)
    assert chosen(np.array([0, 3, 0, 6]), threshold_of="each")["top5_loc"] == 50
    top_5 = chosen(np.array([0, 3, 0, 6]), threshold_of="each", iou_thresholds=(0.3, 0.5, 0.7))
    assert [top_5["tau"][name] for name in DELTAS] == [0.35, 0.35, 0.4]


def test_vitol_reports_all_at_its_fixed_threshold() -> None:
    protocol = Protocol(thresholds=(0.208,), v2_threshold="shared", threshold=0.208)
    outcomes = outcomes_of(coded(IOU[:, 1:2] * [[1], [1], [1], [1]], (0.208,)), TOP1, protocol, 0.208)
    assert [100 * outcomes.mean(name) for name in DELTAS] == [100, 75, 0] and outcomes.mean("top1_loc") == 0.25
    assert outcomes.mean("max_box_acc_v2") == pytest.approx(175 / 300) and not outcomes.oracle


def test_psol_cream_and_bas_average_over_classes() -> None:
    iou, labels = np.array([0.9, 0.2, 0.8, 0.6, 0.5, 0.5]), np.array([0, 0, 0, 1, 2, 2])
    rules = Protocol(average="classes", iou_comparison=">", topk_iou_comparison=">", thresholds=(0.0,))
    ranks = np.array([0, 1, 0, 0, 0, 0])
    outcomes = outcomes_of(coded(iou[:, None], (0.0,)), ranks, rules, labels=labels)
    assert outcomes.mean("gt_known_loc") == pytest.approx(5 / 9) and outcomes.mean("top1_loc") == pytest.approx(5 / 9)
    assert outcomes.curves[0.5] == pytest.approx([5 / 9])
    micro = outcomes_of(coded(iou[:, None], (0.0,)), ranks, replace(rules, average="samples"))
    assert micro.mean("gt_known_loc") == 0.5


def test_resamples_average_by_class_over_those_that_were_drawn() -> None:
    random = np.random.default_rng(3)
    values, labels, image = random.random((9, 2)), np.array([0, 2, 2, 0, 1, 1, 1, 4, 0]), np.arange(9) // 2
    means = resampled_means(values, image, 40, 5, labels)
    drawn = np.random.default_rng(5).integers(0, 5, (40, 5))
    for row, images in zip(means, drawn, strict=True):
        picked = np.concatenate([np.flatnonzero(image == number) for number in images])
        classes = [values[picked[labels[picked] == label]].mean(axis=0) for label in np.unique(labels[picked])]
        assert row == pytest.approx(np.mean(classes, axis=0), abs=1e-12)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> wsol.Results:
    """Baselines under every preset that scores heatmaps, and rules of τ and averages that no preset may have."""
    folder, dataset = tmp_path_factory.mktemp("all"), Shapes(length=24)
    ids, labels = dataset.ids, dataset.labels + (np.arange(24) % 3 == 0)
    columns = {"sample_id": [sample.sample_id for sample in dataset]}
    columns |= {f"top{k + 1}": [ids[(label + k) % len(ids)] for label in labels] for k in range(5)}
    pd.DataFrame(columns).to_csv(folder / "guesses.csv", index=False)
    protocols = {"all": Protocol(name="all")}
    for name, rules in {
        "each": {"threshold_of": "each"}, "sum": {"threshold_of": "sum", "v2_threshold": "shared"},
        "classes": {"average": "classes", "component": "any"}, "fixed": {"threshold": 0.5, "v2_threshold": "shared"},
        "named": {"threshold": {"shapes": 0.45, "cub": 0.1}}, "unnamed": {"threshold": {"cub": 0.1}},
    }.items():  # fmt: skip
        protocols[name] = Protocol(name=name, size=(56, 56), **rules)
    options = {"predictions": folder / "guesses.csv", "progress": False, "run_dir": folder / "run"}
    return wsol.score(dataset, methods=["center", "random"], protocols=protocols, **options)


def test_the_mean_of_per_image_is_the_summary_under_every_preset(run) -> None:
    for row in run.summary.to_dict("records"):
        rows = run.per_image.query(f"method == {row['method']!r} and protocol == {row['protocol']!r}")
        by_class = Protocol.from_mapping(run.config["protocols"][row["protocol"]]).average == "classes"
        for metric in [*OUTCOMES, "mean_iou"]:
            values = rows["iou" if metric == "mean_iou" else metric].astype(float)
            mean = values.groupby(rows["label"]).mean().mean() if by_class else values.mean()
            assert row[metric] == pytest.approx(100 * mean, nan_ok=True), (row["protocol"], metric)
        own = run.metrics.query(f"method == {row['method']!r} and protocol == {row['protocol']!r} and `class` == ''")
        for interval in own[own["low"].notna() & own["iou_threshold"].isna()].to_dict("records"):
            assert interval["value"] == pytest.approx(row[interval["metric"]], abs=1e-6)


def test_presets_that_score_ready_boxes_are_left_out_and_named(run) -> None:
    presets = {name: wsol.load_protocol(name) for name in wsol.localization.protocol_names()}
    ready = {name for name, protocol in presets.items() if protocol.ready_boxes}
    assert set(presets) - ready <= set(run.summary["protocol"]) and not ready & set(run.summary["protocol"])
    assert all(any(name in note for note in run.environment["notes"]) for name in ready)


def test_presets_that_take_maps_as_they_are_are_left_out_of_raw_ones_before_they_are_made(run, tmp_path) -> None:
    unnormalized = {"belharbi2022_fcam", "xie2022_ccam"}
    assert unnormalized <= set(run.summary["protocol"])  # center and random ones lie in [0, 1]
    dataset = Shapes(length=2)
    np.savez(tmp_path / "theirs.npz", **{sample.sample_id: np.eye(3) * 7 - 2 for sample in dataset})
    raw = {"heatmaps": tmp_path / "theirs.npz", "heatmaps_kind": "raw", "progress": False}
    network = wsol.evaluate(dataset, shapes_classifier(), ["cam"], ["all"], progress=False)
    for results in (network, wsol.score(dataset, protocols=["all"], **raw)):
        assert not unnormalized & set(results.summary["protocol"])
        assert all(any(name in note for note in results.environment["notes"]) for name in unnormalized)
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        wsol.score(dataset, protocols=["all", "xie2022_ccam"], **raw)  # who names it means it


def test_each_outcome_stands_at_its_own_threshold_wherever_it_is_read(run) -> None:
    rows = run.metrics.query("protocol == 'each' and method == 'random' and `class` == '' and low == low")
    taus = rows.set_index("metric")["threshold"]
    curve = run.curves.query("protocol == 'each' and method == 'random' and iou_threshold == 0.5")
    for metric, column in (("top1_loc", "top1_loc"), ("gt_known_loc", "gt_known_loc")):
        assert taus[metric] == curve["threshold"].iloc[curve[column].argmax()]
    pairs = compare([run.run_dir], metrics=["top1_loc", "gt_known_loc"]).pairs.set_index(["protocol", "metric"])
    summary = run.summary.set_index(["protocol", "method"])
    for protocol in ("each", "sum", "classes", "fixed"):
        for metric in ("top1_loc", "gt_known_loc"):
            pair = pairs.loc[protocol, metric]
            assert pair["first_value"] == pytest.approx(summary.loc[(protocol, pair["first_method"]), metric])
            assert pd.isna(pair["p"]) == (protocol == "classes"), "McNemar's test knows no classes"


def test_thresholds_by_dataset_and_citations(run) -> None:
    rows = run.summary.drop_duplicates("protocol").set_index("protocol")
    assert (rows.loc["named", "threshold"], rows.loc["named", "threshold_source"]) == (0.45, "fixed")
    assert rows.loc["unnamed", "threshold_source"] == "oracle (no τ published for shapes)"
    cite = run.environment["cite"]
    assert (
        cite["choe2020_v2"] == f"choe2020_v2@{wsol.load_protocol('choe2020_v2').fingerprint()}, wsol {wsol.__version__}"
    )
    assert cite["choe2020_v2"] in (Path(run.run_dir) / "summary.md").read_text(encoding="utf-8")


def test_thresholds_of_another_run_are_taken_for_each(run, tmp_path) -> None:
    other = Shapes("train", length=8)
    protocols = {"each": Protocol(name="each", size=(56, 56), threshold_of="each")}
    results = wsol.score(
        other, methods=["random"], protocols=protocols, threshold_from=run.run_dir, threshold_from_test=True,
        progress=False, predictions=None,
    )  # fmt: skip
    wanted = run.summary.query("protocol == 'each' and method == 'random'")
    assert results.summary["threshold"].tolist() == wanted["threshold"].tolist()
