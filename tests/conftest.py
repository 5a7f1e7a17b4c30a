"""What several test files share: a small generated dataset, a small classifier, and Tiny-ImageNet's layout on disk."""

from __future__ import annotations

import os

# Before torch is loaded: threads that wait must not keep others from running, and each of `-n auto`'s workers gets one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsol.datasets import Dataset, Shapes
from wsol.models import Classifier, gapnet

WNIDS = ("n01443537", "n01629819", "n02123045")
NAMES = ("goldfish, Carassius auratus", "European fire salamander", "tabby, tabby cat")


@pytest.fixture(scope="session")
def shapes() -> Shapes:
    """Ten pictures of 32 × 32 in three classes."""
    return Shapes("test", length=10, size=32, classes=3, object_size=(0.6, 0.9))


def small(dataset: Dataset, **changes: Any) -> Classifier:
    """An untrained network for a dataset with maps of 8 × 8."""
    module = gapnet(len(dataset.classes), widths=(6, 8), strides=(2, 2), seed=0)
    fields: dict[str, Any] = {"classes": dataset.classes, "class_ids": dataset.ids, "weights": "random"}
    return Classifier(name="small", module=module, layer="features", input_size=(32, 32), **fields | changes)


@pytest.fixture
def classifier(shapes: Shapes) -> Classifier:
    """That network for `shapes`."""
    return small(shapes)


def write_tiny_imagenet(root: Path, train: int = 2, val: int = 2) -> Path:
    """Write random pictures and boxes as Tiny-ImageNet is handed out: so many per class and split.

    `words.txt` also names classes that are not there, as the original does.
    """
    random = np.random.default_rng(0)

    def picture(path: Path) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path, "JPEG")
        x0, y0 = random.integers(0, 20, 2)
        x1, y1 = random.integers(30, 64, 2)
        return f"{x0}\t{y0}\t{x1}\t{y1}"

    rows = []
    for wnid in WNIDS:
        folder = root / "train" / wnid
        boxes = [f"{wnid}_{i}.JPEG\t{picture(folder / 'images' / f'{wnid}_{i}.JPEG')}\n" for i in range(train)]
        (folder / f"{wnid}_boxes.txt").write_text("".join(boxes))
    for i in range(val * len(WNIDS)):
        box = picture(root / "val" / "images" / f"val_{i}.JPEG")
        rows.append(f"val_{i}.JPEG\t{WNIDS[i % len(WNIDS)]}\t{box}\n")
    (root / "val" / "val_annotations.txt").write_text("".join(rows))
    (root / "test" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(reversed(WNIDS)))
    names = dict(zip(WNIDS, NAMES, strict=True)) | {"n00001740": "entity"}
    (root / "words.txt").write_text("".join(f"{wnid}\t{name}\n" for wnid, name in names.items()))
    return root


@pytest.fixture
def tiny_imagenet(tmp_path: Path) -> Path:
    """The root of three classes in Tiny-ImageNet's layout, two pictures per class and split."""
    return write_tiny_imagenet(tmp_path / "tiny-imagenet")


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without the files in `figures/`, which take most of the time; test_figures.py draws them."""
    monkeypatch.setattr("wsol.report.page.draw_figures", lambda *_: [])


@pytest.fixture(name="write_tiny_imagenet")
def writer() -> Callable[..., Path]:
    """`write_tiny_imagenet(root, train=2, val=2)` for tests that want another number of pictures."""
    return write_tiny_imagenet
