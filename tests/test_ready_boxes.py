"""Boxes and masks that somebody gave: scored as they are, under every protocol, against plain formulas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import wsol
from wsol import cli
from wsol.datasets import AnnotatedFolder
from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError
from wsol.report.compare import compare

SIZES = [(60, 40), (50, 50), (101, 37), (64, 64), (33, 90), (200, 150), (80, 80)]
STATED = {"box_corners": "inclusive", "box_units": "pixels"}
COLUMNS = ["sample_id", "x0", "y0", "x1", "y1"]


class Seven(Dataset):
    """Images of many sizes that are not there, some with two boxes."""

    name, split, classes, class_ids = "seven", "test", tuple("abcdefg"), tuple("ABCDEFG")

    def __len__(self) -> int:
        return len(SIZES)

    def __getitem__(self, index: int) -> Sample:
        width, height = SIZES[index]
        boxes = [[2.5, 3, 0.6 * width, 0.7 * height], [0.5 * width, 0.2 * height, width - 1, height - 2]]
        return Sample(
            sample_id=f"s/{index}.jpg", label=index, image=Path("/nowhere"), boxes=boxes[: 1 + index % 2],
            image_size=SIZES[index],
        )  # fmt: skip


def jittered(seed: int = 0, count: int = 1) -> pd.DataFrame:
    """Ground truth that was moved, so many boxes per sample, corners inclusive in pixels."""
    random, rows = np.random.default_rng(seed), []
    for sample in Seven():
        for _ in range(count):
            box = sample.boxes[0] + random.normal(0, 5, 4)
            rows.append((sample.sample_id, *np.minimum(box[:2], box[2:]), *np.maximum(box[:2], box[2:])))
    return pd.DataFrame(rows, columns=COLUMNS)


def scored(tmp_path: Path, table: pd.DataFrame, **options) -> wsol.Results:
    path = tmp_path / "theirs.csv"
    table.to_csv(path, index=False)
    options = {"protocols": ["choe2020", "choe2020_v2", "exact"], "progress": False} | STATED | options
    return wsol.score(Seven(), boxes=path, **options)


def ious(results: wsol.Results, protocol: str, method: str = "theirs") -> list[float]:
    return list(results.per_image.query("protocol == @protocol and method == @method")["iou"])


def choe_iou(box: np.ndarray, gt_boxes: np.ndarray, size: tuple[int, int]) -> float:
    """Both truncated at 224, sides inclusive."""

    def at_224(corners):
        return [int(value * 224 / size[k % 2]) for k, value in enumerate(corners)]

    best, a = 0.0, at_224(box)
    for b in map(at_224, gt_boxes):
        width, height = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + 1 for k in (0, 1))
        both = max(width, 0) * max(height, 0)
        area = sum((c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b))
        best = max(best, both / (area - both))
    return best


def exact_iou(box: np.ndarray, gt_boxes: np.ndarray, size: tuple[int, int]) -> float:
    """Areas of the plane in the image itself, where pixels are one wide."""
    best = 0.0
    for b in gt_boxes:
        width, height = (min(box[k + 2] + 1, b[k + 2] + 1, size[k]) - max(box[k], b[k]) for k in (0, 1))
        both = max(width, 0) * max(height, 0)
        area = sum(np.prod([min(c[k + 2] + 1, size[k]) - c[k] for k in (0, 1)]) for c in (box, b))
        best = max(best, both / (area - both))
    return best


def test_ious_are_the_protocols_own_and_no_threshold_stands_beside(tmp_path) -> None:
    results, boxes = scored(tmp_path, jittered()), jittered()[COLUMNS[1:]].to_numpy()
    for protocol, formula in (("choe2020", choe_iou), ("exact", exact_iou)):
        expected = [formula(box, sample.boxes, size) for box, sample, size in zip(boxes, Seven(), SIZES, strict=True)]
        assert ious(results, protocol) == pytest.approx(expected, abs=1e-12)
    for row in results.summary.to_dict("records"):
        values = np.array(ious(results, row["protocol"]))
        assert np.isnan(row["threshold"]) and row["threshold_source"] == "boxes"
        for delta in (30, 50, 70):
            assert row[f"max_box_acc_{delta}"] == pytest.approx(100 * (values >= delta / 100).mean())
        assert row["gt_known_loc"] == row["max_box_acc_50"]
        assert np.isnan(row["max_box_acc"]) == (row["protocol"] == "choe2020_v2") != np.isnan(row["max_box_acc_v2"])
    assert not len(results.sweeps) and not len(results.curves)
    chosen = results.per_image.query("protocol == 'exact'")[COLUMNS[1:]].to_numpy()
    assert np.allclose(chosen, boxes)


def test_the_highest_score_counts_and_the_best_where_any_may(tmp_path) -> None:
    table = jittered(count=3).assign(score=[0.1, 0.9, 0.3] * len(SIZES))
    results, boxes = scored(tmp_path, table), table[COLUMNS[1:]].to_numpy().reshape(-1, 3, 4)
    for protocol, pick in (("choe2020", lambda three: three[1]), ("choe2020_v2", max)):
        expected = [pick([choe_iou(box, sample.boxes, size) for box in three])
                    for three, sample, size in zip(boxes, Seven(), SIZES, strict=True)]  # fmt: skip
        assert ious(results, protocol) == pytest.approx(expected, abs=1e-12)
    without = scored(tmp_path, table.drop(columns="score"))
    assert ious(without, "choe2020") == ious(scored(tmp_path, table[::3]), "choe2020")
    assert any("several" in note for note in without.environment["notes"])


def test_corners_and_units_are_stated_and_mean_the_same(tmp_path) -> None:
    table = jittered()
    expected = ious(scored(tmp_path, table), "exact")
    exclusive = table.assign(x1=table["x1"] + 1, y1=table["y1"] + 1)
    assert ious(scored(tmp_path, exclusive, box_corners="exclusive"), "exact") == pytest.approx(expected)
    sizes = np.array(SIZES, float)
    relative = exclusive.assign(**{name: exclusive[name] / sizes[:, k % 2] for k, name in enumerate(COLUMNS[1:])})
    stated = {"box_corners": "exclusive", "box_units": "relative"}
    assert ious(scored(tmp_path, relative, **stated), "exact") == pytest.approx(expected)
    faults = ((relative, STATED, "relative"), (table, stated, "line 2"), (table, {"box_corners": None}, "box_corners"))
    for wrong, options, culprit in faults:
        with pytest.raises(UserError, match=culprit):
            scored(tmp_path, wrong, **options)


def test_with_classes_only_boxes_of_the_samples_own_count(tmp_path) -> None:
    own = jittered().assign(score=0.1)
    other = own.assign(x0=0, y0=0, x1=3, y1=3, score=0.9)
    for names in (Seven.class_ids, Seven.classes):
        turned = names[1:] + names[:1]
        table = pd.concat([own.assign(**{"class": names}), other.assign(**{"class": turned})])
        naming = {"predictions_classes": "name"} if names is Seven.classes else {}
        assert ious(scored(tmp_path, table, **naming), "exact") == ious(scored(tmp_path, own), "exact")
    with pytest.raises(UserError, match="cat"):
        scored(tmp_path, own.assign(**{"class": "cat"}))


@pytest.mark.parametrize(("change", "culprit"), [
    (lambda table: table.assign(sample_id=["s/9.jpg", *table["sample_id"][1:]]), "s/9.jpg"),
    (lambda table: table.assign(x0=[np.nan, *table["x0"][1:]]), "line 2"),
    (lambda table: table.assign(x1=[-9, *table["x1"][1:]]), "line 2"),
    (lambda table: table.assign(score=["much", *[1] * 6]), "line 2"),
    (lambda table: table[1:], "s/0.jpg"),
    (lambda table: table.drop(columns="y1"), "y1"),
])  # fmt: skip
def test_wrong_rows_are_named(tmp_path, change, culprit: str) -> None:
    with pytest.raises(UserError, match=culprit):
        scored(tmp_path, change(jittered()))


def test_a_sample_without_a_box_is_a_miss_where_that_is_asked_for(tmp_path) -> None:
    results = scored(tmp_path, jittered()[1:], on_error="skip")
    assert ious(results, "choe2020")[0] == 0 and results.per_image["x0"].isna().sum() == 3
    assert results.metrics.query("metric == 'missing_boxes'")["value"].tolist() == [1]
    part = scored(tmp_path, jittered(), limit=3)
    assert ious(part, "choe2020") == ious(scored(tmp_path, jittered()), "choe2020")[:3]


@pytest.mark.usefixtures("no_figures")
def test_predictions_fill_top_k_and_runs_can_be_reported_and_compared(tmp_path) -> None:
    guesses = pd.DataFrame({"sample_id": jittered()["sample_id"], "top1": list("ABCDEFA")})
    guesses.to_csv(tmp_path / "guesses.csv", index=False)
    options = {"predictions": tmp_path / "guesses.csv", "methods": ["center"], "run_dir": tmp_path / "run"}
    results = scored(tmp_path, jittered(), **options)
    row = results.summary.query("method == 'theirs' and protocol == 'choe2020'").iloc[0]
    right = np.array(ious(results, "choe2020")) >= 0.5
    assert row["top1_loc"] == pytest.approx(100 * (right & (np.arange(7) < 6)).mean())
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    pairs = compare([tmp_path / "run"], metrics=["gt_known_loc"]).pairs.query("protocol == 'choe2020'")
    assert sorted(pairs[["first_value", "second_value"]].iloc[0])[1] == pytest.approx(row["gt_known_loc"])
    with pytest.raises(UserError, match="center"):
        (tmp_path / "center.csv").write_bytes((tmp_path / "theirs.csv").read_bytes())
        wsol.score(Seven(), boxes=tmp_path / "center.csv", methods=["center"], progress=False, **STATED)


def with_masks(tmp_path: Path) -> tuple[Dataset, Path]:
    """Two objects each, the second is smaller; the masks given are the objects, at half the size."""
    samples, folder = [], tmp_path / "masks"
    for number in range(3):
        mask = np.zeros((40, 60), bool)
        mask[4:24, 2 : 20 + number], mask[30:38, 40:50] = True, True
        path = folder / "s" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask[::2, ::2].astype(np.uint8)).save(path)
        samples.append(Sample(
            sample_id=f"s/{number}.jpg", label=0, image=np.zeros((40, 60, 3), np.uint8), mask=mask,
            boxes=[[40, 30, 49, 37], [2, 4, 19 + number, 23]][number == 0 :],
        ))  # fmt: skip
    return Dataset(samples, name="two", split="test", classes=("a",)), folder


def test_masks_are_scored_as_masks(tmp_path) -> None:
    dataset, folder = with_masks(tmp_path)
    results = wsol.score(dataset, masks=folder, protocols=["exact", "choe2020_v2"], progress=False)
    row = results.summary.set_index("protocol").loc["exact"]
    assert (row["method"], row["threshold_source"]) == ("masks", "masks") and np.isnan(row["threshold"])
    assert row["gt_known_loc"] == 100 and row["pxap"] > 95
    first = results.per_image.query("protocol == 'exact'").iloc[0]
    assert first[COLUMNS[1:]].tolist() == [2, 4, 19, 23] and first["iou"] == 1  # the larger of both
    assert min(ious(results, "choe2020_v2", "masks")) > 0.9
    (folder / "s" / "1.png").unlink()
    with pytest.raises(UserError, match="s/1.jpg"):
        wsol.score(dataset, masks=folder, progress=False)
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(folder / "s" / "1.png")
    with pytest.raises(UserError, match="s/1.jpg"):
        wsol.score(dataset, masks=folder, progress=False)


@pytest.mark.parametrize("name", ["zhang2020_psol", "xu2022_cream"])
def test_regressed_boxes_have_the_ious_that_their_papers_code_gave(tmp_path, name: str) -> None:
    entries = json.loads((Path(__file__).parent / "golden" / "rules.json").read_text())[name]
    samples, rows = [], []
    for number, entry in enumerate(entries):
        x, y, width, height = (224 * share for share in entry["predicted_xywh_in_unit_view"])  # of 256, the middle
        view = np.array([x, y, x + width, y + height]) + 16
        rows.append((str(number), *(view / 256 * np.tile(entry["image_size"], 2))))
        box, size = entry.get("gt_xml") or entry["gt_original"], tuple(entry["image_size"])
        samples.append(Sample(sample_id=str(number), label=0, image=Path("/nowhere"), boxes=[box], image_size=size))
    dataset = Dataset(samples, name="ilsvrc" if name == "zhang2020_psol" else "cub", split="test", classes=("a",))
    pd.DataFrame(rows, columns=COLUMNS).to_csv(tmp_path / "theirs.csv", index=False)
    results = wsol.score(dataset, boxes=tmp_path / "theirs.csv", protocols=[name], progress=False, **STATED)
    assert ious(results, name) == pytest.approx([entry["iou"] for entry in entries], abs=1e-8)


def test_thresholds_of_pseudo_boxes(tmp_path) -> None:
    y, x = np.mgrid[:30, :40]
    names, images, maps = [f"a/{number}.png" for number in range(6)], tmp_path / "images", {}
    for number, name in enumerate(names):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 40, 3), 9, np.uint8)).save(images / name)
        maps[name] = np.exp(-(((x - 20) / (9 + number)) ** 2) - ((y - 15) / 8) ** 2)
    np.savez(tmp_path / "maps.npz", **maps)
    pd.DataFrame([(name, 8, 6, 31, 24) for name in names], columns=["image", *COLUMNS[1:]]).to_csv(
        tmp_path / "pseudo.csv", index=False
    )
    pseudo = AnnotatedFolder(images, boxes_file=tmp_path / "pseudo.csv", **STATED)
    truth = Dataset(
        [Sample(sample_id=name, label=0, image=images / name, boxes=[[17, 13, 23, 17]]) for name in names],
        name="cub", split="test", classes=("a",),
    )  # fmt: skip
    options = {"heatmaps": tmp_path / "maps.npz", "protocols": ["choe2020"], "progress": False}
    wsol.score(pseudo, run_dir=tmp_path / "pseudo", report=False, **options)
    chosen = wsol.score(truth, threshold_from=tmp_path / "pseudo", **options).summary.iloc[0]
    own = pd.read_csv(tmp_path / "pseudo" / "summary.csv").iloc[0]
    oracle = wsol.score(truth, **options).summary.iloc[0]
    assert "pseudo" in chosen["threshold_source"] and own["gt_known_loc"] == oracle["gt_known_loc"] == 100
    assert chosen["threshold"] == own["threshold"] < oracle["threshold"] and chosen["gt_known_loc"] == 0


def test_on_the_command_line(tmp_path, capsys) -> None:
    from wsol.datasets import Shapes

    rows = [(sample.sample_id, *sample.boxes[0]) for sample in Shapes(length=4)]
    pd.DataFrame(rows, columns=COLUMNS).to_parquet(tmp_path / "truth.parquet")
    words = ["score", f"boxes={tmp_path / 'truth.parquet'}", "dataset.length=4", f"run_dir={tmp_path / 'run'}"]
    stated = [f"{name}={value}" for name, value in STATED.items()]
    assert cli.main([*words, *stated, "progress=false", "report=false"]) == 0
    assert "boxes" in (tmp_path / "run" / "summary.csv").read_text() and "truth.parquet" in capsys.readouterr().out
    assert cli.main([*words, "report=false"]) == 2
