"""Presets against the papers' own figures, and against their rules written plainly: every truth, box and IoU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsol
from wsol.localization import box_iou, protocol_names, truth_boxes

papers = pytest.importorskip("tests.localization.papers")
RULES = json.loads((Path(__file__).parents[1] / "golden" / "rules.json").read_text())
IVR = {
    "kim2021_pas": {"normalization": "percentile", "normalization_percentiles": (0, 0.9)},
    "kim2021_max": {"normalization": "max"},
    "kim2021_minmax": {"normalization": "minmax"},
}
VALUES = [name for name in RULES if name[0] != "_" and name != "kim2021_normalization"]
SINGLE = 2e-6  # some of the papers' functions reckon in float32


def preset(name: str, dataset: str = "cub") -> wsol.Protocol:
    protocol = wsol.load_protocol("kim2021_ivr" if name in IVR else name).for_dataset(dataset)
    return replace(protocol, **IVR.get(name, {}))


def test_there_are_all_presets() -> None:
    unverified = {"exact", "selvaraju2017", "zhou2016"}
    assert set(protocol_names()) == {*papers.PAPERS, *papers.READY, *unverified} and len(protocol_names()) == 24
    for name in protocol_names():
        text = (wsol.io.conf_dir() / "protocol" / f"{name}.yaml").read_text(encoding="utf-8")
        assert ("# Unverified" in text) == (name in unverified) != ("erified against values" in text), name


@pytest.mark.parametrize("name", VALUES)
def test_values_that_the_papers_own_functions_gave(name: str) -> None:
    for entry in RULES[name]:
        protocol = preset(name, "ilsvrc" if "ILSVRC function" in entry["note"] else "cub")
        if entry["stage"] in ("box", "pipeline"):
            assert_box(entry, protocol)
        elif entry["iou"] is not None:
            boxes, truth = np.atleast_2d(entry["box"]), np.atleast_2d(entry["gt"])
            iou = box_iou(boxes, truth, protocol.iou_convention, protocol.iou_clamped)
            assert iou.max() == pytest.approx(entry["iou"], abs=SINGLE), entry["note"]


def assert_box(entry: dict[str, Any], protocol: wsol.Protocol) -> None:
    size = "heatmap" if protocol.size == "heatmap" else tuple(entry["view"])
    protocol = replace(protocol, size=size, threshold=entry["threshold"])
    score_map = wsol.score_map(np.array(entry["map"]), protocol)
    scale = entry["view"][0] / score_map.shape[1]
    sweep = wsol.sweep_thresholds(score_map, np.atleast_2d(entry["gt"]) / scale, protocol)
    best = "boxes" in entry or protocol.component == "union"
    box, iou = sweep.at(protocol.threshold_index(entry["threshold"]), protocol.component if best else "largest")
    assert (scale * box).tolist() == entry["box"], entry["note"]
    assert iou == pytest.approx(entry["iou"], abs=SINGLE), entry["note"]


@pytest.mark.parametrize(
    "entry", RULES["kim2021_normalization"], ids=lambda entry: f"{entry['method']} {entry['note']}"
)
def test_normalizations_of_ivr(entry: dict[str, Any]) -> None:
    heatmap = np.array(entry["map"])
    protocol = preset("kim2021_ivr" if entry["method"] == "ivr" else f"kim2021_{entry['method']}")
    values = wsol.score_map(heatmap, replace(protocol, size=heatmap.shape[::-1]))
    assert np.abs(values - entry["normalized"]).max() < SINGLE


@pytest.mark.parametrize("entry", RULES["_truths"], ids=lambda entry: f"{entry['dataset']} {entry['image_size']}")
def test_ground_truth_in_each_view(entry: dict[str, Any]) -> None:
    dataset, size = entry["dataset"].lower(), tuple(entry["image_size"])
    annotated = entry["boxes_xyxy"] if dataset == "ilsvrc" else papers.corners("cub", [entry["xywh"]])
    for title, expected in entry["in_view"].items():
        name = title.split()[0]
        protocol, boxes = preset(name, dataset), np.array(annotated, np.float64)
        if name == "choe2020":  # their metadata hold integers
            boxes = np.trunc(boxes)
        pixels = (448, 448) if protocol.size == "heatmap" else protocol.evaluation_size(size)
        seen = truth_boxes(boxes, protocol, size, pixels)
        # BAS and CCAM keep them in float32, of which 448 has steps of 3e-5.
        accuracy = 3e-5 if name in ("wu2022_bas", "xie2022_ccam") else 1e-9
        assert seen == pytest.approx(np.atleast_2d(expected), abs=accuracy), title


def maps(count: int) -> list[np.ndarray]:
    """Maps of 7, 14 and 28 cells in [-1, 1]: noisy, smooth, both, tied, sparse, negative, constant, zero."""
    generator, made = np.random.default_rng(17), []
    for number in range(count):
        side = (7, 14, 28)[number % 3]
        noise = generator.random((side, side))
        y, x = np.mgrid[:side, :side] / side
        at, width = generator.random(2), 0.1 + 0.3 * generator.random()
        hill = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / width**2)
        kinds = [noise, hill, hill + 0.3 * noise, 2 * noise - 1, np.round(4 * noise) / 4, noise * (noise > 0.8)]
        kinds += [hill - 0.5, -noise, np.full((side, side), 0.5), np.zeros((side, side))]
        made.append(kinds[number % 10] / max(np.abs(kinds[number % 10]).max(), 1e-9) if number % 10 != 8 else kinds[8])
    return made


def annotations(generator: np.random.Generator, dataset: str) -> tuple[list[list[float]], tuple[int, int]]:
    """True boxes as a dataset's files have them, and the size of their image."""
    width, height = (int(side) for side in generator.integers(60, 640, 2))
    count = 1 if dataset == "cub" else int(generator.integers(1, 4))
    across = np.sort(generator.integers(0, width, (count, 2)), axis=1)
    down = np.sort(generator.integers(0, height, (count, 2)), axis=1)
    boxes = np.stack([across[:, 0], down[:, 0], across[:, 1], down[:, 1]], axis=1).astype(float)
    return (boxes - [0, 0, 1, 1] * boxes[:, [0, 1, 0, 1]] if dataset == "cub" else boxes).tolist(), (width, height)


@pytest.mark.parametrize("name", [*papers.PAPERS, *papers.READY])
def test_ground_truth_and_boxes_of_plain_functions(name: str) -> None:
    truth, iou_of = papers.READY.get(name) or (papers.PAPERS[name].truth, papers.PAPERS[name].iou)
    generator = np.random.default_rng(3)
    for number in range(200):
        dataset = ("cub", "ilsvrc")[number % 2]
        protocol, (boxes, size) = preset(name, dataset), annotations(generator, dataset)
        pixels = (448, 448) if protocol.size == "heatmap" else protocol.evaluation_size(size)
        seen = truth_boxes(np.array(papers.corners(dataset, boxes)), protocol, size, pixels)
        expected = truth(dataset, boxes, *size)
        assert np.abs(seen - expected).max() <= (1e-9 if protocol.truth_rounding == "none" else 0), (boxes, size)
        iou = papers.unclamped_corner_iou if (name, dataset) == ("xie2022_ccam", "ilsvrc") else iou_of
        predicted = np.sort(generator.uniform(0, 200, (2, 2)).round(2), axis=0).ravel().tolist()
        ious = box_iou(np.array([predicted]), seen, protocol.iou_convention, protocol.iou_clamped)
        assert ious.max() == pytest.approx(max(iou(predicted, box) for box in expected), abs=1e-9), (boxes, size)


@pytest.mark.parametrize("count", [30, pytest.param(100, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", papers.PAPERS)
def test_boxes_of_plain_functions_on_so_many_maps(name: str, count: int) -> None:
    paper, protocol, generator = papers.PAPERS[name], preset(name), np.random.default_rng(5)
    if name == "pan2021_spa":
        protocol = replace(protocol, size=(300, 240))
    for heatmap in maps(count):
        if protocol.normalization == "none":
            heatmap = np.clip(heatmap, 0, 1)
        score_map = wsol.score_map(heatmap, protocol)
        scale = 448 / score_map.shape[1] if protocol.size == "heatmap" else 1.0
        truth = np.sort(generator.integers(0, score_map.shape[0] // 2, 4) * [1, 1, 2, 2]).astype(float)
        for tau in paper.thresholds:
            rules = replace(protocol, threshold=tau)
            sweep = wsol.sweep_thresholds(score_map, truth, rules)
            box, iou = sweep.at(rules.threshold_index(tau), protocol.component)
            boxes = paper.box(heatmap, tau)
            every = boxes if protocol.component == "any" else [boxes]
            counted = truth_boxes(truth[None], protocol, None, score_map.shape[::-1])[0] * scale
            assert iou == pytest.approx(max(paper.iou(each, counted) for each in every), abs=1e-9), tau
            assert (scale * box).tolist() in np.array(every, float).tolist(), tau
