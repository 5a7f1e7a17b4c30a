"""Every shell and Python block of the README works as pasted; what needs data or weights from elsewhere is composed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsol.cli import main
from wsol.commands.request import compose_application, read_words

ROOT = Path(__file__).resolve().parents[1]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
BLOCKS = FENCED.findall((ROOT / "README.md").read_text(encoding="utf-8"))
YOUR_DATA = FENCED.findall((ROOT / "docs" / "guides" / "your_data.md").read_text(encoding="utf-8"))
LINES = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("wsol ")]
ELSEWHERE = (
    "root=",
    "…",
    "train",
    "VAL_RUN",
    "heatmaps=MAPS",
    "cat.jpg",
    "results/runs",
    "best.safetensors",
    "boxes.csv",
    "resume=true",
    "launcher=slurm",
    "launcher=ray",
    "report run",
)
SMALL = {"evaluate": ["limit=8", "pictures=0", "report=false"], "score": ["limit=8", "report=false"]}
HERE = [line for line in COMMANDS if not any(word in line for word in ELSEWHERE)]


def words_of(line: str) -> list[str]:
    """What the shell makes of a line; `dataset=…` stands for anything."""
    return [word for word in shlex.split(line, comments=True)[1:] if not word.endswith("=…")]


def test_every_line_of_the_shell_is_one_of_ours_or_an_installation() -> None:
    others = [line for line in LINES if line not in COMMANDS and not line.startswith("torchrun ")]
    assert others == ["pip install . && wsol", "pip install '.[dev]' && pytest -n auto"], "these .ci/run runs"
    assert len(COMMANDS) > 15 and len(HERE) > 6


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_composes(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = words_of(line)
    if "launcher=ray" in words:
        pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="an extra of its own")
    if "-m" in words:  # Hydra shows no configuration of several jobs
        request = read_words(words)
        assert compose_application(request.command, request.overrides)
        return
    assert main(words if "--help" in words else [*words, "--cfg", "job"]) == 0, capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the runs that the README calls RUN, RUN_A and RUN_B."""
    place = tmp_path_factory.mktemp("readme")
    assert main(["limit=8", "pictures=0", "report=false", "method=[cam,gradcam]", f"run_dir={place}/RUN"]) == 0
    for name in ("RUN_A", "RUN_B"):
        shutil.copytree(place / "RUN", place / name)
    return place


@pytest.mark.long
@pytest.mark.parametrize("line", ["wsol", *HERE])
def test_a_command_runs(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(folder)
    words = words_of(line)
    command = next((word for word in words if word.isalpha()), "evaluate")
    assert main([*words, *SMALL.get(command, [])]) == 0, capfd.readouterr().err


def test_the_python_block_runs() -> None:
    (shown,) = (text for language, text in BLOCKS if language == "python")
    names: dict[str, object] = {}
    exec(compile(shown, "README.md", "exec"), names)
    best = names["sweep"].iou_largest.max()  # type: ignore[attr-defined]
    assert 0.3 < best <= 1


def test_a_data_set_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    for language, text in YOUR_DATA:
        if language in ("python", "yaml") and text.startswith("# ~/mine"):
            path = Path(re.split(r"[ :\n]", text)[1]).expanduser()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for name in ("robin", "wren"):
        file = tmp_path / "birds" / name / f"{name}.jpg"
        file.parent.mkdir(parents=True)
        Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(file)
        file.with_suffix(".txt").write_text("1 2 30 20")
    line = next(text for language, text in YOUR_DATA if language == "yaml" and "birds" in text).splitlines()[0]
    words = [word for word in line.partition(": wsol ")[2].split() if not word.endswith("=…")]
    words = [word.replace("~/mine", f"{tmp_path}/mine") for word in words]  # as the shell does
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # which --config-dir adds to
    assert main(["check", *words, f"run_dir={tmp_path}/out"]) == 0
