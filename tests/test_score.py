"""`wsol score`: heatmaps made by anyone, predictions of anyone, baselines without images, and what splits are for."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

import wsol
from wsol import cli
from wsol.datasets import Shapes
from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError
from wsol.heatmaps.store import center
from wsol.localization.kernels.pixels import resize

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path("/work/shared/data/wsolevaluation")
DELTAS = (0.3, 0.5, 0.7)


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "cub_val_100.npz")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The annotations of the hundred images in wsolevaluation's layout; no image is there."""
    place = tmp_path_factory.mktemp("data")
    folder = place / "metadata" / "CUB" / "val"
    folder.mkdir(parents=True)
    boxes = pd.read_csv(GOLDEN / "cub_val_100.csv")
    boxes["label"] = boxes["image_id"].str[:3].astype(int) - 1
    images = boxes.drop_duplicates("image_id")
    lines = {
        "image_ids": images[["image_id"]],
        "class_labels": images[["image_id", "label"]],
        "image_sizes": images[["image_id", "width", "height"]],
        "localization": boxes[["image_id", "x0", "y0", "x1", "y1"]],
    }
    for name, table in lines.items():
        table.to_csv(folder / f"{name}.txt", header=False, index=False)
    return place


@pytest.fixture(scope="module")
def maps(tmp_path_factory, golden) -> Path:
    """A folder of the hundred maps, every second one named without its image's suffix."""
    place = tmp_path_factory.mktemp("theirs")
    for number, (name, levels) in enumerate(zip(golden["image_ids"], golden["heatmaps_uint8"], strict=True)):
        path = place / (f"{name}.npy" if number % 2 else f"{Path(name).with_suffix('')}.npy")
        path.parent.mkdir(exist_ok=True)
        np.save(path, levels / 255.0)
    return place


class Few(Dataset):
    """Six images of two sizes that are not there, with a box each."""

    name, split, classes, class_ids = "few", "val", ("a", "b", "c", "d", "e", "f"), tuple("ABCDEF")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Sample:
        size = ((60, 40), (50, 50))[index % 2]
        return Sample(
            sample_id=f"s/{index}.jpg", label=index, image=Path("/nowhere"), boxes=[[5 + index, 4, 30, 35]],
            image_size=size,
        )  # fmt: skip


def few_maps(place: Path, scale: float = 1.0, shape: tuple[int, int] = (14, 14)) -> Path:
    (place / "s").mkdir(parents=True)
    for index in range(6):
        np.save(place / "s" / f"{index}.npy", scale * np.random.default_rng(index).random(shape))
    return place


def scored(dataset: Dataset, *arguments: object, **options: object) -> wsol.Results:
    return wsol.score(dataset, *arguments, report=False, progress=False, **options)  # type: ignore[arg-type]


def said(capsys, *words: str) -> tuple[int, str, str]:
    code = cli.main([*words, "report=false", "progress=false"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def assert_reference(summary: pd.DataFrame, curves: pd.DataFrame, golden, images: int = 100) -> None:
    """Compare every count at every threshold with the reference evaluator's."""
    for protocol, kind, total in (("choe2020", "largest", "max_box_acc"), ("choe2020_v2", "any", "max_box_acc_v2")):
        row = summary.set_index("protocol").loc[protocol]
        for number, delta in enumerate(DELTAS):
            assert row[f"max_box_acc_{round(100 * delta)}"] == pytest.approx(golden[total][number] * 100 / images)
            curve = curves.query("protocol == @protocol and iou_threshold == @delta")["gt_known_loc"]
            counts = curve.to_numpy() * images / 100
            assert np.allclose(counts, golden[f"curve_{kind}"][number], rtol=0, atol=1e-9), (protocol, delta)
        mean = golden[total][1] if kind == "largest" else golden[total].mean()
        assert row[total] == pytest.approx(mean * 100 / images)


def test_sweeps_take_few_bytes(root: Path, maps: Path, tmp_path: Path) -> None:
    data, protocols = wsol.datasets.WSOLEvaluation(root, "CUB", "val"), ["choe2020", "choe2020_v2"]
    wsol.score(data, heatmaps=maps, protocols=protocols, run_dir=tmp_path, report=False, progress=False)
    table = parquet.read_table(tmp_path / "sweeps.parquet")
    assert table.num_rows > 10_000
    assert (tmp_path / "sweeps.parquet").stat().st_size / 2 <= 300 * 100  # two sets of rules, a hundred samples


def test_the_references_numbers_through_the_command_line(capsys, tmp_path, root, maps, golden) -> None:
    code, out, err = said(
        capsys, "score", f"heatmaps={maps}", "dataset=wsolevaluation", "dataset.name=CUB", "dataset.split=val",
        f"dataset.root={root}", "heatmaps_name=theirs", f"run_dir={tmp_path / 'run'}",
        "protocol=[choe2020,choe2020_v2]",
    )  # fmt: skip
    assert code == 0, err
    assert "CUB (val, role train-fullsup, 100 samples); percent" in out
    assert f"Heatmaps: {maps} (score maps as they are); predictions: none, so no Top-k." in out
    assert "resized" not in err
    tables = {name: pd.read_parquet(tmp_path / "run" / f"{name}.parquet") for name in ("curves", "samples")}
    summary = pd.read_csv(tmp_path / "run" / "summary.csv")
    assert_reference(summary, tables["curves"], golden)
    assert summary["method"].eq("theirs").all()
    assert summary["threshold_source"].eq("oracle").all()
    assert summary[["top1_cls", "top5_cls", "top1_loc", "top5_loc", "pxap"]].isna().all(axis=None)
    assert tables["samples"]["rank"].eq(-1).all()
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["role"] == environment["source"]["role"] == "train-fullsup"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the field's annotations are not here")
def test_the_references_counts_on_the_real_annotations(tmp_path, golden) -> None:
    named = zip(golden["image_ids"], golden["heatmaps_uint8"], strict=True)
    np.savez(tmp_path / "theirs.npz", **{str(name): (levels / 255.0).astype(np.float32) for name, levels in named})
    from wsol.datasets.wsolevaluation import WSOLEvaluation

    dataset = WSOLEvaluation(SHARED, "CUB", "val")
    with pytest.raises(UserError, match="no file, 900: 001.Black.* 900 of 1000 samples have no heatmap"):
        scored(dataset, tmp_path / "theirs.npz")
    found = scored(dataset, tmp_path / "theirs.npz", ["choe2020", "choe2020_v2"], on_error="skip")
    assert_reference(found.summary, found.curves, golden, images=1000)
    assert found.metrics.query("metric == 'missing_heatmaps'")["value"].tolist() == [900]
    assert "900 of 1000 samples have no heatmap that can be scored and count as misses" in found.environment["notes"][0]


def test_score_maps_are_never_normalized_and_resizing_is_said(tmp_path, caplog) -> None:
    place = few_maps(tmp_path / "m", scale=0.6)
    np.save(place / "s" / "3.npy", 0.1 + 0.5 * np.random.default_rng(9).random((20, 30)))
    rules = wsol.load_protocol("exact")
    with caplog.at_level(logging.WARNING, "wsol"):
        found = scored(Few(), place, ("choe2020", "exact"))
    note = "score maps are resized, not normalized, for choe2020, exact"
    assert [record.getMessage() for record in caplog.records] == [note] == found.environment["notes"]
    for index, sample in enumerate(Few()):
        values = np.load(place / "s" / f"{index}.npy")
        sweep = wsol.sweep_thresholds(resize(values[None], sample.size(), "bilinear")[0], sample.boxes, rules)
        own = found.sweeps.query("protocol == 'exact' and sample_id == @sample.sample_id")
        assert np.array_equal(own["iou"], sweep.runs("largest").iou)


def test_what_interpolation_adds_is_clipped(tmp_path) -> None:
    steps = np.zeros((2, 6, 6))
    steps[0, :, 3:] = steps[1, 2:4, 2:4] = 1
    (tmp_path / "s").mkdir()
    for index in range(6):
        np.save(tmp_path / "s" / f"{index}.jpg.npy", steps[index % 2])
    found = scored(Few(), tmp_path, ["choe2020"])  # a score map beyond 1 would be refused
    assert found.summary["max_box_acc_30"].notna().all()


def test_raw_maps_are_normalized_by_the_protocol(tmp_path) -> None:
    plain = few_maps(tmp_path / "plain")
    for index in range(6):
        path = plain / "s" / f"{index}.npy"
        values = np.load(path)
        np.save(path, (values - values.min()) / (values.max() - values.min()))
        (tmp_path / "raw" / "s").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "raw" / "s" / f"{index}.npy", 8 * np.load(path) - 3)
    rules = {"coarse": wsol.Protocol(name="coarse", size=(14, 14), levels=None)}
    expected = scored(Few(), plain, rules, heatmaps_name="m")
    found = scored(Few(), tmp_path / "raw", rules, heatmaps_kind="raw", heatmaps_name="m")
    assert np.allclose(found.sweeps["iou"], expected.sweeps["iou"])
    assert found.environment["notes"] == []
    with pytest.raises(UserError, match="6: s/0.jpg .*heatmaps_kind=raw"):
        scored(Few(), tmp_path / "raw", rules)


def test_faulty_maps_count_as_misses_only_when_asked(tmp_path) -> None:
    place = few_maps(tmp_path / "m")
    np.save(place / "s" / "1.npy", np.full((4, 4), np.nan))
    (place / "s" / "4.npy").unlink()
    with pytest.raises(UserError, match="1: s/4.jpg .*1: s/1.jpg .* 2 of 6"):
        scored(Few(), place, ["choe2020"])
    found = scored(Few(), place, ["choe2020"], on_error="skip", methods=["full"])
    lost = found.per_image[found.per_image["sample_id"].isin(["s/1.jpg", "s/4.jpg"])].set_index("method")
    assert lost.loc["m", "iou"].eq(0).all() and lost.loc["m", "x0"].isna().all()
    assert lost.loc["full", "iou"].gt(0).all()
    counted = found.metrics.query("metric == 'missing_heatmaps'").set_index("method")["value"]
    assert counted.to_dict() == {"m": 2, "full": 0}
    assert found.summary["n_samples"].eq(6).all()


def test_pictures_of_heatmaps_and_of_what_is_missing(tmp_path) -> None:
    dataset, place = Shapes(length=3), tmp_path / "m" / "test"
    place.mkdir(parents=True)
    for index in range(2):
        np.save(place / f"{index:05d}.npy", np.eye(96))
    found = scored(
        dataset, tmp_path / "m", ["choe2020"], on_error="skip", pictures=3, run_dir=tmp_path / "run",
        predictions=predictions_of(dataset, tmp_path / "p.csv"),
    )  # fmt: skip
    assert len(list((tmp_path / "run" / "figures").glob("example_*.png"))) == 3
    assert found.metrics.query("metric == 'missing_heatmaps'")["value"].tolist() == [1]


def predictions_of(dataset: Dataset, path: Path) -> Path:
    """Write a top 5 whose first class is the true one for every second sample, else the second class is."""
    rows = ["sample_id,top1,top2,top3,top4,top5"]
    for index, sample in enumerate(dataset):
        others = [name for name in dataset.ids if name != dataset.ids[sample.label]]
        top = others[:5]
        top[index % 2] = dataset.ids[sample.label]
        rows.append(",".join([sample.sample_id, *top]))
    path.write_text("\n".join(rows))
    return path


def test_predictions_fill_the_top_k_columns(tmp_path) -> None:
    place, file = few_maps(tmp_path / "m"), predictions_of(Few(), tmp_path / "p.csv")
    assert scored(Few(), place, ["choe2020"], limit=2).summary["n_samples"].tolist() == [2]
    without = scored(Few(), place, ["choe2020"])
    found = scored(Few(), place, ["choe2020"], predictions=file)
    row, plain = found.summary.iloc[0], without.summary.iloc[0]
    top = ["top1_cls", "top5_cls", "top1_loc", "top5_loc"]
    assert plain[top].isna().all()
    assert row[["top1_cls", "top5_cls"]].tolist() == [50, 100]
    assert row["top5_loc"] == row["gt_known_loc"] == plain["gt_known_loc"]
    right = found.per_image.set_index("sample_id")["gt_known_loc"].to_numpy(bool)
    assert row["top1_loc"] == pytest.approx(100 * (right & (np.arange(6) % 2 == 0)).mean())
    assert found.samples["rank"].tolist() == [0, 1] * 3
    assert found.environment["source"]["predictions"] == str(file)
    pd.testing.assert_frame_equal(found.curves[["gt_known_loc"]], without.curves[["gt_known_loc"]])


def test_a_prediction_of_two_classes_leaves_top5_empty(tmp_path) -> None:
    table = pd.read_csv(predictions_of(Few(), tmp_path / "p.csv"))[["sample_id", "top1", "top2"]]
    table.iloc[1:].to_csv(tmp_path / "two.csv", index=False)
    found = scored(Few(), methods=["full"], predictions=tmp_path / "two.csv", on_error="skip")
    assert found.summary["top1_cls"].tolist() == pytest.approx([100 * 2 / 6])
    assert found.summary[["top5_cls", "top5_loc"]].isna().all(axis=None)
    assert "no row for s/0.jpg (1 of 6 samples); they count as wrong" in found.environment["notes"][0]


@pytest.mark.parametrize("method", ["center", "full"])
def test_baselines_are_what_their_maps_give(tmp_path, method: str) -> None:
    """The sweep of a baseline is made once for all images; as files of its maps it is made for each."""
    (tmp_path / "s").mkdir()
    for index in range(6):
        np.save(tmp_path / "s" / f"{index}.npy", center((224, 224)) if method == "center" else np.ones((224, 224)))
    kind = "raw" if method == "center" else "scoremap"
    expected = scored(Few(), tmp_path, heatmaps_kind=kind, heatmaps_name=method)
    found = scored(Few(), methods=[method])
    for name in ("summary", "per_image", "curves", "sweeps"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))


def test_baselines_through_the_command_line_need_no_image(capsys, tmp_path, root) -> None:
    data = ["dataset=wsolevaluation", "dataset.name=CUB", "dataset.split=val", f"dataset.root={root}"]
    words = ["score", "method=[center,random]", *data, "protocol=[choe2020]", f"run_dir={tmp_path / 'run'}"]
    code, out, err = said(capsys, *words)
    assert code == 0, err
    assert "Heatmaps: none; predictions: none, so no Top-k." in out
    summary = pd.read_csv(tmp_path / "run" / "summary.csv").set_index("method")
    assert list(summary.index) == ["center", "random"]
    assert summary.loc["center", "max_box_acc_50"] == 46
    assert not (tmp_path / "run" / "heatmaps").exists()


def test_random_depends_on_the_seed_and_nothing_else() -> None:
    options = {"methods": ["random"], "protocols": ["choe2020"]}
    found = [scored(Few(), seed=seed, workers=workers, **options) for seed, workers in ((0, 1), (0, 3), (1, 1))]
    pd.testing.assert_frame_equal(found[0].sweeps, found[1].sweeps)
    assert not found[0].sweeps.equals(found[2].sweeps)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "heatmaps, boxes or masks .* method=center, full or random"),
        (["heatmaps=nowhere"], "heatmaps=nowhere"),
        (["method=cam"], "method=cam"),
        (["heatmaps=m", "heatmaps_kind=gray"], "heatmaps_kind=gray: pass scoremap"),
        (["heatmaps=m"], r"no file, 3: test/00000 \(looked for test/00000.npy\)"),
        (["method=full", "predictions=p.csv"], "predictions=p.csv: .*No such file.*pass a .csv or .parquet table"),
        (["method=full", "threshold_from=m"], "threshold_from=m: no summary.csv there"),
    ],
)
def test_wrong_input_gets_one_line_and_leaves_no_folder(capsys, tmp_path, monkeypatch, words, message) -> None:
    monkeypatch.chdir(tmp_path)
    few_maps(tmp_path / "m")
    code, _, err = said(capsys, "score", "dataset.length=3", "run_dir=run", *words)
    assert code == 2 and err.startswith("wsol: error: ") and err.count("\n") == 1
    assert re.search(message, err), err
    assert not (tmp_path / "run").exists()


def test_thresholds_chosen_on_test_are_refused_unless_asked_for_and_then_marked(capsys, tmp_path) -> None:
    test = tmp_path / "test"
    scored(Shapes("test", length=12), methods=["center"], protocols=["choe2020"], run_dir=test)
    assert json.loads((test / "environment.json").read_text())["role"] == "test"
    words = ["score", "method=center", "protocol=[choe2020]", "dataset.split=val", "dataset.length=12"]
    words += [f"threshold_from={test}", f"run_dir={tmp_path / 'run'}"]
    code, _, err = said(capsys, *words)
    assert code == 2
    assert "its thresholds were chosen on shapes (test), whose role is test. Choose them on a split with" in err
    code, out, err = said(capsys, *words, "threshold_from_test=true")
    assert code == 0, err
    note = f"τ from {test} (chosen on test); MBA (MaxBoxAcc) is an oracle by definition."
    assert note in out
    assert note in (tmp_path / "run" / "summary.md").read_text()
    source = pd.read_csv(tmp_path / "run" / "summary.csv")["threshold_source"]
    assert source.tolist() == [f"{test} (chosen on test)"]


@pytest.mark.parametrize("kind", [pytest.param("raw", marks=pytest.mark.long), "scoremap"])  # there more rules agree
def test_protocols_that_share_components_score_as_each_alone(tmp_path: Path, kind: str) -> None:
    (tmp_path / "s").mkdir()
    for index in range(6):
        heatmap = np.random.default_rng(index).normal(size=(5, 7))
        np.save(tmp_path / f"s/{index}.npy", (heatmap - heatmap.min()) / np.ptp(heatmap) if kind != "raw" else heatmap)
    rules = {name: wsol.load_protocol(name).for_dataset("few") for name in wsol.localization.protocol_names()}
    rules = {name: of for name, of in rules.items() if kind != "raw" or of.normalization != "none"}
    shared = Counter(of.component_rules() for of in rules.values())
    rules = {name: of for name, of in rules.items() if shared[of.component_rules()] > 1}
    assert len({of.box_rules() for of in rules.values()}) > len({of.component_rules() for of in rules.values()}) > 1
    together = scored(Few(), tmp_path, list(rules), heatmaps_kind=kind)
    for name in rules:
        alone = scored(Few(), tmp_path, [name], heatmaps_kind=kind)
        for table in ("per_image", "sweeps"):
            rows = getattr(together, table).query("protocol == @name").reset_index(drop=True)
            pd.testing.assert_frame_equal(rows, getattr(alone, table), check_categorical=False)
