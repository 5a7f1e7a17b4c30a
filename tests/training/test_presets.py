"""Presets of Choe et al.: each composes, and trains one step on a miniature CUB, ImageNet or OpenImages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml

from tests.datasets.layouts import BIRDS, write_image, write_split
from wsol.cli import main
from wsol.commands.request import compose_application
from wsol.io import conf_dir

FOLDER = conf_dir() / "experiment" / "train" / "choe2020"
PRESETS = sorted(path.stem for path in FOLDER.glob("[!_]*.yaml"))
METHODS = {"cam": "TrainingMethod", "has": "HaS", "cutmix": "CutMix", "adl": "ADL", "acol": "ACoL", "spg": "SPG"}


def test_every_cell_that_is_known_has_a_preset() -> None:
    networks = ("vgg16", "resnet50", "inception_v3")
    cells = {f"cub_{network}_{method}" for network in networks for method in METHODS}
    others = {f"{data}_{network}_cam" for data in ("ilsvrc", "openimages") for network in networks}
    assert set(PRESETS) == cells | others


@pytest.mark.parametrize("name", PRESETS)
def test_preset_composes(name: str) -> None:
    config = compose_application("train", [f"experiment/train=choe2020/{name}", "dataset.root=/x"])
    *_, method = name.split("_")
    assert str(config.training_method._target_).endswith(f".{METHODS[method]}")
    own = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert config.training.lr == float(own["training"]["lr"]) and config.training.groups == "choe2020"
    assert config.training.step_offset == 1 and "window" in config.training.augment
    assert all(config.training_method[key] == value for key, value in own.get("training_method", {}).items())
    assert config.model.output_stride == (16 if "vgg16" in name or name == "openimages_resnet50_cam" else 8)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("cub")])
def test_preset_takes_a_step(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for bird in BIRDS:
        write_image(tmp_path / "dataset" / "CUB" / bird, (32, 24))
    for split in ("train", "val"):
        truth = [f"{bird},2,3,20,21" for bird in BIRDS]
        write_split(tmp_path, "CUB", split, list(zip(BIRDS, (0, 0, 1), strict=True)), truth)
    weights = "model.weights" if "resnet50" in name else "model.backbone"
    words = [f"experiment=choe2020/{name}", f"{weights}=null", "dataset.root=.", "training.input_size=[64,64]"]
    assert main(["train", *words, "training.epochs=1", "run_dir=run", "progress=false"]) == 0
    assert (tmp_path / "run" / "best.safetensors").is_file()
    stride, option = ("" if "vgg16" in name else "8"), {"v": "vgg16_gap", "r": "resnet50", "i": "inception_v3_gap"}
    words = ["dataset=wsolevaluation", "dataset.root=.", "dataset.name=CUB", "dataset.split=val", "report=false"]
    words += [f"model={option[name.split('_')[1][0]]}", "model.checkpoint=run/best.safetensors", "pictures=0"]
    words += [f"model.output_stride={stride}"] if stride else []
    assert main([*words, "method=[cam,gradcam]", "run_dir=evaluated", "progress=false"]) == 0


@pytest.mark.long
def test_the_study_of_training_methods_in_its_short_form(tiny_imagenet: Path, tmp_path: Path) -> None:
    """It trains what is missing, leaves alone what is done, and says how many there are."""
    spec = importlib.util.spec_from_file_location("study", conf_dir().parent / "scripts" / "training_methods.py")
    study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    words = ["--short", "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "a.md")]
    study.main(words)
    text = (tmp_path / "a.md").read_text()
    assert "2 of 4 trainings" in text and "| acol |  (0 of 1)" in text
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    study.main(words)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")} == before
    study.main([*words, "--photographs", str(tiny_imagenet)])
    study.main(["--report", *words[1:-1], str(tmp_path / "b.md")])
    text = (tmp_path / "b.md").read_text()
    assert "4 of 48 trainings" in text and "center baseline" in text and "±" not in text
