"""How τ is chosen and what is averaged: values that papers' own evaluators gave, and all tables of one mind."""

from __future__ import annotations

import json
from collections.abc import Sequence
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

RULES = json.loads((Path(__file__).parents[1] / "golden" / "rules.json").read_text())["_aggregates"]
COUNT = 16
DELTAS = ("max_box_acc_30", "max_box_acc_50", "max_box_acc_70")


def coded(iou: np.ndarray, taus: Sequence[float]) -> Sweeps:
    count, steps = iou.shape
    return Sweeps(
        np.repeat(np.arange(count), steps), np.tile(np.arange(steps), count), iou.ravel(), count, np.array(taus)
    )


def at_half(values: list[float] | float) -> float:
    return values[1] if isinstance(values, list) else values


@pytest.mark.parametrize("name", ["wu2023_sat", "zhu2022_dawsol", "belharbi2022_fcam", "gupta2022_vitol"])
def test_presets_choose_as_their_papers_code_did(name: str) -> None:
    golden, protocol = RULES[name], wsol.load_protocol(name).for_dataset("ilsvrc")
    top1 = np.array(golden["top1_right"], bool)
    ranks = np.where(top1, 0, np.where(golden.get("top5_right", top1), 3, 6))
    protocol = replace(protocol, thresholds=tuple(golden["taus"]))
    outcomes = outcomes_of(coded(np.array(golden["iou"]), golden["taus"]), ranks, protocol, protocol.threshold)
    gt_known = (
        golden["gt_known"] if isinstance(golden["gt_known"], list) else [golden[f"iou{at}"] for at in (30, 50, 70)]
    )
    expected = dict(zip(DELTAS, gt_known, strict=True)) | {"max_box_acc_v2": golden.get("mean", np.mean(gt_known))}
    expected |= {"gt_known_loc": at_half(golden["gt_known"]), "top1_loc": at_half(golden["top1_loc"])}
    expected |= {"top5_loc": at_half(golden["top5_loc"])} if "top5_loc" in golden else {}
    assert {metric: 100 * outcomes.mean(metric) for metric in expected} == pytest.approx(expected)
    taus = golden.get("best_tau_of_gt_known") or [golden["tau"]] * 3 if "tau" in golden else []
    assert [outcomes.thresholds[metric] for metric in DELTAS][: len(taus)] == taus
    assert bool(outcomes.oracle) == (name != "gupta2022_vitol")


@pytest.mark.parametrize("name", ["zhang2020_psol", "xu2022_cream", "wu2022_bas"])
def test_presets_average_over_classes_as_their_papers_code_did(name: str) -> None:
    golden, protocol = RULES["macro (psol, cream, bas, ccam after psol)"], wsol.load_protocol(name).for_dataset()
    iou, top1 = (np.concatenate(list(golden[f"per_class_{key}"].values())) for key in ("iou", "top1_right"))
    labels = np.repeat([0, 1, 2], [len(ious) for ious in golden["per_class_iou"].values()])
    protocol, sweeps = replace(protocol, thresholds=(0.0,), threshold=None), coded(iou[:, None], (0.0,))
    outcomes = outcomes_of(sweeps, np.where(top1, 0, 6), protocol, labels=labels)
    assert 100 * outcomes.mean("gt_known_loc") == pytest.approx(100 * golden["gt_known"])
    assert outcomes.curves[0.5] == pytest.approx([golden["gt_known"]])
    assert outcomes.mean("top1_loc") == pytest.approx(golden["top1_loc"])
    micro = outcomes_of(sweeps, np.where(top1, 0, 6), replace(protocol, average="samples"))
    assert micro.mean("gt_known_loc") == golden["micro_gt_known"]


def test_presets_compare_an_iou_of_one_half_as_their_papers_code_did() -> None:
    golden = RULES["comparison at IoU exactly 0.5"]
    for kind, field in (("GT-known", "iou_comparison"), ("Top-k", "topk_iou_comparison")):
        counted = dict.fromkeys(golden[f"{kind} counts it"], ">=")
        for name, comparison in (counted | dict.fromkeys(golden[f"{kind} does not"], ">")).items():
            protocol = wsol.load_protocol({"kim2021": "kim2021_ivr"}.get(name, name))
            assert getattr(protocol, field) == comparison, (name, kind)


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
    folder, dataset = tmp_path_factory.mktemp("all"), Shapes(length=COUNT)
    ids, labels = dataset.ids, dataset.labels + (np.arange(COUNT) % 3 == 0)
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
    options = {"predictions": folder / "guesses.csv", "progress": False, "run_dir": folder / "run", "report": False}
    return wsol.score(dataset, methods=["center", "random"], protocols=protocols, **options)


@pytest.fixture(scope="module")
def boxed(run) -> wsol.Results:
    """Ground truth that was moved, as somebody's boxes, under all presets."""
    folder, dataset = Path(run.run_dir).parent, Shapes(length=COUNT)
    moved = [(sample.sample_id, *sample.boxes[0] + number % 9 * 3) for number, sample in enumerate(dataset)]
    pd.DataFrame(moved, columns=["sample_id", "x0", "y0", "x1", "y1"]).to_csv(folder / "boxes.csv", index=False)
    options = {"box_corners": "inclusive", "box_units": "pixels", "progress": False}
    return wsol.score(
        dataset, boxes=folder / "boxes.csv", protocols=["all"], predictions=folder / "guesses.csv", **options
    )


@pytest.mark.parametrize("source", ["run", "boxed"])
def test_the_mean_of_per_image_is_the_summary_under_every_preset(source, request) -> None:
    run = request.getfixturevalue(source)
    presets = set(wsol.localization.protocol_names())
    ready = {name for name in presets if wsol.load_protocol(name).ready_boxes}
    assert len(presets) == 24 and presets - set(run.summary["protocol"]) == (ready if source == "run" else set())
    assert source == "boxed" or all(any(name in note for note in run.environment["notes"]) for name in ready)
    per_image = dict(iter(run.per_image.groupby(["method", "protocol"])))
    overall = run.metrics.query("low == low and iou_threshold != iou_threshold and `class` == ''")
    intervals = dict(iter(overall.groupby(["method", "protocol"])))
    for row in run.summary.to_dict("records"):
        rows = per_image[row["method"], row["protocol"]]
        by_class = Protocol.from_mapping(run.config["protocols"][row["protocol"]]).average == "classes"
        for metric in [*OUTCOMES, "mean_iou"]:
            values = rows["iou" if metric == "mean_iou" else metric].astype(float)
            mean = values.groupby(rows["label"]).mean().mean() if by_class else values.mean()
            assert row[metric] == pytest.approx(100 * mean, nan_ok=True), (row["protocol"], metric)
        for interval in intervals[row["method"], row["protocol"]].to_dict("records"):
            assert interval["value"] == pytest.approx(row[interval["metric"]], abs=1e-6)


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
    pairs = compare([run.run_dir], metrics=["top1_loc", "gt_known_loc"], resamples=100).pairs
    pairs = pairs.set_index(["protocol", "metric"])
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


def test_strata_add_up_to_the_whole(run) -> None:
    shares = [100 * np.prod(sample.boxes[0][2:] - sample.boxes[0][:2] + 1) / 96**2 for sample in Shapes(length=COUNT)]
    for name in ("exact", "classes"):
        rows = run.metrics.query("method == 'random' and protocol == @name")
        strata = rows[rows["metric"].str.startswith("gt_known_loc_")].set_index("metric")["value"]
        images = run.per_image.query("method == 'random' and protocol == @name")
        right, labels = images["gt_known_loc"].to_numpy(float), images["label"].to_numpy()
        bins = {k: np.array([k**2 <= share < (k + 1) ** 2 for share in shares]) for k in range(10)}
        expected = {f"size_{k**2}_{(k + 1) ** 2}": members for k, members in bins.items() if members.any()}
        expected["instances_1"] = np.full(COUNT, True)
        assert [f"gt_known_loc_{name}" for name in expected] == strata.index.tolist()
        for stratum, members in expected.items():
            of_class = [right[members & (labels == label)].mean() for label in np.unique(labels[members])]
            mean = np.mean(of_class) if name == "classes" else right[members].mean()
            assert strata[f"gt_known_loc_{stratum}"] == pytest.approx(100 * mean)


def test_classes_share_the_threshold_that_all_share(run) -> None:
    metrics = run.metrics.query("method == 'random' and metric == 'max_box_acc' and `class` != ''")
    for name, shared in (("sum", True), ("each", False)):
        rows = metrics[metrics["protocol"] == name]
        assert len(rows) and rows["threshold"].notna().eq(shared).all()
        if shared:
            by_class = run.per_image.query("method == 'random' and protocol == @name").groupby("class")["gt_known_loc"]
            at_50 = rows[rows["iou_threshold"] == 0.5].set_index("class")["value"]
            assert at_50.to_dict() == pytest.approx((100 * by_class.mean().astype(float)).to_dict())
