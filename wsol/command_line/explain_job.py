"""`wsol explain`: what a classifier sees in an image, and where, as one picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import DictConfig

from wsol.command_line.arguments import nearest
from wsol.command_line.values import check_values
from wsol.config import build_dataset, build_methods, build_model, build_protocols, check_root_keys, plain
from wsol.errors import UserError
from wsol.io import expand_path

if TYPE_CHECKING:
    import numpy as np

    from wsol.datasets import Dataset
    from wsol.datasets.views import View
    from wsol.explain import Explanation
    from wsol.models import Classifier

__all__ = ["explain_job"]

KINDS = ("png", "svg", "pdf")
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False)
class Picture:
    """An image to explain: what to call it, its pixels and, where they are known, its class and true boxes."""

    name: str
    pixels: np.ndarray
    label: str = ""
    truth: np.ndarray | None = None


def explain_job(cfg: DictConfig, run_dir: Path, overrides: Sequence[str], say: bool) -> Mapping[str, object]:
    """Image + classifier + methods + protocol → one picture, in `run_dir` or where `output` says."""
    check_root_keys(cfg)
    settings = plain(cfg)
    check_values(settings)
    from wsol.datasets.views import View  # not above: torch is not loaded for --help
    from wsol.explain import explain
    from wsol.report.saving import save_figure
    from wsol.report.side_by_side import check_color_map, draw_side_by_side

    check_color_map(str(cfg.color_map))
    methods, protocols = build_methods(cfg.methods), build_protocols(cfg.protocols)
    if len(protocols) > 1:
        raise UserError(f"protocol=[{','.join(protocols)}]: one picture shows the boxes of one protocol; choose one")
    files = _files(settings["image"])
    dataset = None if files else build_dataset(cfg.dataset)
    classifier = build_model(cfg.model, dataset)
    outputs = _outputs(expand_path(cfg.output), run_dir, [path.stem for path in files])
    for picture, output in zip(_pictures(files, dataset, settings["sample"]), outputs, strict=True):
        found = explain(
            picture.pixels,
            classifier,
            methods,
            next(iter(protocols.values())),
            targets=_listed(settings["target"]),
            top=settings["top"],
            threshold=settings["threshold"],
            view=cfg.view,
            flip=cfg.flip,
            score=cfg.score,
            device=cfg.device,
            seed=cfg.seed,
            chunk=cfg.chunk,
            show_progress=cfg.progress and say,
        )
        about = _about(picture, classifier, found, View(cfg.view, classifier.input_size, cfg.flip))
        figure = draw_side_by_side(found, about, picture.truth, cfg.color_map)
        output.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure, output.with_suffix(""), [output.suffix[1:]])
        if say:
            _tell(picture, found, output)
    return {}


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _files(image: Any) -> list[Path]:
    """Image files that were asked for; none where the dataset is meant."""
    files: list[Path] = []
    for given in _listed(image):
        path = Path(str(given)).expanduser()
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
            if not inside:
                raise UserError(f"image={path}: no image is in this folder ({', '.join(ENDINGS)})")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
            near = ", ".join(nearest(path.name, beside))
            raise UserError(f"image={path}: there is no such file" + (f"; beside it: {near}" if near else ""))
    if image is not None and not files:
        raise UserError("image=[]: pass a file, several, or a folder")
    return files


def _pictures(files: Sequence[Path], dataset: Dataset | None, sample: Any) -> Iterator[Picture]:
    from wsol.datasets.images import read_upright

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
    ids = [one.sample_id for one in dataset]
    if sample in ids:
        return ids.index(sample)
    near = ", ".join(nearest(str(sample), ids) or ids[:3])
    raise UserError(f"sample={sample}: {dataset.name} ({dataset.split}) has no such sample; there are {near}")


def _outputs(output: Path | None, run_dir: Path, stems: Sequence[str]) -> list[Path]:
    """Where each picture goes; images of one name get numbers."""
    if output is not None and len(stems) <= 1:
        if output.suffix[1:] not in KINDS:
            raise UserError(f"output={output}: pass a file that ends in .{', .'.join(KINDS)}")
        return [output]
    if output is not None and output.suffix[1:] in KINDS:
        raise UserError(f"output={output}: there are {len(stems)} images, so pass a folder")
    folder = run_dir if output is None else output
    names: list[str] = []
    for stem in stems or ["sample"]:
        numbered = (f"{stem}_{number}" for number in count(2))
        names.append(stem if stem not in names else next(name for name in numbered if name not in names))
    return [folder / f"explain_{name}.png" for name in names]


def _about(picture: Picture, classifier: Classifier, found: Explanation, view: View) -> str:
    layers: dict[str, list[str]] = {}
    for method, layer in found.layers.items():
        if layer:
            layers.setdefault(layer, []).append(method)
    several = len(layers) > 1
    where = "; ".join(f"{', '.join(own)} at {layer}" if several else f"layer {layer}" for layer, own in layers.items())
    height, width = classifier.input_size
    looked = {"squash": "whole image", "crop": "center of the image", "tencrop": "ten crops of the image"}[view.name]
    looked += ", also mirrored," if view.flip and view.name != "tencrop" else ""
    truth = f"The image shows: {picture.label}. " if picture.label else ""
    network = f"{classifier.name} (weights: {Path(classifier.weights).name}){f', {where}' if where else ''}"
    return f"{truth}{network}; the {looked} at {width} × {height} pixels."


def _tell(picture: Picture, found: Explanation, output: Path) -> None:
    from wsol.console import console, print_table

    rows = []
    for answer in found.answers:
        for method, region in answer.regions.items():
            box = "none" if region.box is None else " ".join(f"{side:.0f}" for side in region.box)
            rows.append([str(answer.rank), answer.name, f"{100 * answer.probability:.1f}", method, box])
    frame = pd.DataFrame(rows, columns=["rank", "class", "%", "method", "box (x0 y0 x1 y1)"])
    print_table(frame, picture.name, keys=("rank", "class"))
    console().print(f"Picture: {output}", soft_wrap=True, markup=False)
