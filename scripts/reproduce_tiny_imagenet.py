"""All 200 classes of Tiny-ImageNet within a budget of minutes: train two networks, localize, bring back the numbers.

    python scripts/reproduce_tiny_imagenet.py --root tiny-imagenet-200 --budget 9m      # a GPU: bfloat16, channels-last
    python scripts/reproduce_tiny_imagenet.py --root tiny-imagenet-20 --budget 2m --images 400      # CPU rehearsal

All images are decoded once and held in memory. Each network has half of the budget: its first steps are timed, and the
number of epochs follows from that. The best epoch and τ are chosen on a twentieth of the training images, held out; val
is looked at once. A training that is there is not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torchvision
from torch import nn

from wsol.datasets import Dataset, TinyImageNet
from wsol.datasets.sample import DESCRIPTION
from wsol.engine import evaluate
from wsol.io import read_environment, write_text
from wsol.models import Classifier
from wsol.models.reference import GlobalAveragePoolingNet
from wsol.models.zoo import seeded, tiny_resnet18
from wsol.training import Recipe, Stage, train
from wsol.training.watch import spread

MEAN, STD = (0.480, 0.448, 0.398), (0.277, 0.269, 0.282)
TIMED, RESERVED = 4096, 0.25  # images that are timed; share of a network's budget for loading and evaluating
METHODS, PROTOCOLS = ("cam", "gradcam", "center"), ("choe2020", "choe2020_v2")


def resnet18(classes: int) -> Classifier:
    """ResNet-18 with a 64-pixel stem and maps of 8 × 8."""
    return tiny_resnet18(num_classes=classes, mean=MEAN, std=STD)


def vgg_gap(classes: int) -> Classifier:
    """VGG-16 with batch normalization, without its last two pools, then global average pooling: maps of 8 × 8."""
    with seeded(0):
        layers = list(torchvision.models.vgg16_bn(weights=None).features)
        pools = [number for number, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        features = nn.Sequential(*(layer for number, layer in enumerate(layers) if number not in pools[-2:]))
        module = GlobalAveragePoolingNet(features, 512, classes)
    return Classifier.from_module(module, "features", name="vgg16_gap", input_size=(64, 64), mean=MEAN, std=STD)


NETWORKS: dict[str, tuple[Callable[[int], Classifier], float]] = {
    "resnet18": (resnet18, 0.1),
    "vgg_gap": (vgg_gap, 0.05),
}


def in_memory(dataset: Dataset, workers: int = 16) -> Dataset:
    """The same samples with their pixels decoded."""
    with ThreadPoolExecutor(workers) as pool:
        samples = list(
            pool.map(lambda index: replace(dataset[index], image=dataset[index].read_image()), range(len(dataset)))
        )
    return Dataset(samples, **{name: getattr(dataset, name) for name in DESCRIPTION})


def recipe_for(epochs: int, lr: float, device: str) -> Recipe:
    """One cycle of SGD; bfloat16 where the GPU has it."""
    fast = device == "cuda" and torch.cuda.is_bf16_supported()
    precision: Any = "bf16" if fast else "fp32"
    return Recipe(
        epochs=epochs, batch_size=128, optimizer="sgd", lr=lr, weight_decay=5e-4, label_smoothing=0.1,
        precision=precision, augment=("crop", "flip"),
    )  # fmt: skip


def run(folder: Path, name: str, data: tuple[Dataset, Dataset, Dataset], seconds: float, device: str) -> None:
    """Time some steps, train as many epochs as fit, choose τ on what was held out, evaluate on val."""
    if (folder / "test" / "summary.csv").exists():
        return
    started, (training, held_out, val) = time.monotonic(), data
    make, lr = NETWORKS[name]
    common: dict[str, Any] = {"device": device, "workers": 16 if device == "cuda" else 2, "show_progress": False}
    timed = spread(training, min(TIMED, len(training) - 1))[1]
    history = train(
        make(len(training.classes)), [Stage(dataset=timed, recipe=recipe_for(2, lr, device))], **common
    ).history
    rate = len(timed) / history["seconds"].iloc[-1]  # the first epoch warms up
    left = (1 - RESERVED) * seconds - (time.monotonic() - started)
    epochs = max(1, int(left * rate / len(training)))
    print(f"{name}: {rate:.0f} images/s, {epochs} epochs", flush=True)
    stage = Stage(dataset=training, validation=held_out, recipe=recipe_for(epochs, lr, device))
    trained = train(make(len(training.classes)), [stage], run_dir=folder, **common).classifier
    options: dict[str, Any] = {"pictures": 0, "report": False, "progress": False, "device": device}
    evaluate(held_out, trained, METHODS, PROTOCOLS, run_dir=folder / "val", **options)
    evaluate(val, trained, METHODS, PROTOCOLS, run_dir=folder / "test", threshold_from=folder / "val", **options)


def report(runs: Path, names: Sequence[str], path: Path) -> None:
    """Write what is there: localization, the training's log, the weights' hash."""
    done = [name for name in names if (runs / name / "test" / "summary.csv").exists()]
    lines = ["# Tiny-ImageNet, trained from scratch", "", f"{len(done)} of {len(names)} networks. {date.today()}."]
    for name in done:
        folder = runs / name
        environment, history = read_environment(folder), pd.read_csv(folder / "history.csv")
        summary = pd.read_csv(folder / "test" / "summary.csv")
        weights = hashlib.sha256((folder / "best.safetensors").read_bytes()).hexdigest()
        lines += [
            "", f"## {name}", "",
            f"{len(history)} epochs on {environment['device']}, {environment['seconds'] / 60:.1f} minutes; "
            f"{summary['n_images'][0]} images of val, τ from held-out images of train. "
            f"Top-1 {summary['top1_cls'][0]:.1f}. Weights: SHA-256 `{weights}`.", "",
            "| method | protocol | τ | Top-1 loc | Top-5 loc | GT-known | MaxBoxAccV2 |", "|---" * 7 + "|",
        ]  # fmt: skip
        for row in summary.to_dict("records"):
            best = "" if pd.isna(row["max_box_acc_v2"]) else f"{row['max_box_acc_v2']:.1f}"
            cells = [row["method"], row["protocol"], f"{row['threshold']:.3f}"]
            cells += [f"{row[column]:.1f}" for column in ("top1_loc", "top5_loc", "gt_known_loc")]
            lines.append(f"| {' | '.join([*cells, best])} |")
        lines += ["", "| epoch | training loss | training Top-1 | held-out Top-1 |", "|---:" * 4 + "|"]
        for row in history.to_dict("records"):
            lines.append(
                f"| {row['epoch']} | {row['train_loss']:.3f} | {row['train_top1']:.1f} | {row['val_top1']:.1f} |"
            )
    write_text(path, "\n".join(lines) + "\n")


def main(words: Sequence[str] | None = None) -> None:
    """Train what is missing, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="Tiny-ImageNet in its own layout")
    parser.add_argument("--runs", type=Path, default=Path("results/runs/reproduce_tiny_imagenet"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results/tiny_imagenet_200.md")
    parser.add_argument("--budget", default="9m", help="minutes (9m) or seconds (540s) for everything")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--images", type=int, help="only so many training images, and a fifth as many of val")
    options = parser.parse_args(words)
    names = options.networks.split(",")
    started, budget = time.monotonic(), float(options.budget[:-1]) * (60 if options.budget.endswith("m") else 1)
    train_set, val = TinyImageNet(options.root, "train"), TinyImageNet(options.root, "val")
    if options.images:
        train_set, val = (
            spread(part, few)[1] for part, few in ((train_set, options.images), (val, options.images // 5))
        )
    training, held_out = spread(in_memory(train_set), max(1, len(train_set) // 20))
    data, device = (training, held_out, in_memory(val)), "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{len(train_set) + len(val)} images decoded in {time.monotonic() - started:.0f} s", flush=True)
    for number, name in enumerate(names):
        share = (budget - (time.monotonic() - started)) / (len(names) - number)
        run(options.runs / name, name, data, share, device)
    report(options.runs, names, options.output)


if __name__ == "__main__":
    main()
