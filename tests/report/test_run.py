"""A run's folder read again, and what folders get that are no whole run's."""

import shutil
from pathlib import Path

import pytest

import wsol
from wsol.datasets import Shapes
from wsol.errors import UserError
from wsol.models import Classifier, gapnet
from wsol.report.run import FILES, Run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shapes: Shapes) -> Path:
    network = Classifier(
        name="small", module=gapnet(3, widths=(6, 8), strides=(2, 2), seed=0), layer="features", input_size=(32, 32),
        classes=shapes.classes, class_ids=shapes.ids,
    )  # fmt: skip
    rules = wsol.Protocol(name="mine", threshold=0.3, levels=8, thresholds="levels")
    protocols = {"mine": rules, "choe2020": wsol.load_protocol("choe2020")}
    folder = tmp_path_factory.mktemp("runs") / "a"
    wsol.evaluate(shapes, network, ("cam",), protocols, run_dir=folder, pictures=0, report=False, progress=False)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "a")


def test_what_was_written_is_read_again(folder: Path) -> None:
    run = Run.open(folder)
    assert run.name == "a"
    assert list(run.pairs()) == [("cam", "mine"), ("cam", "choe2020")]
    assert run.protocols["mine"].threshold == 0.3
    assert len(run.protocols["mine"].grid()) == 8  # seven levels and the fixed one
    assert run.row("cam", "mine")["threshold_source"] == "fixed"
    assert run.metrics["class"].isna().sum() == 0
    sweep = run.sweep("cam", "mine")
    assert sweep["sample_id"].nunique() == 10
    assert sweep.groupby("sample_id", observed=True)["threshold"].min().eq(run.protocols["mine"].grid()[0]).all()
    assert run.boxed
    assert run.heatmaps == folder / "heatmaps"
    with pytest.raises(UserError, match="no row for cam under exact; there are cam under mine, cam under choe2020"):
        run.row("cam", "exact")


def test_an_interrupted_run_says_what_is_missing(folder: Path) -> None:
    for name in ("summary.csv", "config.yaml", "environment.json"):
        (folder / name).unlink()
    with pytest.raises(UserError, match="still going on: summary.csv, config.yaml, environment.json missing"):
        Run.open(folder)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "heatmaps")
    (folder / ".heatmaps.123.tmp").mkdir()
    with pytest.raises(UserError, match=r"per_image.parquet, .* missing; run it again"):
        Run.open(folder)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (None, "this is not the folder of a run: it has no summary.csv"),
        ("sweep.csv", "this is a sweep; its jobs are runs"),
        ("history.csv", "this is a training run; pass the run of an evaluation"),
    ],
)
def test_other_folders_are_told_apart(tmp_path: Path, file: str | None, said: str) -> None:
    if file:
        (tmp_path / file).touch()
    with pytest.raises(UserError, match=said):
        Run.open(tmp_path)


def test_rules_that_nobody_wrote_down(folder: Path) -> None:
    (folder / "config.yaml").write_text("{}\n")
    with pytest.raises(UserError, match="does not hold the rules of protocol mine, and there is no such preset"):
        _ = Run.open(folder).protocols
