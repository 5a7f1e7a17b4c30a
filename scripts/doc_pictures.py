"""Draw the pictures of the documentation with the program itself: python scripts/doc_pictures.py.

`docs/img/idea.png`, one image from pixels to IoU; `docs/img/curves.png`, accuracy over the threshold;
`docs/img/methods.png`, every method on one photograph (needs the extra `demo`; some minutes).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import skimage
import torch

import wsol
from wsol.datasets.views import View
from wsol.heatmaps.method import make_method, method_cards
from wsol.localization.boxes import to_image

matplotlib.use("agg")
from matplotlib import pyplot as plt

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "img"
SAMPLE, TAU = 8, 0.33
FEWER: dict[str, dict[str, Any]] = {
    "sscam": {"samples": 2},
    "iscam": {"steps": 2},
    "rise": {"masks": 1000},
}  # passes than by default
TRUTH, FOUND = "#ffffff", "#e69f00"


def draw_idea() -> None:
    """One image in five steps."""
    sample, classifier = wsol.datasets.Shapes()[SAMPLE], wsol.models.shapes_classifier()
    image = sample.read_image()
    pixels, _ = View("squash", classifier.input_size).apply(image, classifier.interpolation)
    with wsol.HeatmapExtractor(classifier, methods=("cam",)) as extractor:
        heatmap = extractor(classifier.prepare(pixels), [sample.label]).maps["cam"][0].double().numpy()
    protocol = wsol.load_protocol("choe2020")
    size = image.shape[1], image.shape[0]
    scores = wsol.score_map(heatmap, protocol, image_size=size)
    sweep = wsol.sweep_thresholds(scores, sample.boxes, protocol, image_size=size)
    at = protocol.threshold_index(TAU)
    box = to_image(sweep.to_inclusive().boxes_largest[at : at + 1], scores.shape[::-1], size)[0]
    figure, axes = plt.subplots(1, 5, figsize=(12.5, 2.9), layout="constrained")
    panels = [
        ("1. image", image, {}),
        (f"2. heatmap, {heatmap.shape[1]} × {heatmap.shape[0]}", heatmap, {"cmap": "inferno"}),
        ("3. score map, 224 × 224", scores, {"cmap": "inferno"}),
        (f"4. above τ = {TAU}", scores > TAU, {"cmap": "gray"}),
        (f"5. IoU {sweep.iou_largest[at]:.2f}", image, {}),
    ]
    for axis, (title, values, options) in zip(axes, panels, strict=True):
        axis.imshow(values, interpolation="nearest", **options)
        axis.set_title(title, fontsize=11)
        axis.axis("off")
    x0, y0, x1, y1 = sweep.to_inclusive().boxes_largest[at]
    axes[3].add_patch(plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=FOUND, linewidth=2))
    assert sample.boxes is not None
    for (x0, y0, x1, y1), color in ((sample.boxes[0], TRUTH), (box, FOUND)):
        axes[4].add_patch(plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=2.5))
    figure.savefig(IMAGES / "idea.png", dpi=110)
    plt.close(figure)


def draw_curves() -> None:
    """GT-known localization of three methods at every threshold."""
    results = wsol.evaluate(
        wsol.datasets.Shapes(), wsol.models.shapes_classifier(), ("cam", "gradcam", "center"), ("choe2020",)
    )
    curves = results.curves[np.isclose(results.curves["iou_threshold"], 0.5)]
    figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
    styles = {"cam": ("CAM", "#0072b2", "-"), "gradcam": ("Grad-CAM", "#d55e00", "-")}
    for method, (label, color, dash) in (styles | {"center": ("center", "#767c85", "--")}).items():
        curve = curves[curves["method"] == method]
        axis.plot(curve["threshold"], curve["gt_known_loc"], dash, color=color, label=label)
        best = curve.iloc[int(curve["gt_known_loc"].argmax())]
        axis.plot(best["threshold"], best["gt_known_loc"], "o", color=color)
    axis.set(xlabel="threshold τ", ylabel="GT-known localization in %", xlim=(0, 1), ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(IMAGES / "curves.png", dpi=110)
    plt.close(figure)


def draw_methods() -> None:
    """Every method that a convolutional network has, on scikit-image's photograph of a cat."""
    image, classifier = skimage.data.chelsea(), wsol.models.efficientnet_lite0()
    cards = {name: card for name, card in method_cards().items() if card.family != "transformer"}
    del cards["fullgrad"]  # which refuses a network whose ReLUs end at 6
    pixels, _ = View("squash", classifier.input_size).apply(image, classifier.interpolation)
    protocol, size = wsol.load_protocol("choe2020"), (image.shape[1], image.shape[0])
    cat = list(classifier.classes or ()).index("Egyptian cat")
    columns = 6
    figure, axes = plt.subplots(-(-len(cards) // columns), columns, figsize=(12.5, 8.6), layout="constrained")
    for axis, (name, card) in zip(axes.flat, cards.items(), strict=False):
        methods = {name: make_method(name, **FEWER.get(name, {}))}
        with wsol.HeatmapExtractor(classifier, methods=methods) as extractor:
            heatmap = extractor(classifier.prepare(pixels), [cat]).maps[name][0].double().numpy()
        axis.imshow(wsol.overlay(image, wsol.score_map(heatmap, protocol, image_size=size)))
        axis.set_title(card.title, fontsize=10)
    for axis in axes.flat:
        axis.axis("off")
    figure.savefig(IMAGES / "methods.png", dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    torch.manual_seed(0)
    draw_idea()
    draw_curves()
    draw_methods()
