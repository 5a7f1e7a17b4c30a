"""Does a heatmap change when the network forgets what it learned? Weights are drawn anew from the top, layer by layer.

python scripts/sanity_checks.py [--images 32] [--model shapes | efficientnet_lite0] → results/sanity_checks.md

Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: a method whose maps stay as they are says nothing about
the network. Similarity is Spearman's rank correlation of a map with the trained network's, mean over images.
"""

from __future__ import annotations

import argparse
import platform
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

import wsol
from wsol.datasets.views import View

TARGET = Path(__file__).resolve().parents[1] / "results" / "sanity_checks.md"
METHODS = ("cam", "gradcam", "gradcampp", "hirescam", "layercam", "eigencam", "fem", "scorecam", "fullgrad", "saliency",
           "guidedbackprop", "smoothgrad", "integratedgradients", "center")  # fmt: skip
SHOWN = 5  # stages of forgetting


def forgetting(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Copies of a network in which more and more layers, from the last one down, have the weights of a beginner."""
    names = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][::-1]
    cuts = np.unique(np.linspace(1, len(names), SHOWN).round().astype(int))
    copies = []
    for cut in cuts:
        changed = deepcopy(network)
        torch.manual_seed(0)
        for name in names[:cut]:
            changed.get_submodule(name).reset_parameters()  # type: ignore[operator]
        copies.append((f"{cut} of {len(names)} layers", changed))
    return copies


def heatmaps(classifier: wsol.Classifier, images: torch.Tensor, targets: list[int], methods: tuple[str, ...]) -> dict:
    """Maps of every method, flat: (B, h·w) each; all networks are asked for the same classes."""
    with wsol.HeatmapExtractor(classifier, methods) as extractor:
        maps = extractor(images, torch.tensor(targets)).maps
    return {name: values.flatten(1).double().numpy() for name, values in maps.items()}


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--methods", default=",".join(METHODS))
    options = parser.parse_args()
    start, classifier = time.time(), wsol.models.shapes_classifier()
    dataset = wsol.datasets.Shapes(length=options.images)
    view = View("squash", classifier.input_size)
    pixels = [view.apply(sample.read_image(), classifier.interpolation)[0] for sample in dataset]
    images, targets = classifier.prepare(torch.cat(pixels)), dataset.labels.tolist()
    methods = tuple(options.methods.split(","))
    trained, stages = heatmaps(classifier, images, targets, methods), forgetting(classifier.module)
    table: dict[str, list[str]] = {name: [] for name in methods}
    for _, network in stages:
        changed = deepcopy(classifier)
        changed.module = network
        for name, maps in heatmaps(changed, images, targets, methods).items():
            pairs = zip(trained[name], maps, strict=True)
            likeness = [spearmanr(*pair).statistic for pair in pairs if np.ptp(pair[0]) > 0 and np.ptp(pair[1]) > 0]
            table[name].append(f"{np.mean(likeness):.2f}" if likeness else "constant")
            print(name, table[name], flush=True)
    rows = [f"| `{name}` | " + " | ".join(cells) + " |" for name, cells in table.items()]
    made = f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {time.time() - start:.0f} s"
    text = [
        "# Does the map change when the network forgets?",
        "",
        f"`python scripts/sanity_checks.py --images {options.images}`, {made}.",
        "",
        f"The shipped Shapes network, {options.images} test images, the true class. More and more layers, from the "
        "last one down, get the weights of a beginner; a number is Spearman's rank correlation of the map with that of "
        "the trained network, mean over images (Adebayo et al., NeurIPS 2018). 1: the map doesn't care what the "
        "network knows. Batch normalizations keep what they learned.",
        "",
        "| method | " + " | ".join(name for name, _ in stages) + " |",
        "| --- |" + " ---: |" * len(stages),
        *rows,
    ]
    TARGET.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
