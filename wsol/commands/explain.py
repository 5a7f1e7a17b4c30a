"""`wsol explain`: what a classifier sees in an image, and where, as one picture."""

from collections.abc import Mapping, Sequence
from functools import partial
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
from wsol.errors import UserError, suggest
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
    dataset = build_dataset(cfg.dataset) if settings["image"] is None else None
    classifier = build_model(cfg.model, dataset)
    samples = _pictures(_as_list(settings["image"])) if dataset is None else [_sample(dataset, settings["sample"])]
    stems = ["sample"] if dataset is not None else [sample.sample_id for sample in samples]
    outputs = _outputs(settings["output"], job.run_dir, stems)
    objects = {"classifier": classifier, "methods": methods, "protocol": next(iter(protocols.values()))}
    objects |= {"targets": _as_list(settings["target"]), "show_progress": cfg.progress and job.verbose}
    for sample, output in zip(samples, outputs, strict=True):
        explanation = call(explain, cfg, image=sample.read_image(), **objects)
        label = "" if dataset is None else f"The image shows: {dataset.classes[sample.label]}. "
        remarks = label + _remarks(classifier, explanation, cfg)
        figure = draw_explanation(explanation, remarks, sample.boxes, cfg.color_map)
        output.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure, output.with_suffix(""), [output.suffix[1:]])
        if job.verbose:
            _print(sample.sample_id, explanation, output)
    return {}


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _pictures(names: Sequence[object]) -> list[Sample]:
    """Image files, also those in a folder, as samples that have only a name."""
    files: list[Path] = []
    for path in (Path(str(name)).expanduser() for name in names):
        inside = sorted(path.iterdir()) if path.is_dir() else []
        files += [file for file in inside if file.suffix.lower() in ENDINGS] or [path]
    return [Sample(sample_id=path.stem, label=0, image=partial(read_upright, path)) for path in files]


def _sample(dataset: Dataset, wanted: int | str) -> Sample:
    """A sample of the dataset by its number or its name."""
    ids = list(dataset.table["sample_id"])
    if wanted not in (*ids, *range(len(ids))):
        raise UserError(
            f"sample={wanted}: {dataset.name} ({dataset.split}) has no such sample; its samples are 0 to "
            f"{len(ids) - 1}, or by name{suggest(wanted, ids)}"
        )
    return dataset[wanted if isinstance(wanted, int) else ids.index(wanted)]


def _outputs(output: str | None, run_dir: Path, stems: Sequence[str]) -> list[Path]:
    """Where each picture goes; images of one name get numbers."""
    path = expand_path(output) or run_dir
    if output is not None and len(stems) == 1:
        if path.suffix not in KINDS:
            raise UserError(f"output={output}: pass a file that ends in {', '.join(KINDS)}")
        return [path]
    names: list[str] = []
    for stem in stems:
        candidates = (stem if number == 1 else f"{stem}_{number}" for number in count(1))
        names.append(next(name for name in candidates if name not in names))
    return [path / f"explain_{name}.png" for name in names]


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
