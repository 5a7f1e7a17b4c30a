"""`wsol explain`: what a classifier sees in an image, and where, as one picture."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from wsol.commands.task import Job
from wsol.config import build_dataset, build_methods, build_model, build_protocols, call, to_dict
from wsol.console import print_line, print_table
from wsol.datasets import Dataset, Sample
from wsol.datasets.images import read_upright
from wsol.errors import UserError, closest, suggest
from wsol.explain import Explanation, explain
from wsol.io import expand_path
from wsol.models import Classifier
from wsol.report.figures import save_figure
from wsol.report.pictures import check_color_map, draw_explanation

KINDS = (".png", ".svg", ".pdf")
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".tif", ".tiff", ".webp")
SEEN = {"squash": "whole image", "crop": "center of the image", "tencrop": "ten crops of the image"}


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
    objects = {"classifier": classifier, "methods": methods, "protocol": next(iter(protocols.values()))}
    objects |= {"targets": _as_list(settings["target"]), "show_progress": cfg.progress and job.verbose}
    for sample, output in zip(_samples(files, dataset, settings["sample"]), outputs, strict=True):
        explanation = call(explain, cfg, image=sample.read_image(), **objects)
        label = "" if dataset is None else f"The image shows: {dataset.classes[sample.label]}. "
        figure = draw_explanation(
            explanation, label + _remarks(classifier, explanation, cfg), sample.boxes, cfg.color_map
        )
        output.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure, output.with_suffix(""), [output.suffix[1:]])
        if job.verbose:
            _print(sample.sample_id, explanation, output)
    return {}


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _files(image: Any) -> list[Path]:
    """Image files that were asked for; none where the dataset is meant."""
    files: list[Path] = []
    for path in (Path(str(name)).expanduser() for name in _as_list(image)):
        inside = [file for file in sorted(path.iterdir()) if file.suffix.lower() in ENDINGS] if path.is_dir() else []
        if not inside and not path.is_file():
            beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
            reason = f"no image is in it ({', '.join(ENDINGS)})" if path.is_dir() else "there is no such file"
            raise UserError(
                f"image={path}: {reason}; beside it: {', '.join(closest(path.name, beside)) or 'none like it'}"
            )
        files += inside or [path]
    if image is not None and not files:
        raise UserError("image=[]: pass a file, several, or a folder")
    return files


def _samples(files: Sequence[Path], dataset: Dataset | None, wanted: Any) -> Iterator[Sample]:
    """Each image with its name and, of a dataset, its class and ground truth."""
    for path in files:
        yield Sample(sample_id=path.stem, label=0, image=read_upright(path))
    if dataset is None:
        return
    ids = list(dataset.table["sample_id"])
    if wanted not in (*ids, *range(len(ids))) or isinstance(wanted, bool):
        there = f"; its samples are 0 to {len(ids) - 1}, or by name" + suggest(wanted, ids)
        raise UserError(f"sample={wanted}: {dataset.name} ({dataset.split}) has no such sample{there}")
    yield dataset[wanted if isinstance(wanted, int) else ids.index(wanted)]


def _outputs(output: Path | None, run_dir: Path, stems: Sequence[str]) -> list[Path]:
    """Where each picture goes; images of one name get numbers."""
    is_file = output is not None and output.suffix in KINDS
    if output is not None and is_file != (len(stems) <= 1):
        wanted = f"a file that ends in {', '.join(KINDS)}" if len(stems) <= 1 else "a folder"
        raise UserError(f"output={output}: pass {wanted} for {len(stems) or 1} images")
    if output is not None and is_file:
        return [output]
    names: list[str] = []
    for stem in stems or ["sample"]:
        candidates = (stem if number == 1 else f"{stem}_{number}" for number in count(1))
        names.append(next(name for name in candidates if name not in names))
    return [(output or run_dir) / f"explain_{name}.png" for name in names]


def _remarks(classifier: Classifier, explanation: Explanation, cfg: DictConfig) -> str:
    methods_at: dict[str, list[str]] = {}
    for method, layer in explanation.layers.items():
        methods_at.setdefault(layer, []).append(method)
    layers = "".join(f", {' and '.join(methods)} at {layer}" for layer, methods in methods_at.items() if layer)
    mirrored = ", also mirrored," if cfg.flip and cfg.view != "tencrop" else ""
    height, width = classifier.input_size
    weights = f"weights: {Path(classifier.weights).name}"
    return f"{classifier.name} ({weights}){layers}; the {SEEN[cfg.view]}{mirrored} at {width} × {height} pixels."


def _print(name: str, explanation: Explanation, output: Path) -> None:
    rows = []
    for answer in explanation.answers:
        for method, region in answer.regions.items():
            box = "none" if region.box is None else " ".join(f"{side:.0f}" for side in region.box)
            rows.append([str(answer.rank), answer.name, f"{100 * answer.probability:.1f}", method, box])
    frame = pd.DataFrame(rows, columns=["rank", "class", "%", "method", "box (x0 y0 x1 y1)"])
    print_table(frame, name, keys=("rank", "class"))
    print_line(f"Picture: {output}")
