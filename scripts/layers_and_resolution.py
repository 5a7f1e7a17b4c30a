"""Which layer, which resolution? Localization for each stage of a network and for larger inputs.

    python scripts/layers_and_resolution.py --photographs tiny-imagenet-20 --runs FOLDER   # goes on where it stopped
    python scripts/layers_and_resolution.py --runs FOLDER --report                         # writes the page only

Grad-CAM and LayerCAM at every stage, the image enlarged to 1, 1.5 and 2 times the size that the network was trained
with: EfficientNet-Lite0 on photographs, the package's own network on Shapes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from wsol.datasets import Dataset, Shapes, TinyImageNet
from wsol.engine import evaluate
from wsol.heatmaps.method import make_method, method_cards
from wsol.io import read_environment, write_text
from wsol.models import Classifier, efficientnet_lite0
from wsol.models.zoo import shapes_classifier
from wsol.training.watch import spread

SCALES, IMAGES, METHODS = (1.0, 1.5, 2.0), 300, ("gradcam", "layercam")
STAGES = {
    "photographs": ("_blocks.2", "_blocks.4", "_blocks.10", "_blocks.15", "_avg_pooling:input"),
    "shapes": ("features.2", "features.5", "features.8", "features.11", "features.14", "features.17"),
}
TITLES = {"photographs": "EfficientNet-Lite0, Tiny-ImageNet", "shapes": "six convolutions, Shapes"}
PROTOCOL = "choe2020_v2"


def load(data: str, root: Path | None, images: int) -> tuple[Dataset, Classifier]:
    """Images and the network for them."""
    if data == "shapes":
        return Shapes("test", length=images), shapes_classifier()
    if root is None:
        raise SystemExit("--photographs FOLDER: classes of Tiny-ImageNet in its own layout")
    return spread(TinyImageNet(root, "val"), images)[1], efficientnet_lite0()


def run(folder: Path, data: str, scale: float, root: Path | None, images: int) -> None:
    """Evaluate every stage at one input size; a run that is whole stays as it is."""
    if (folder / "summary.csv").exists():
        return
    dataset, classifier = load(data, root, images)
    height, width = classifier.input_size
    classifier = replace(classifier, input_size=(round(scale * height), round(scale * width)))
    methods: dict[str, Any] = {name: make_method(name, layer=STAGES[data]) for name in METHODS}
    methods["center"] = make_method("center")
    options: dict[str, Any] = {"predict_over": "present"} if data == "photographs" else {}
    evaluate(
        dataset, classifier, methods, [PROTOCOL], run_dir=folder, pictures=0, report=False, progress=False, **options
    )


def read(folder: Path) -> pd.DataFrame:
    """A run's MaxBoxAccV2 with its interval, indexed by method@layer; Top-1 classification beside it."""
    metrics = pd.read_csv(folder / "metrics.csv")
    metrics = metrics[(metrics["metric"] == "max_box_acc_v2") & metrics["class"].isna()].set_index("method")
    summary = pd.read_csv(folder / "summary.csv")
    names = summary["method"] if "@" in "".join(summary["method"]) else summary["method"] + "@" + summary["layer"]
    table = summary.assign(name=names).set_index("name")
    return table[["max_box_acc_v2", "top1_cls"]].join(metrics[["low", "high"]])


def draw(tables: dict[tuple[str, float], pd.DataFrame], path: Path) -> None:
    """A panel per network and method, a line per input size, stages from left to right."""
    cards = method_cards()
    figure = Figure(figsize=(9, 7), layout="constrained")
    panels = figure.subplots(len(STAGES), len(METHODS), sharey="row")
    for (row, data), (column, method) in product(enumerate(STAGES), enumerate(METHODS)):
        axes, names = panels[row][column], [f"{method}@{layer}" for layer in STAGES[data]]
        for number, scale in enumerate(SCALES):
            if (data, scale) in tables:
                part = tables[data, scale].loc[names]
                axes.plot(
                    range(len(names)), part["max_box_acc_v2"], marker="o", color=f"C{number}", label=f"{scale:g} ×"
                )
                axes.fill_between(range(len(names)), part["low"], part["high"], color=f"C{number}", alpha=0.15)
        if (data, 1.0) in tables:
            level = tables[data, 1.0].loc["center", "max_box_acc_v2"]
            axes.axhline(level, color="0.4", linestyle=":", label="center baseline")
        axes.set_xticks(range(len(names)), [layer.lstrip("_") for layer in STAGES[data]], rotation=25, ha="right")
        axes.set_title(f"{cards[method].title}; {TITLES[data]}", fontsize=10)
    for axes in panels[:, 0]:
        axes.set_ylabel("MaxBoxAccV2, %")
    panels[0][0].legend(fontsize=8)
    figure.savefig(path, dpi=150)


def report(runs: Path, path: Path) -> None:
    """Write what is there, and say what is missing."""
    cells = [*product(STAGES, SCALES)]
    folders = {cell: runs / f"{cell[0]}_{cell[1]:g}" for cell in cells}
    done = {cell: folder for cell, folder in folders.items() if (folder / "summary.csv").exists()}
    tables = {cell: read(folder) for cell, folder in done.items()}
    images = " and ".join(sorted({str(pd.read_csv(folder / "summary.csv")["n_images"][0]) for folder in done.values()}))
    minutes = sum(read_environment(folder).get("seconds", 0) for folder in done.values()) / 60
    lines = [
        "# Which layer, which resolution?", "",
        f"{len(done)} of {len(cells)} runs. Made by `python scripts/layers_and_resolution.py`, {date.today()}; "
        f"{minutes:.0f} minutes by the clock, beside much other work.", "",
        f"MaxBoxAccV2 of Grad-CAM and LayerCAM at each stage, on {images} images, the input 1, 1.5 and 2 times as "
        "large as in training. Nothing is trained anew: a larger input is another picture to the network, so Top-1 is "
        "given too. τ is an oracle's, as MaxBoxAccV2 wants it; 95 % intervals are over images.", "",
        f"![stages and sizes]({path.with_suffix('.png').name})",
    ]  # fmt: skip
    for data in STAGES:
        scales = [scale for scale in SCALES if (data, scale) in tables]
        if not scales:
            continue
        top1 = ", ".join(f"{tables[data, scale]['top1_cls'].iloc[0]:.1f} ({scale:g} ×)" for scale in scales)
        lines += ["", f"## {TITLES[data]}", "", f"Top-1 classification: {top1}.", ""]
        lines += ["| method and layer | " + " | ".join(f"{scale:g} ×" for scale in scales) + " |"]
        lines += ["|---" + "|---:" * len(scales) + "|"]
        for name in tables[data, scales[0]].index:
            cells_of = (tables[data, scale].loc[name] for scale in scales)
            texts = [f"{row['max_box_acc_v2']:.1f} ({row['low']:.1f} to {row['high']:.1f})" for row in cells_of]
            lines.append(f"| {name} | {' | '.join(texts)} |")
    if tables:
        draw(tables, path.with_suffix(".png"))
    write_text(path, "\n".join(lines) + "\n")


def main(words: Sequence[str] | None = None) -> None:
    """Evaluate what is missing, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, help="classes of Tiny-ImageNet in its own layout")
    parser.add_argument("--runs", type=Path, default=Path("results/runs/layers_and_resolution"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results/layers_and_resolution.md")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--report", action="store_true", help="evaluate nothing")
    options = parser.parse_args(words)
    for data, scale in () if options.report else product(STAGES, SCALES):
        run(options.runs / f"{data}_{scale:g}", data, scale, options.photographs, options.images)
        print(f"{data} {scale:g} done", flush=True)
    report(options.runs, options.output)


if __name__ == "__main__":
    main()
