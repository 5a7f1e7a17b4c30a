"""A run's folder read again, one of format 1 too, and what folders get that are no whole run's."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

import wsol
from wsol import cli
from wsol.datasets import Shapes
from wsol.errors import UserError
from wsol.models import Classifier, gapnet
from wsol.report.compare import compare
from wsol.report.run import FILES, Run

FORMAT_1 = Path(__file__).resolve().parents[1] / "data" / "run_of_format_1.tar.xz"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shapes: Shapes) -> Path:
    network = Classifier(
        name="small", module=gapnet(3, widths=(6, 8), strides=(2, 2), seed=0), layer="features", input_size=(32, 32),
        classes=shapes.classes, class_ids=shapes.ids,
    )  # fmt: skip
    mine = wsol.Protocol(name="mine", threshold=0.3, levels=8, thresholds="levels")
    protocols = {"mine": mine, "choe2020": wsol.load_protocol("choe2020")}
    folder = tmp_path_factory.mktemp("runs") / "a"
    wsol.evaluate(shapes, network, ("cam",), protocols, run_dir=folder, pictures=0, report=False, progress=False)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "a")


def test_what_was_written_is_read_again(folder: Path) -> None:
    run = Run.open(folder)
    assert run.summary[["method", "protocol"]].to_numpy().tolist() == [["cam", "mine"], ["cam", "choe2020"]]
    assert run.protocols["mine"].threshold == 0.3
    assert len(run.protocols["mine"].grid()) == 8  # seven levels and the fixed one
    assert run.summary["threshold_source"].tolist() == ["fixed", "oracle"]
    assert run.metrics["class"].isna().sum() == 0
    sweep = run.sweep("cam", "mine")
    assert sweep["sample_id"].nunique() == 10
    assert sweep.groupby("sample_id", observed=True)["threshold"].min().eq(run.protocols["mine"].grid()[0]).all()
    assert run.boxed
    assert run.heatmaps == folder / "heatmaps"


def test_an_interrupted_run_says_what_is_missing(folder: Path) -> None:
    for name in ("summary.csv", "config.yaml", "environment.json"):
        (folder / name).unlink()
    with pytest.raises(UserError, match="summary.csv, config.yaml, environment.json missing.*wsol score"):
        Run.open(folder)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "heatmaps")
    (folder / ".heatmaps.123.tmp").mkdir()
    with pytest.raises(UserError, match=r"per_image.parquet, .* missing"):
        Run.open(folder)


def test_rules_that_nobody_wrote_down(folder: Path) -> None:
    (folder / "config.yaml").write_text("{}\n")
    with pytest.raises(UserError, match="mine"):
        _ = Run.open(folder).protocols


@pytest.mark.parametrize("name", ["summary.csv", "samples.parquet", "environment.json", "config.yaml"])
def test_damage_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("{")
    with pytest.raises(UserError, match=name):
        getattr(Run.open(folder), name.split(".")[0])


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    """A run of four samples as version 0.1.0 wrote it."""
    shutil.unpack_archive(FORMAT_1, tmp_path, filter="data")
    return tmp_path / "run_of_format_1"


def test_a_run_of_format_1_is_reported(old_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", f"run={old_run}"]) == 0, capsys.readouterr().err
    assert (old_run / "figures" / "accuracy_choe2020.svg").is_file()
    page = (old_run / "report.html").read_text(encoding="utf-8")
    assert 'data-value="CAM"' in page
    assert "no image" not in page.split('id="gallery"')[1].split("</section>")[0]


def test_a_run_of_format_1_is_compared(old_run: Path) -> None:
    pairs = compare([old_run]).pairs.set_index("metric")
    assert pairs.loc["gt_known_loc", ["first_value", "second_value"]].tolist() == [75.0, 25.0]
    assert pairs.loc["pxap", "difference"] == pytest.approx(72.5126072087332 - 56.488636495160925, abs=1e-9)


def test_a_run_of_format_1_is_scored_again(old_run: Path, tmp_path: Path) -> None:
    words = [f"heatmaps={old_run}/heatmaps", "dataset.length=4", "dataset.size=48", "protocol=[choe2020]"]
    words += ["protocols.choe2020.thresholds=0.05", "report=false", "progress=false", f"run_dir={tmp_path}/new"]
    assert cli.main(["score", *words]) == 0
    for name in ("summary.csv", "metrics.csv"):
        old, new = (pd.read_csv(folder / name, keep_default_na=False) for folder in (old_run, tmp_path / "new"))
        if name == "metrics.csv":  # strata are younger than the format
            new = new[new["metric"].isin(old["metric"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(new, old, rtol=1e-9)
    for method in ("cam", "center"):
        new, old = (Run.open(folder).sweep(method, "choe2020") for folder in (tmp_path / "new", old_run))
        pd.testing.assert_frame_equal(new.astype({"sample_id": str}), old.astype({"sample_id": str}))


def test_a_threshold_can_come_from_a_run_of_format_1(old_run: Path) -> None:
    results = wsol.score(
        Shapes(length=4, size=48), old_run / "heatmaps", protocols=Run.open(old_run).protocols, threshold_from=old_run,
        threshold_from_test=True, progress=False,
    )  # fmt: skip
    assert results.summary["threshold"].tolist() == [0.05 * 6, 0.25]
