"""Time faithfulness beside the libraries' own on one network, in one run, and write results/bench_faithfulness.md.

python scripts/bench_faithfulness.py [--images 4] [--rounds 3]
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torchvision
from measure import read_options, timed
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchcam.methods import CAM
from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric

from wsol.metrics.faithfulness import measure_faithfulness
from wsol.metrics.faithfulness_presets import load_faithfulness
from wsol.models.inference import Folding

TARGET = Path(__file__).resolve().parents[1] / "results" / "bench_faithfulness.md"


def main() -> None:
    """Compare, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=TARGET)
    options = read_options(parser)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = torchvision.models.resnet18(num_classes=10).eval()
    images = torch.randn(options.images, 3, 224, 224)
    with torch.no_grad():
        features = torch.nn.Sequential(*list(network.children())[:-2])(images)
        targets = network(images).argmax(1)
        maps = torch.einsum("bk,bkhw->bhw", network.fc.weight[targets], features)
    unit = (maps - maps.amin((1, 2), keepdim=True)) / (maps.amax((1, 2)) - maps.amin((1, 2)))[:, None, None]
    large = torch.nn.functional.interpolate(unit[:, None], (224, 224), mode="bilinear")[:, 0].numpy()
    outputs = [ClassifierOutputTarget(int(target)) for target in targets]
    # As `evaluate` runs a network: channels last, batch normalizations folded.
    last, pixels = (
        deepcopy(network).to(memory_format=torch.channels_last),
        images.contiguous(memory_format=torch.channels_last),
    )
    softmax = partial(torch.softmax, dim=-1)

    def ours(preset: str, metrics: Any) -> Callable[[], object]:
        chosen = replace(load_faithfulness(preset), metrics=metrics)

        def measure() -> None:
            with Folding(last).active(32):
                measure_faithfulness(last, pixels, {"cam": maps}, targets, chosen)

        return measure

    def torchcams(kind: type) -> Callable[[], object]:
        def measure() -> None:
            with CAM(network, "layer4", "fc") as extractor:
                kind(extractor, softmax).update(images.clone())

        return measure

    pairs = {
        "deletion and insertion, 20 steps": (
            "torchcam", torchcams(DeletionInsertionMetric), ours("torchcam", ["deletion", "insertion"]),
        ),
        "average drop and increase": (
            "torchcam", torchcams(ClassificationMetric), ours("torchcam", ["average_drop", "increase"]),
        ),
        "drop": (
            "grad-cam", lambda: DropInConfidence()(images, large, outputs, network),
            ours("gradcam_library", ["average_drop"]),
        ),
        "ROAD, 9 shares, both orders": (
            "grad-cam", lambda: ROADCombined()(images, large, outputs, network), ours("gradcam_library", ["road"]),
        ),
    }  # fmt: skip
    rows = []
    for name, (library, theirs, mine) in pairs.items():
        theirs(), mine()
        seconds = np.array([[timed(job, thread=True).cpu for job in (theirs, mine)] for _ in range(options.rounds)])
        ratios = seconds[:, 0] / seconds[:, 1]
        their_time, my_time = median(seconds[:, 0]), median(seconds[:, 1])
        rows.append(
            f"| {name} | {library} | {their_time:.2f} | {my_time:.2f} | "
            f"{median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f}) |"
        )
        print(rows[-1], flush=True)
    text = [
        "# Faithfulness: time beside the libraries' own",
        "",
        f"`python scripts/bench_faithfulness.py --images {options.images} --rounds {options.rounds}`, "
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, one thread, {options.load}; "
        f"ResNet-18 at 224 × 224, {options.images} images; seconds of processor time, medians; the ratio is theirs to "
        "ours, round by round. Both make as many passes; wsol's network is channels last, with "
        "batch normalizations folded, as `evaluate` runs it.",
        "",
        "| what | library | theirs | wsol | times as fast |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        "The libraries' numbers are the presets' `torchcam` and `gradcam_library`: equal to 1e-5 in the tests.",
    ]
    options.out.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
