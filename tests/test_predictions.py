"""Predictions of any classifier: every form of file, every way to name classes, and what is wrong with them by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError
from wsol.heatmaps.ready import open_heatmaps
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
    found, about, _ = read(saved(table, tmp_path / f"p{suffix}"), naming=naming)
    assert found["rank"].tolist() == [0, 2, 1, 5]  # the last is not among the five
    assert found["sample_id"].tolist() == ["000", "001", "002", "003"]
    assert found["top5"][1].tolist() == [2, 3, 0, 1, 6]
    assert about == {
        "predictions": str(tmp_path / f"p{suffix}"), "class_map": naming or "id", "predict_over": "all",
        "competing": 7, "listed": 5,
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(("naming", "names"), [("id", IDS), ("name", CLASSES), ("position", tuple("0123456"))])
def test_logits_in_any_order_of_columns(tmp_path: Path, suffix: str, naming: str, names: tuple[str, ...]) -> None:
    table = pd.DataFrame(LOGITS, columns=list(names))[list(reversed(names))]
    table["sample_id"] = [f"00{index}" for index in range(4)]
    found, about, _ = read(saved(table, tmp_path / f"p{suffix}"), naming=naming)
    assert found["rank"].tolist() == TRUE_RANKS
    assert found["top5"][3].tolist() == [0, 1, 2, 4, 5]
    assert found["top5_probability"][0][0] == pytest.approx(np.exp(9) / np.exp(LOGITS[0]).sum())
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
    found, about, _ = read(saved(best(IDS, 2), tmp_path / "p.csv"))
    assert found["rank"].tolist() == [0, 2, 1, 2]
    assert about["listed"] == 2


def test_classes_that_the_dataset_lacks_compete_and_are_said(tmp_path: Path) -> None:
    found, about, notes = read(saved(best(("n000", "cow", "n002", "n003", "pig", "n005", "n006")), tmp_path / "p.csv"))
    assert found["rank"].tolist() == [0, 2, 1, 5]
    assert found["top5"][3].tolist() == [0, -1, 2, -1, 5]
    assert about["competing"] == 9
    assert notes == [f"predictions={tmp_path / 'p.csv'} names 2 classes that the dataset lacks (pig, cow): never right"]


def test_a_runs_own_predictions(tmp_path: Path) -> None:
    table = table_of(Four()).assign(rank=TRUE_RANKS, top5=[np.arange(5, dtype=np.int32)] * 4)
    (tmp_path / "environment.json").write_text(json.dumps({"source": {"competing": 1000, "class_map": "name"}}))
    found, about, _ = read(saved(table.iloc[::-1], tmp_path / "samples.parquet"))
    assert found["rank"].tolist() == TRUE_RANKS
    assert (about["competing"], about["class_map"]) == (1000, "name")
    with pytest.raises(UserError, match="sample 000 is of class 'a, .* there and 'z' in the dataset"):
        read(tmp_path / "samples.parquet", Four(classes=tuple("zyxwvut")))


def test_a_sample_without_a_prediction_counts_as_wrong_only_when_asked(tmp_path: Path) -> None:
    path = saved(best(IDS).drop(index=[0, 2]), tmp_path / "p.csv")
    with pytest.raises(UserError, match=r"no row for 000, 002 \(2 of 4 samples\); add them, or pass on_error=skip"):
        read(path)
    found, _, notes = read(path, on_error="skip")
    assert found["rank"].tolist() == [-1, 2, -1, 5]
    assert [len(top) for top in found["top5"]] == [0, 5, 0, 5]
    assert notes[0].endswith("(2 of 4 samples); they count as wrong")


def test_ids_that_look_like_positions_must_be_said(tmp_path: Path) -> None:
    shuffled = Four(class_ids=tuple("3210456"))
    path = saved(best(tuple("0123456")), tmp_path / "p.csv")
    with pytest.raises(UserError, match=r"ids of four's classes are numbers that differ from positions \(id 3 stands"):
        read(path, shuffled)
    assert read(path, shuffled, "position")[0]["rank"].tolist() == [0, 2, 1, 5]
    assert read(path, shuffled, "id")[0]["rank"].tolist() != [0, 2, 1, 5]
    assert read(path, Four(class_ids=tuple("0123456")))[0]["rank"].tolist() == [0, 2, 1, 5]


HEAD = "sample_id,top1,top2\n"
ROWS = "".join(f"00{index},n000,n001\n" for index in range(4))
WRONG = {
    "no sample id": ("id,top1\n000,n000\n", r"has no column sample_id \(its columns: id, top1\); pass a .csv"),
    "empty": ("", "can't be read: "),
    "twice": (HEAD + ROWS + "001,n000,n001\n", "001 come more than once; keep one row for each sample"),
    "other ids": (HEAD + "1,n000,n001\n", r"no row for 000, .* \(4 of 4 samples\); its column sample_id holds 1: use"),
    "a class twice": (HEAD + ROWS.replace("n001", "n000"), "sample 000 has 'n000', 'n000' as its best classes"),
    "an empty cell": (HEAD + ROWS.replace("002,n000", "002,"), "sample 002 has '', 'n001' as its best classes"),
    "unknown classes": (HEAD + ROWS.replace("n00", "x"), "x0, x1 are no ids of the dataset's classes, which are n000"),
    "a gap": ("sample_id,top1,top3\n" + ROWS, "has the columns top1, top3; name them top1, top2"),
    "some logits": ("sample_id,n000,n001\n" + ROWS, "no column for n002, n003, n004, n005, n006 .of 7 classes, by id"),
    "a label beside": (
        "sample_id," + ",".join(IDS) + ",label\n" + "".join(f"00{i}" + ",1" * 8 + "\n" for i in range(4)),
        "columns that are no id of a class: label",
    ),
    "a column twice": ("sample_id,top1,top1\n" + ROWS, "column 'top1' comes more than once"),
    "logits that are none": (
        "sample_id," + ",".join(IDS) + "\n" + "".join(f"00{i}" + ",1" * 6 + ",nan\n" for i in range(4)),
        r"logits that are NaN, infinite or no numbers for 000, 001, 002, 003 \(4 samples\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_tables_say_what_where_and_what_to_do(tmp_path: Path, case: str) -> None:
    text, message = WRONG[case]
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / "p.csv")
    assert f"predictions={tmp_path / 'p.csv'}" in str(error.value)


def test_wrong_words_and_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="predictions_classes=index: pass id, name, position"):
        read(tmp_path / "p.csv", naming="index")
    with pytest.raises(UserError, match="no such file; pass a .csv or .parquet"):
        read(tmp_path / "p.csv")
    (tmp_path / "p.txt").write_text("")
    with pytest.raises(UserError, match="a file of this kind is not read"):
        read(tmp_path / "p.txt")
    (tmp_path / "p.parquet").write_text("none")
    with pytest.raises(UserError, match="can't be read"):
        read(tmp_path / "p.parquet")


def test_positions_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="9 are no positions of the dataset's classes, which are 0, 1, 2, 3, 4, …"):
        read(saved(best(("0", "1", "2", "3", "4", "5", "9")), tmp_path / "p.csv"), naming="position")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"logits": LOGITS}, "holds logits; pass"),
        ({"sample_id": np.array(["000"]), "other": LOGITS}, "holds sample_id; pass"),
        ({"sample_id": np.array(["000"]), "logits": LOGITS}, r"values of shape \(4, 7\) for 1 samples and 7 columns"),
        ({"sample_id": np.array(["000"]), "top5": np.array(3)}, r"values of shape \(\)"),
        ({"sample_id": np.array([{}] * 4), "logits": LOGITS}, "can't be read: Object arrays cannot be loaded"),
    ],
)
def test_wrong_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "p.npz")
