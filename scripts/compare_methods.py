"""Localization of every method of one recording, beside the baselines, at the last layer and at an earlier one.

python scripts/compare_methods.py [--tiny-imagenet ROOT CHECKPOINT]

It prints what it finds and writes results/heatmap_methods.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import wsol
from wsol.datasets import Shapes, TinyImageNet
from wsol.heatmaps.method import builtin_methods, make_method
from wsol.memory import keep_memory
from wsol.models import Classifier, shapes_classifier, tiny_resnet18

ROOT = Path(__file__).resolve().parents[1]
ONE_RECORDING = (
    "cam", "gradcam", "gradcampp", "gradcamelementwise", "xgradcam", "hirescam", "layercam", "eigencam", "eigengradcam",
    "kpcacam", "finercam", "fem", "shapleycam",
)  # fmt: skip
BASELINES = ("center", "random", "full")
COLUMNS = {
    "method": "method", "gt_known_loc": "GT-known", "max_box_acc_30": "MBA 30", "max_box_acc_50": "MBA 50",
    "max_box_acc_70": "MBA 70", "max_box_acc_v2": "MBA V2",
}  # fmt: skip


def table(dataset: wsol.Dataset, classifier: Classifier, layers: Sequence[str], fused: bool) -> pd.DataFrame:
    """MaxBoxAcc at each IoU and MaxBoxAccV2 of every method at every layer."""
    methods = {name: make_method(name) for name in ("cam", *BASELINES)}
    for name in ONE_RECORDING[1:]:
        for number, layer in enumerate(layers):
            methods[f"{name}@{layer}" if number else name] = make_method(name, layer)
    if fused:
        methods["layercam, fused"] = make_method("layercam", list(layers), fuse="max")
    results = wsol.evaluate(dataset, classifier, methods, ("choe2020_v2",), run_dir=None)
    return results.summary[list(COLUMNS)].rename(columns=COLUMNS)


def markdown(frame: pd.DataFrame) -> list[str]:
    """A table in Markdown, percent with one decimal."""
    cells = [[f"{v:.1f}" if isinstance(v, float) else f"`{v}`" for v in row] for row in frame.itertuples(index=False)]
    head = [f"| {' | '.join(frame.columns)} |", "| --- |" + " ---: |" * (len(frame.columns) - 1)]
    return [*head, *(f"| {' | '.join(row)} |" for row in cells), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny-imagenet", nargs=2, metavar=("ROOT", "CHECKPOINT"))
    parser.add_argument("--images", type=int, default=500)
    asked = parser.parse_args()
    assert set(ONE_RECORDING) <= set(builtin_methods())
    keep_memory()
    rows = [
        "# Methods of one recording, side by side", "",
        "Protocol `choe2020_v2`, percent, thresholds are oracles. Written by `python scripts/compare_methods.py "
        "[--tiny-imagenet ROOT CHECKPOINT]`.", "",
        f"## Shapes, test, {asked.images} images", "",
        "The shipped network: the last map, `features` (12 x 12), and an earlier one, `features.8` (the third of six "
        "layers, 12 x 12 as well). Pooling and one linear layer follow the last map, so there Grad-CAM, XGrad-CAM and "
        "HiResCAM are the positive part of CAM, up to scale.", "",
    ]  # fmt: skip
    rows += markdown(table(Shapes(length=asked.images), shapes_classifier(), ("features", "features.8"), True))
    if asked.tiny_imagenet:
        root, checkpoint = asked.tiny_imagenet
        classifier = tiny_resnet18(checkpoint=checkpoint)
        dataset = TinyImageNet(root, "val")
        rows += [
            f"## Tiny-ImageNet, {len(dataset.classes)} classes, val, {len(dataset)} images", "",
            "The network of `results/tiny_imagenet_20.md`: the last map, `layer4` (8 x 8), and an earlier one, "
            "`layer2` (16 x 16).", "",
        ]  # fmt: skip
        rows += markdown(table(dataset, classifier, ("layer4", "layer2"), True))
    text = "\n".join(rows)
    print(text)
    (ROOT / "results" / "heatmap_methods.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
