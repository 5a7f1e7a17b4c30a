"""What is loaded, and what isn't: a command that needs no network starts in less time than torch takes to load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import wsol

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "torchvision", "torchmetrics", "matplotlib", "scipy.signal")
PROGRAM = f"""
import json, sys
from wsol.cli import main
codes = [main(words) for words in json.loads(sys.argv[1])]
print(json.dumps([codes, [name for name in {HEAVY} if name in sys.modules]]))
"""


def loaded(folder: Path, *commands: str) -> list[str]:
    """Heavy modules that are there after these commands."""
    words = json.dumps([command.split() for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, words],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    codes, modules = json.loads(done.stdout.splitlines()[-1])
    assert codes == [0] * len(commands), done.stderr
    return modules


def test_commands_without_a_network_load_nothing_heavy(tmp_path: Path) -> None:
    score = "score method=[center,full] dataset.length=4 report=false run_dir=run"
    compare, check = "compare runs=[run] run_dir=comparison", "check dataset.length=4 run_dir=check"
    assert loaded(tmp_path, "--help", "train --help", score, compare, check) == []


def test_public_names_are_fetched_when_they_are_used() -> None:
    code = f"import sys, wsol; print(dir(wsol)); wsol.localization; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    names, modules = done.stdout.splitlines()
    assert (names, modules) == (str(sorted(wsol.__all__)), "[]")


@pytest.mark.parametrize("name", wsol.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(wsol, name) is not None
    assert getattr(wsol, name) is getattr(wsol, name)
    assert getattr(wsol, name).__doc__
