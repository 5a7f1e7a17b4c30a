"""`wsol explain`: what a classifier sees in an image, and where, as one picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from wsol.commands.task import Job
from wsol.config import build_dataset, build_methods, build_model, build_protocols, call, to_dict
from wsol.console import print_line, print_table
from wsol.datasets import Dataset
from wsol.datasets.images import read_upright
from wsol.errors import UserError, closest, suggest
from wsol.explain import Explanation, explain
from wsol.io import expand_path
from wsol.models import Classifier
from wsol.report.figures import save_figure
from wsol.report.pictures import check_color_map, draw_explanation

__all__ = ["run"]

KINDS = (".png", ".svg", ".pdf")
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".tif", ".tiff", ".webp")
LOOKS = {"squash": "whole image", "crop": "center of the image", "tencrop": "ten crops of the image"}


@dataclass(frozen=True, eq=False)
class Picture:
    """An image to explain: what to call it, its pixels and, where they are known, its class and ground truth."""

    name: str
    pixels: np.ndarray  # (H, W, 3)
    label: str = ""
    gt_boxes: np.ndarray | None = None  # (G, 4)


def run(cfg: DictConfig, job: Job) -> Mapping[str, object]:
    """Image + classifier + methods + protocol → one picture, in the job's folder or where `output` says."""
    settings = to_dict(cfg)
    check_color_map(str(cfg.color_map))
    methods, protocols = build_methods(cfg.methods), build_protocols(cfg.protocols)
    if len(protocols) > 1:
        raise UserError(f"protocol=[{','.join(protocols)}]: one picture shows the boxes of one protocol; choose one")
    files = _files(settings["image"])
    dataset = None if files else build_dataset(cfg.dataset)
    classifier = build_model(cfg.model, dataset)
    outputs = _outputs(expand_path(cfg.output), job.run_dir, [path.stem for path in files])
    for picture, output in zip(_pictures(files, dataset, settings["sample"]), outputs, strict=True):
        explanation = call(
            explain,
            cfg,
            image=picture.pixels,
            classifier=classifier,
            methods=methods,
            protocol=next(iter(protocols.values())),
            targets=_as_list(settings["target"]),
            show_progress=cfg.progress and job.verbose,
        )
        caption = _caption(picture, classifier, explanation, cfg)
        figure = draw_explanation(explanation, caption, picture.gt_boxes, cfg.color_map)
        output.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure, output.with_suffix(""), [output.suffix[1:]])
        if job.verbose:
            _print(picture, explanation, output)
    return {}


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _files(image: Any) -> list[Path]:
    """Image files that were asked for; none where the dataset is meant."""
    files: list[Path] = []
    for name in _as_list(image):
        path = Path(str(name)).expanduser()
        inside = [file for file in sorted(path.iterdir()) if file.suffix.lower() in ENDINGS] if path.is_dir() else []
        if not inside and not path.is_file():
            beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
            reason = f"no image is in it ({', '.join(ENDINGS)})" if path.is_dir() else "there is no such file"
            raise UserError(
                f"image={path}: {reason}; close to it: {', '.join(closest(path.name, beside)) or 'nothing'}"
            )
        files += inside or [path]
    if image is not None and not files:
        raise UserError("image=[]: pass a file, several, or a folder")
    return files


def _pictures(files: Sequence[Path], dataset: Dataset | None, sample: Any) -> Iterator[Picture]:
    for path in files:
        yield Picture(path.stem, read_upright(path))
    if dataset is not None:
        chosen = dataset[_position(dataset, sample)]
        yield Picture(chosen.sample_id, chosen.read_image(), dataset.classes[chosen.label], chosen.boxes)


def _position(dataset: Dataset, sample: Any) -> int:
    if isinstance(sample, int) and not isinstance(sample, bool):
        if 0 <= sample < len(dataset):
            return sample
        raise UserError(f"sample={sample}: {dataset.name} ({dataset.split}) has samples 0 to {len(dataset) - 1}")
    ids = list(dataset.table["sample_id"])
    if sample not in ids:
        raise UserError(f"sample={sample}: {dataset.name} ({dataset.split}) has no such sample{suggest(sample, ids)}")
    return ids.index(sample)


def _outputs(output: Path | None, run_dir: Path, stems: Sequence[str]) -> list[Path]:
    """Where each picture goes; images of one name get numbers."""
    if output is not None and len(stems) <= 1:
        if output.suffix not in KINDS:
            raise UserError(f"output={output}: pass a file that ends in {', '.join(KINDS)}")
        return [output]
    if output is not None and output.suffix in KINDS:
        raise UserError(f"output={output}: there are {len(stems)} images, so pass a folder")
    names: list[str] = []
    for stem in stems or ["sample"]:
        candidates = (stem if number == 1 else f"{stem}_{number}" for number in count(1))
        names.append(next(name for name in candidates if name not in names))
    return [(output or run_dir) / f"explain_{name}.png" for name in names]


def _caption(picture: Picture, classifier: Classifier, explanation: Explanation, cfg: DictConfig) -> str:
    methods_at: dict[str, list[str]] = {}
    for method, layer in explanation.layers.items():
        if layer:
            methods_at.setdefault(layer, []).append(method)
    several = len(methods_at) > 1
    layers = [f"{', '.join(own)} at {layer}" if several else f"layer {layer}" for layer, own in methods_at.items()]
    mirrored = ", also mirrored," if cfg.flip and cfg.view != "tencrop" else ""
    label = f"The image shows: {picture.label}. " if picture.label else ""
    height, width = classifier.input_size
    return (
        f"{label}{classifier.name} (weights: {Path(classifier.weights).name})"
        f"{', ' if layers else ''}{'; '.join(layers)}; the {LOOKS[cfg.view]}{mirrored} at {width} × {height} pixels."
    )


def _print(picture: Picture, explanation: Explanation, output: Path) -> None:
    rows = []
    for answer in explanation.answers:
        for method, region in answer.regions.items():
            box = "none" if region.box is None else " ".join(f"{side:.0f}" for side in region.box)
            rows.append([str(answer.rank), answer.name, f"{100 * answer.probability:.1f}", method, box])
    frame = pd.DataFrame(rows, columns=["rank", "class", "%", "method", "box (x0 y0 x1 y1)"])
    print_table(frame, picture.name, keys=("rank", "class"))
    print_line(f"Picture: {output}")
