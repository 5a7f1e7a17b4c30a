"""Predictions of any classifier: every form of file, every way to name classes, and what is wrong with them by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError
from wsol.heatmaps.store import open_heatmaps
from wsol.predictions import read_predictions, samples_table

TRUE_RANKS = [0, 2, 1, 6]
LOGITS = np.array(
    [[9, 1, 2, 3, 4, 5, 6.5], [5, 4, 9, 8, 1, 0, 2], [7, 1, 6, 2, 3, 4, 5], [7, 6, 5, 0, 4, 3, 2]]
)  # fmt: skip
CLASSES = tuple(f'{letter}, "the {letter}"' for letter in "abcdefg")
IDS = tuple(f"n{number:03d}" for number in range(7))


class Four(Dataset):
    """Four samples of four classes out of seven."""

    name, split = "four", "val"

    def __init__(self, classes: tuple[str, ...] = CLASSES, class_ids: tuple[str, ...] = IDS) -> None:
        self.classes, self.class_ids = classes, class_ids

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        label = (0, 0, 2, 3)[index]
        return Sample(
            sample_id=f"00{index}", label=label, image=Path("/none"), boxes=[[0, 0, 3, 3]], image_size=(8, 8)
        )  # fmt: skip


def table_of(dataset: Dataset) -> pd.DataFrame:
    return samples_table(dataset, open_heatmaps(dataset, None)[0])


def read(path: Path, dataset: Dataset | None = None, naming: str | None = None, on_error: str = "stop"):
    dataset = dataset or Four()
    return read_predictions(path, dataset, table_of(dataset), naming, on_error)


def best(names: tuple[str, ...], count: int = 5) -> pd.DataFrame:
    order = np.argsort(-LOGITS, axis=1, kind="stable")[:, :count]
    columns = {f"top{place + 1}": [names[index] for index in order[:, place]] for place in range(count)}
    return pd.DataFrame({"sample_id": [f"00{index}" for index in range(4)]} | columns)


def saved(table: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(("naming", "names"), [(None, IDS), ("id", IDS), ("name", CLASSES), ("position", None)])
def test_the_best_five(tmp_path: Path, suffix: str, naming: str | None, names: tuple[str, ...] | None) -> None:
    table = best(names or tuple(range(7))).sample(frac=1, random_state=1).assign(note="not read")  # type: ignore[arg-type]
    samples, about, _ = read(saved(table, tmp_path / f"p{suffix}"), naming=naming)
    assert samples["rank"].tolist() == [0, 2, 1, 5]  # the last is not among the five
    assert samples["sample_id"].tolist() == ["000", "001", "002", "003"]
    assert samples["top5"][1].tolist() == [2, 3, 0, 1, 6]
    assert about == {
        "predictions": str(tmp_path / f"p{suffix}"), "class_map": naming or "id", "predict_over": "all",
        "competing": 7, "listed": 5,
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(("naming", "names"), [("id", IDS), ("name", CLASSES), ("position", tuple("0123456"))])
def test_logits_in_any_order_of_columns(tmp_path: Path, suffix: str, naming: str, names: tuple[str, ...]) -> None:
    table = pd.DataFrame(LOGITS, columns=list(names))[list(reversed(names))]
    table["sample_id"] = [f"00{index}" for index in range(4)]
    samples, about, _ = read(saved(table, tmp_path / f"p{suffix}"), naming=naming)
    assert samples["rank"].tolist() == TRUE_RANKS
    assert samples["top5"][3].tolist() == [0, 1, 2, 4, 5]
    assert samples["top5_probability"][0][0] == pytest.approx(np.exp(9) / np.exp(LOGITS[0]).sum())
    assert about["competing"] == 7 and "listed" not in about


@pytest.mark.parametrize(
    ("naming", "arrays", "ranks"),
    [
        ("position", {"logits": LOGITS}, TRUE_RANKS),
        ("id", {"logits": LOGITS[:, ::-1], "classes": np.array(IDS[::-1])}, TRUE_RANKS),
        ("position", {"top5": np.argsort(-LOGITS, axis=1)[:, :5]}, [0, 2, 1, 5]),
        ("name", {"top5": np.array(CLASSES)[np.argsort(-LOGITS, axis=1)[:, :5]]}, [0, 2, 1, 5]),
    ],
)
def test_arrays(tmp_path: Path, naming: str, arrays: dict[str, np.ndarray], ranks: list[int]) -> None:
    np.savez(tmp_path / "p.npz", sample_id=np.array(["000", "001", "002", "003"]), **arrays)
    assert read(tmp_path / "p.npz", naming=naming)[0]["rank"].tolist() == ranks


def test_fewer_than_five_are_said(tmp_path: Path) -> None:
    samples, about, _ = read(saved(best(IDS, 2), tmp_path / "p.csv"))
    assert samples["rank"].tolist() == [0, 2, 1, 2]
    assert about["listed"] == 2


def test_classes_that_the_dataset_lacks_compete_and_are_said(tmp_path: Path) -> None:
    samples, about, notes = read(
        saved(best(("n000", "cow", "n002", "n003", "pig", "n005", "n006")), tmp_path / "p.csv")
    )
    assert samples["rank"].tolist() == [0, 2, 1, 5]
    assert samples["top5"][3].tolist() == [0, -1, 2, -1, 5]
    assert about["competing"] == 9
    assert len(notes) == 1 and "pig, cow" in notes[0]


def test_a_runs_own_predictions(tmp_path: Path) -> None:
    table = table_of(Four()).assign(rank=TRUE_RANKS, top5=[np.arange(5, dtype=np.int32)] * 4)
    (tmp_path / "environment.json").write_text(json.dumps({"source": {"competing": 1000, "class_map": "name"}}))
    samples, about, _ = read(saved(table.iloc[::-1], tmp_path / "samples.parquet"))
    assert samples["rank"].tolist() == TRUE_RANKS
    assert (about["competing"], about["class_map"]) == (1000, "name")
    with pytest.raises(UserError, match="sample 000 .*'z'"):
        read(tmp_path / "samples.parquet", Four(classes=tuple("zyxwvut")))


def test_a_sample_without_a_prediction_counts_as_wrong_only_when_asked(tmp_path: Path) -> None:
    path = saved(best(IDS).drop(index=[0, 2]), tmp_path / "p.csv")
    with pytest.raises(UserError, match=r"000, 002 \(2 of 4 samples\)"):
        read(path)
    samples, _, notes = read(path, on_error="skip")
    assert samples["rank"].tolist() == [-1, 2, -1, 5]
    assert [len(top) for top in samples["top5"]] == [0, 5, 0, 5]
    assert "000, 002" in notes[0]


def test_ids_that_look_like_positions_must_be_said(tmp_path: Path) -> None:
    shuffled = Four(class_ids=tuple("3210456"))
    path = saved(best(tuple("0123456")), tmp_path / "p.csv")
    with pytest.raises(UserError, match="four's .*id 3"):
        read(path, shuffled)
    assert read(path, shuffled, "position")[0]["rank"].tolist() == [0, 2, 1, 5]
    assert read(path, shuffled, "id")[0]["rank"].tolist() != [0, 2, 1, 5]
    assert read(path, Four(class_ids=tuple("0123456")))[0]["rank"].tolist() == [0, 2, 1, 5]


HEAD = "sample_id,top1,top2\n"
ROWS = "".join(f"00{index},n000,n001\n" for index in range(4))
WRONG = {
    "no sample id": ("id,top1\n000,n000\n", "'sample_id' not found"),
    "empty": ("", "p.csv"),
    "a column twice": ("sample_id,top1,top1\n" + ROWS, "'top1'"),
    "twice": (HEAD + ROWS + "001,n000,n001\n", " 001 "),
    "other ids": (HEAD + "1,n000,n001\n", "000, .*4 of 4 .*sample_id holds 1"),
    "unknown classes": (HEAD + ROWS.replace("n00", "x"), "x0, x1 .*n000"),
    "a gap": ("sample_id,top1,top3\n" + ROWS, "top1, top3; .*top1, top2"),
    "some logits": ("sample_id,n000,n001\n" + ROWS, "n002, n003, n004, n005, n006"),
    "a label beside": (
        "sample_id," + ",".join(IDS) + ",label\n" + "".join(f"00{i}" + ",1" * 8 + "\n" for i in range(4)),
        "surplus are label",
    ),
    "logits that are none": (
        "sample_id," + ",".join(IDS) + "\n" + "".join(f"00{i}" + ",1" * 6 + ",nan\n" for i in range(4)),
        "000, 001, 002, 003",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_tables_are_refused_by_the_culprits_name(tmp_path: Path, case: str) -> None:
    text, culprit = WRONG[case]
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UserError, match=culprit) as error:
        read(tmp_path / "p.csv")
    assert f"predictions={tmp_path / 'p.csv'}" in str(error.value)


@pytest.mark.parametrize(("name", "content"), [("gone.csv", None), ("p.txt", ""), ("p.parquet", "none"), ("p.npz", "")])
def test_wrong_files_are_named(tmp_path: Path, name: str, content: str | None) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=name):
        read(tmp_path / name)


def test_two_classes_of_one_name_are_no_columns(tmp_path: Path) -> None:
    cranes = Four(classes=("crane", "crane", *"cdefg"))
    np.savez(tmp_path / "p.npz", sample_id=[f"00{i}" for i in range(4)], logits=LOGITS, classes=cranes.classes)
    with pytest.raises(UserError, match="'crane'"):
        read(tmp_path / "p.npz", cranes, "name")


def test_unknown_naming() -> None:
    with pytest.raises(UserError, match="index"):
        read(Path("p.csv"), naming="index")


def test_positions_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=": 9 are no positions"):
        read(saved(best(("0", "1", "2", "3", "4", "5", "9")), tmp_path / "p.csv"), naming="position")


@pytest.mark.parametrize(
    ("arrays", "culprit"),
    [
        ({"logits": LOGITS}, "sample_id"),
        ({"sample_id": np.array(["000"]), "other": LOGITS}, "logits"),
        ({"sample_id": np.array(["000"]), "logits": LOGITS}, r"\(4, 7\)"),
        ({"sample_id": np.array(["000"]), "top5": np.array(3)}, "p.npz"),
        ({"sample_id": np.array([{}] * 4), "logits": LOGITS}, "Object arrays"),
    ],
)
def test_wrong_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], culprit: str) -> None:
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(UserError, match=culprit):
        read(tmp_path / "p.npz")
