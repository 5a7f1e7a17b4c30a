"""Published numbers: the table is whole, and a run finds those of its dataset and architecture."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsol.io import published_file
from wsol.report.published import COLUMNS, matching, published
from wsol.tables import SUMMARY_COLUMNS

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "published_wsol.csv"


def test_every_number_is_a_percentage_of_a_known_metric_with_its_source() -> None:
    table = published()
    assert tuple(table.columns) == COLUMNS and len(table) > 100
    assert table["value"].between(0, 100, inclusive="neither").all()
    assert set(table["metric"]) <= set(SUMMARY_COLUMNS)
    for column in ("dataset", "split", "method", "source"):
        assert (table[column] != "").all(), column
    assert not table.duplicated(["dataset", "split", "model", "method", "metric", "source"]).any()


def test_nothing_got_lost_on_the_way_from_the_shared_table() -> None:
    if not SHARED.is_file():
        pytest.skip("no shared table here")
    assert published_file().read_text(encoding="utf-8") == SHARED.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("dataset", "model", "method", "metric", "value"),
    [
        ("ilsvrc", "resnet50", "CAM", "max_box_acc_v2", 63.7),
        ("ImageNet", "vgg16_gap", "CAM", "top1_loc", 42.8),
        ("ILSVRC", "vgg16_gap", "CAM", "max_box_acc_v2", 60.0),
        ("CUB_200_2011", "Inception-v3", "CAM", "max_box_acc_v2", 56.7),
        ("OpenImages", "resnet50", "CAM", "pxap", 58.5),
        ("cub", "anything", "center baseline", "max_box_acc_v2", 59.7),
        ("tiny_imagenet", "tiny_resnet18", "CAM", "top1_loc", 40.55),
    ],
)
def test_names_of_ours_find_those_of_papers(dataset: str, model: str, method: str, metric: str, value: float) -> None:
    found = matching(dataset, model)
    chosen = found[(found["method"] == method) & (found["metric"] == metric)]
    assert chosen["value"].tolist() == [value]


@pytest.mark.parametrize(("dataset", "model"), [("shapes", "shapes"), ("cub2", "resnet50"), ("", "")])
def test_nothing_to_compare_is_an_empty_table(dataset: str, model: str) -> None:
    found = matching(dataset, model)
    assert found.empty and tuple(found.columns) == COLUMNS


def test_another_network_of_the_same_family_is_not_the_same() -> None:
    assert set(matching("ilsvrc", "resnet18")["model"]) == {""}
    assert set(matching("ilsvrc", "googlenet")["model"]) == {"", "GoogLeNet"}
