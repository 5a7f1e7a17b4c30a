"""The main job from Python: the same tables every time, without the network too, and what bad input gets."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import wsol
from wsol.datasets import Shapes
from wsol.datasets.sample import Dataset, Sample
from wsol.engine import Provenance
from wsol.errors import UserError
from wsol.models import Classifier, gapnet
from wsol.tables import METRIC_COLUMNS, SUMMARY_COLUMNS

PROTOCOLS = ("choe2020", "choe2020_v2", "zhou2016", "exact")
METHODS = ("cam", "gradcam", "center", "random", "full")
TABLES = ("summary.csv", "summary.md", "summary.tex", "metrics.csv", "sensitivity.csv", "per_image.parquet")
TABLES += ("curves.parquet", "sweeps.parquet")


def make_classifier(seed: int = 0) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = gapnet(10)
    data = Shapes(length=1)
    return Classifier(
        name="gap", module=module, layer="features", input_size=(96, 96), classes=data.classes, class_ids=data.ids
    )


def evaluate(
    dataset: Dataset, methods: object = ("cam",), protocols: object = ("choe2020",), **options: object
) -> wsol.Results:
    options = {"progress": False, "report": False, "pictures": 0} | options
    return wsol.evaluate(dataset, make_classifier(), methods, protocols, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> wsol.Results:
    folder = tmp_path_factory.mktemp("runs") / "first"
    return evaluate(Shapes(length=24), METHODS, PROTOCOLS, run_dir=folder, batch_size=7)


def test_columns_and_what_fills_them(run: wsol.Results) -> None:
    summary = run.summary
    assert tuple(summary.columns) == SUMMARY_COLUMNS
    assert tuple(run.metrics.columns) == METRIC_COLUMNS
    assert len(summary) == len(METHODS) * 4
    fixed, any_box = summary["protocol"] == "zhou2016", summary["protocol"] == "choe2020_v2"
    assert (summary["threshold_source"] == np.where(fixed, "fixed", "oracle")).all()
    assert summary.loc[fixed, ["max_box_acc", "max_box_acc_v2"]].isna().all(axis=None)
    assert summary.loc[any_box, "max_box_acc"].isna().all()
    assert summary.loc[~fixed & ~any_box, "max_box_acc_v2"].isna().all()
    plain = summary[~fixed & ~any_box]
    assert (plain["max_box_acc"] == plain["max_box_acc_50"]).all()
    v2 = summary[any_box]
    columns = ["max_box_acc_30", "max_box_acc_50", "max_box_acc_70"]
    assert np.allclose(v2["max_box_acc_v2"], v2[columns].mean(axis=1))
    # The oracle's τ maximizes GT-known at IoU 0.5, so at that τ it is MaxBoxAcc.
    assert np.allclose(summary.loc[~fixed, "gt_known_loc"], summary.loc[~fixed, "max_box_acc_50"])
    assert summary.loc[fixed, "threshold"].eq(0.2).all()
    assert (summary["layer"] == np.where(summary["method"].isin(["center", "full"]), "", "features")).all()


def test_tables_agree_with_each_other(run: wsol.Results) -> None:
    keys = ["method", "protocol"]
    means = run.per_image.groupby(keys, sort=False)[["gt_known_loc", "top1_loc", "top5_loc", "iou"]].mean() * 100
    summary = run.summary.set_index(keys)
    for column, own in (("gt_known_loc",) * 2, ("top1_loc",) * 2, ("top5_loc",) * 2, ("iou", "mean_iou")):
        assert np.allclose(means[column], summary[own], atol=1e-8), column
    at_tau = run.curves[run.curves["iou_threshold"] == 0.5].set_index([*keys, "threshold"])
    for key, row in summary.iterrows():
        curve = at_tau.loc[(*key, row["threshold"])]
        assert curve["gt_known_loc"] == pytest.approx(row["gt_known_loc"])
        assert curve["top1_loc"] == pytest.approx(row["top1_loc"])
        assert curve["mean_iou"] == pytest.approx(row["mean_iou"])
    kinds = run.metrics[run.metrics["metric"].str.startswith("error_") & (run.metrics["class"] == "")]
    assert np.allclose(kinds.groupby(keys)["value"].sum(), 100)
    right = kinds[kinds["metric"] == "error_right"].set_index(keys)["value"]
    assert np.allclose(right, summary.loc[right.index, "top1_loc"])


def test_curves_can_be_rebuilt_from_the_coded_sweeps(run: wsol.Results) -> None:
    taus = wsol.load_protocol("choe2020").grid()
    own = run.sweeps[(run.sweeps["method"] == "gradcam") & (run.sweeps["protocol"] == "choe2020")]
    ious = []
    for _, rows in own.groupby("sample_id"):
        ious.append(rows["iou"].to_numpy()[np.searchsorted(rows["threshold"], taus, side="right") - 1])
    assert len(ious) == 24
    for delta in (0.3, 0.5, 0.7):
        curve = run.curves.query("method == 'gradcam' and protocol == 'choe2020' and iou_threshold == @delta")
        assert np.allclose(100 * (np.array(ious) >= delta).mean(0), curve["gt_known_loc"])


@pytest.mark.long
def test_the_same_twice_and_without_the_network(tmp_path: Path) -> None:
    data, options = Shapes(length=24), {"pictures": 3, "batch_size": 7}
    first, again, scored = (tmp_path / name for name in ("first", "again", "scored"))
    evaluate(data, METHODS, PROTOCOLS, run_dir=first, **options)
    evaluate(data, METHODS, PROTOCOLS, run_dir=again, workers=1, **options)
    wsol.score(data, first / "heatmaps", PROTOCOLS, run_dir=scored, progress=False, report=False, pictures=0)
    pictures = sorted(path.relative_to(first) for path in (first / "figures").glob("example_*"))
    assert [path.stem for path in pictures] == ["example_00", "example_01", "example_02"]
    for name in (*TABLES, "samples.parquet", *pictures, "heatmaps/cam.npy"):
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    for name in TABLES:
        assert (first / name).read_bytes() == (scored / name).read_bytes(), name


def test_threshold_from_another_split(run: wsol.Results, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match=r"chosen on shapes \(test\), whose role is test.*threshold_from_test=true"):
        evaluate(Shapes(length=2), threshold_from=run.run_dir)
    options = {"threshold_from": run.run_dir, "threshold_from_test": True}
    found = evaluate(Shapes(split="val", length=12), ("cam", "full"), ("choe2020", "zhou2016"), **options)
    swept = found.summary[found.summary["protocol"] == "choe2020"]
    theirs = run.summary.query("protocol == 'choe2020' and method in ['cam', 'full']")
    assert swept["threshold"].tolist() == theirs["threshold"].tolist()
    assert (swept["threshold_source"] == f"{run.run_dir} (chosen on test)").all()
    assert found.summary.query("protocol == 'zhou2016'")["threshold_source"].eq("fixed").all()
    assert not caplog.records
    again = evaluate(Shapes(length=4), **options)
    assert (again.summary["threshold_source"] == f"{run.run_dir} (chosen on this very split)").all()


class Named(Shapes):
    """Shapes whose split has another name, and no role."""

    def __init__(self, split: str) -> None:
        super().__init__(length=4)
        self.split, self.role = split, ""


def test_thresholds_from_what_is_tested_on_are_refused_without_roles_too(tmp_path: Path) -> None:
    heatmaps = {split: tmp_path / split for split in ("test", "mine")}
    for split, folder in heatmaps.items():
        evaluate(Named(split), run_dir=folder)
    options = {"protocols": ["choe2020"], "progress": False}
    for chosen, scored, why in (("test", "mine", "whose role is test"), ("mine", "mine", "which is scored now")):
        with pytest.raises(UserError, match=why):
            wsol.score(Named(scored), heatmaps[scored] / "heatmaps", threshold_from=heatmaps[chosen], **options)
    honest = wsol.score(Named("test"), heatmaps["test"] / "heatmaps", threshold_from=heatmaps["mine"], **options)
    assert honest.summary["threshold_source"].tolist() == [str(heatmaps["mine"])]


def test_runs_without_a_model_are_no_surprise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"methods": ["center"], "protocols": ["choe2020"], "progress": False}
    wsol.score(Shapes(split="val", length=4), None, run_dir=tmp_path / "run", report=False, pictures=0, **options)
    with caplog.at_level(logging.WARNING, "wsol"):
        wsol.score(Shapes(length=4), None, threshold_from=tmp_path / "run", **options)
    assert "model" not in caplog.text


class Broken(Shapes):
    """Shapes whose third picture can't be read."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return dataclasses.replace(sample, image=Path("/nowhere/2.jpg")) if index == 2 else sample


def test_an_unreadable_image_stops_or_counts_as_a_miss(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/nowhere/2.jpg.*on_error=skip"):
        evaluate(Broken(length=6), ["full"], run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "heatmaps").exists()
    found = evaluate(Broken(length=6), ["cam", "full"], on_error="skip", run_dir=tmp_path / "run")
    assert found.summary["n_samples"].tolist() == [6, 6]
    lost = found.per_image[found.per_image["sample_id"] == "test/00002"]
    assert lost["iou"].tolist() == [0, 0]
    assert lost["x0"].isna().all()
    assert found.metrics.query("metric == 'missing_heatmaps'")["value"].tolist() == [1, 1]
    again = wsol.score(Broken(length=6), tmp_path / "run" / "heatmaps", ["choe2020"], progress=False)
    pd.testing.assert_frame_equal(again.summary, found.summary)


def test_other_knobs_than_trained_for_are_said(caplog: pytest.LogCaptureFixture) -> None:
    classifier = make_classifier()
    classifier.knobs = Shapes(length=1).knobs
    with caplog.at_level(logging.WARNING, "wsol"):
        wsol.evaluate(Shapes(length=2, distractors=9), classifier, ["full"], progress=False)
    assert "distractors=9 (trained for 4)" in caplog.text


class Flat(Dataset):
    """Two gray images, with masks only, boxes only, or neither."""

    name, split, classes = "flat", "test", ("a", "b")

    def __init__(self, boxes: object = None, masks: bool = False) -> None:
        self.boxes, self.masks = boxes, masks

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        mask = np.zeros((96, 96), bool)
        mask[10:50, 20:60] = True
        return Sample(
            sample_id=f"{index}", label=index, image=np.full((96, 96, 3), 128, np.uint8),
            boxes=None if self.boxes is None else np.asarray(self.boxes), mask=mask if self.masks else None,
        )  # fmt: skip


def _flat(
    data: type[Dataset] = Flat, methods: tuple[str, ...] = ("cam", "center"), **annotated: object
) -> wsol.Results:
    classifier = Classifier(name="gap", module=gapnet(2), layer="features", input_size=(96, 96), classes=("a", "b"))
    return wsol.evaluate(data(**annotated), classifier, methods, ["choe2020"], on_error="skip", progress=False)


def test_masks_alone_fill_pxap_alone() -> None:
    summary = _flat(masks=True).summary
    assert summary["pxap"].notna().all()
    assert summary["top1_cls"].notna().all()
    boxed = ["threshold", "top1_loc", "gt_known_loc", "mean_iou", "max_box_acc_50", "max_box_acc"]
    assert summary[boxed].isna().all(axis=None)
    assert summary["threshold_source"].eq("").all()


def test_a_box_outside_names_its_sample() -> None:
    with pytest.raises(UserError, match=r"sample 0, method cam.*inside 96 x 96"):
        _flat(boxes=[[0, 0, 200, 40]])


def test_unknown_classes_are_never_matched_by_position() -> None:
    arguments = (Shapes(length=2, size=224), gapnet(10), ["full"], ["choe2020"])
    with pytest.raises(UserError, match="10 logits.*position"):
        wsol.evaluate(*arguments)
    found = wsol.evaluate(*arguments, class_map="position", progress=False)
    assert found.environment["source"]["class_map"] == "position"


@pytest.mark.parametrize(
    ("dataset", "culprit"),
    [
        (Shapes(split="val", length=24), "no heatmap for val/00000"),
        (Shapes(length=20), "heatmaps of unknown samples: test/00020"),
        (Shapes(length=24, classes=9), "test/00000 is of class"),
    ],
)
def test_scoring_the_wrong_dataset_is_refused(run: wsol.Results, dataset: Dataset, culprit: str) -> None:
    with pytest.raises(UserError, match=culprit):
        wsol.score(dataset, run.run_dir / "heatmaps", progress=False)


def test_options_are_keywords_or_an_object_and_nothing_else() -> None:
    arguments = (Shapes(length=6), make_classifier(), ["cam", "random"], ["choe2020"])
    keywords = wsol.evaluate(*arguments, limit=3, flip=True, seed=4, progress=False)
    options = wsol.Options(limit=3, flip=True, seed=9, progress=False)
    pd.testing.assert_frame_equal(wsol.evaluate(*arguments, options=options, seed=4).sweeps, keywords.sweeps)
    assert options.seed == 9
    for mistake in ({"batchsize": 3}, {"heatmaps_kind": "raw"}, {"limit": "3"}, {"flip": 1}, {"on_error": "maybe"}):
        with pytest.raises(UserError, match=next(iter(mistake))):
            wsol.evaluate(*arguments, **mistake)
    for mistake in ({"batch_size": 3}, {"model": None}, {"seed": 0.5}):
        with pytest.raises(UserError, match=next(iter(mistake))):
            wsol.score(Shapes(length=6), methods=["full"], **mistake)
    with pytest.raises(UserError, match="options"):
        wsol.evaluate(*arguments, options=wsol.ScoreOptions())


def test_every_keyword_of_before_still_works(run: wsol.Results, tmp_path: Path) -> None:
    evaluated = wsol.evaluate(
        Shapes(split="val", length=3), make_classifier(), ["cam"], ["choe2020"], view="crop", flip=False, batch_size=2,
        workers=0, device="cpu", seed=1, score="prob", chunk=4, on_error="stop", predict_over="present",
        class_map="name", threshold_from=run.run_dir, threshold_from_test=True, pictures=0, report=False, limit=2,
        run_dir=tmp_path / "run", config={"a": 1}, progress=False,
    )  # fmt: skip
    assert evaluated.config == {"a": 1}
    assert evaluated.environment["source"] == {
        "dataset": "shapes", "split": "val", "model": "gap", "role": "train-fullsup", "weights": "as passed",
        "view": "crop", "class_map": "name", "predict_over": "present", "competing": 10,
    }  # fmt: skip
    scored = wsol.score(
        Shapes(split="val", length=3), tmp_path / "run" / "heatmaps", ["choe2020"], methods=["full"],
        heatmaps_kind=None, heatmaps_name=None, predictions=tmp_path / "run" / "samples.parquet",
        predictions_classes=None, on_error="stop", seed=0, threshold_from=run.run_dir, threshold_from_test=True,
        workers=1, limit=2, pictures=0, report=False, run_dir=None, config=None, progress=False,
    )  # fmt: skip
    columns = ["threshold", "top1_cls", "gt_known_loc"]
    assert scored.summary.loc[0, columns].tolist() == evaluated.summary.loc[0, columns].tolist()
    assert list(scored.config["protocols"]) == ["choe2020"]


def test_provenance_is_read_back_from_any_run() -> None:
    source = {"dataset": "a", "split": "val", "view": "crop", "competing": 7}
    assert Provenance.of(source | {"something": "of a later version"}).to_dict() == source
    assert Provenance.of({}) == Provenance()
    with pytest.raises(UserError, match="competing"):
        Provenance.of(source | {"competing": "many"})


def test_limit_takes_the_first(run: wsol.Results) -> None:
    evaluated = evaluate(Shapes(length=24), limit=5)
    pd.testing.assert_frame_equal(evaluated.samples, run.samples.iloc[:5])
    scored = wsol.score(Shapes(length=24), run.run_dir / "heatmaps", ["choe2020"], limit=5, progress=False)
    assert scored.summary["n_samples"].eq(5).all()


def test_an_iou_list_without_one_half_still_has_a_summary() -> None:
    rules = dataclasses.replace(wsol.load_protocol("choe2020_v2"), name="two", iou_thresholds=(0.3, 0.7))
    found = evaluate(Shapes(length=6), ["cam"], {"two": rules})
    row = found.summary.iloc[0]
    assert np.isnan(row["max_box_acc_50"])
    assert row["max_box_acc_v2"] == pytest.approx((row["max_box_acc_30"] + row["max_box_acc_70"]) / 2)
    assert sorted(found.curves["iou_threshold"].unique()) == [0.3, 0.7]


def test_top5_among_few_classes_stays_empty_everywhere() -> None:
    found = _flat(boxes=[[20, 10, 59, 49]])
    assert found.summary[["top5_cls", "top5_loc", "pxap"]].isna().all(axis=None)
    assert found.summary["top1_loc"].notna().all()
    assert found.per_image["top5_loc"].isna().all()
    assert found.curves["top5_loc"].isna().all()
    assert not found.metrics["metric"].str.startswith("top5").any()
    assert found.metrics.query("metric == 'top1_cls' and `class` != ''")["class"].tolist() == ["a", "b"] * 2


class Gone(Flat):
    """The first image can't be read."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return dataclasses.replace(sample, image=Path("/nowhere.jpg")) if index == 0 else sample


def test_a_skipped_image_is_a_miss_for_masks_too() -> None:
    found, whole = (_flat(data, ("center",), masks=True) for data in (Gone, Flat))
    assert found.summary["pxap"].iloc[0] < whole.summary["pxap"].iloc[0]
    assert found.summary[["threshold", "gt_known_loc", "max_box_acc_50"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("protocol", "options", "culprit"),
    [
        (wsol.Protocol(name="mine", thresholds="levels", levels=None), {}, "no common grid"),
        (wsol.Protocol(name="mine"), {"threshold_from": "a run"}, "no threshold for method cam under protocol mine"),
        (wsol.Protocol(name="mine"), {"threshold_from": "/nowhere"}, "/nowhere: no summary.csv"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_network_runs(
    run: wsol.Results, monkeypatch: pytest.MonkeyPatch, protocol: wsol.Protocol, options: dict, culprit: str
) -> None:
    monkeypatch.setattr("wsol.heatmaps.collect.Recorder.record", lambda *_, **__: pytest.fail("it ran"))
    if options.get("threshold_from") == "a run":
        options = {"threshold_from": run.run_dir, "threshold_from_test": True}
    with pytest.raises(UserError, match=culprit):
        evaluate(Shapes(length=2), ["cam"], {"mine": protocol}, **options)
    with pytest.raises(UserError, match="neither boxes nor masks"):
        _flat()


def test_one_class_one_threshold_one_image() -> None:
    class One(Flat):
        classes = ("a",)

        def __len__(self) -> int:
            return 1

    rules = wsol.Protocol(name="one", iou_thresholds=(0.5,), thresholds=(0.3,))
    classifier = Classifier(name="gap", module=gapnet(1), layer="features", input_size=(96, 96), classes=("a",))
    found = wsol.evaluate(One([[20, 10, 59, 49]], masks=True), classifier, ["center"], {"one": rules}, progress=False)
    assert found.summary["threshold"].tolist() == [0.3]
    assert len(found.curves) == 1
    assert set(found.metrics.query("`class` == 'a'")["metric"]) >= {"max_box_acc", "pxap", "pointing_game", "top1_cls"}


def test_every_level_is_at_least_as_good_as_any_grid(run: wsol.Results) -> None:
    rules = {"levels": wsol.Protocol(name="levels", thresholds="levels")}
    found = wsol.score(Shapes(length=24), run.run_dir / "heatmaps", rules, progress=False).summary
    theirs = run.summary[run.summary["protocol"] == "choe2020"]
    # A thousand steps visit all of 255 levels, so the oracles are the same.
    for column in ("max_box_acc_30", "max_box_acc_50", "max_box_acc_70"):
        assert np.array_equal(found[column], theirs[column]), column


def test_a_plan_does_one_batch_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    monkeypatch.setattr(wsol.models.Classifier, "prepare", _counting(wsol.models.Classifier.prepare, shown))
    options = {"run_dir": tmp_path / "run", "batch_size": 4, "shard_size": 6, "plan": True}
    results = evaluate(Shapes(length=19), ("gradcam", "center"), **options)
    plan = results.environment["plan"]
    assert [plan[name] for name in ("images", "samples", "shards", "passes")] == [19, 19, 3, 5]
    assert 0 < plan["seconds"][0] <= plan["seconds"][1] and plan["bytes"] > 19 * 2 * 100
    assert set(shown) == {4} and len(shown) <= 2 and results.summary.empty and not any(tmp_path.iterdir())
    scored = wsol.score(Shapes(length=130), methods=["center"], progress=False, plan=True).environment["plan"]
    assert (scored["passes"], scored["shards"]) == (3, 1)


def _counting(function, counts):
    def call(self, pixels, *more):
        counts.append(len(pixels))
        return function(self, pixels, *more)

    return call
