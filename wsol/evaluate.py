"""The main job, top to bottom: a dataset, a classifier, methods and protocols in, tables out."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsol.assemble import assemble, finish, read_samples, true_boxes
from wsol.datasets.class_map import map_classes
from wsol.datasets.sample import Dataset
from wsol.datasets.subset import First
from wsol.environment import describe_environment
from wsol.errors import UserError
from wsol.heatmaps.collect import collect_heatmaps, count_logits
from wsol.heatmaps.method import Method, make_method
from wsol.heatmaps.store import HeatmapStore
from wsol.localization import Protocol, load_protocol
from wsol.models import Classifier, default_layer
from wsol.models.device import choose_device
from wsol.tables import Results
from wsol.thresholds import thresholds_of

__all__ = ["evaluate", "score"]

logger = logging.getLogger("wsol")


def evaluate(
    dataset: Dataset,
    model: Classifier | nn.Module,
    methods: Sequence[str] | Mapping[str, Method] = ("cam", "gradcam", "center"),
    protocols: Sequence[str] | Mapping[str, Protocol] = ("choe2020", "choe2020_v2"),
    *,
    view: str = "squash",
    batch_size: int = 64,
    workers: int = 2,
    device: str = "auto",
    seed: int = 0,
    on_error: str = "stop",
    predict_over: str = "all",
    class_map: str | Path | None = None,
    threshold_from: Path | str | None = None,
    pictures: int = 12,
    limit: int | None = None,
    run_dir: Path | str | None = None,
    config: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Results:
    """Measure how well a classifier's heatmaps say where the object is.

    Parameters
    ----------
    dataset : Dataset
        With boxes or masks.
    model : Classifier or nn.Module
        A plain module is shown images of 224 × 224 with ImageNet's mean and standard deviation. It stays on the
        device, in channels-last memory, when this returns.
    methods : sequence of names, or dict of name to Method
    protocols : sequence of names, or dict of name to Protocol
    view : str
        How an image becomes the network's input: "squash" or "crop".
    batch_size, workers : int
        Images per forward pass; threads that load and score.
    device : str
        "auto", "cpu", "cuda", …
    seed : int
        For the random baseline.
    on_error : "stop" or "skip"
        An image that can't be read stops the run, or counts as a miss and is named.
    predict_over : "all" or "present"
        Classes that compete: all of the model's, or the dataset's only.
    class_map : "id", "name", "position" or a file, optional
        How the dataset's classes meet the logits; by default by id, then by name.
    threshold_from : path, optional
        A run on another split; its thresholds are used here.
    pictures : int
        Example pictures in `run_dir/figures`.
    limit : int, optional
        Only the first so many samples.
    run_dir : path, optional
        Where tables, heatmaps and pictures go; None: nowhere.
    config : mapping, optional
        Written to `config.yaml`.
    progress : bool

    Returns
    -------
    Results
        With `.summary`, `.metrics`, `.per_image`, `.curves`, `.sweeps`, `.samples` as DataFrames.

    Raises
    ------
    UserError
        If something doesn't fit: classes, layers, boxes, files.

    Examples
    --------
    >>> from wsol.datasets import Shapes
    >>> from wsol.models import shapes_classifier
    >>> results = evaluate(Shapes(length=8), shapes_classifier(), methods=["cam"], progress=False)
    >>> results.summary["max_box_acc_v2"].notna().tolist()
    [False, True]
    """
    began, target = time.time(), choose_device(device)
    dataset = dataset if limit is None else First(dataset, limit)
    classifier = model if isinstance(model, Classifier) else _wrap(model)
    classifier.module.to(target).to(memory_format=torch.channels_last)
    rules, boxes, logits = _protocols(protocols), true_boxes(dataset), count_logits(classifier, target)
    mapping = map_classes(dataset.classes, dataset.ids, classifier.classes, classifier.class_ids, logits, class_map)
    notes = [*mapping.notes, *_knob_notes(dataset, classifier)]
    for note in notes:
        logger.warning("%s", note)
    source: dict[str, Any] = {"dataset": dataset.name, "split": dataset.split, "model": classifier.name}
    source |= {"weights": classifier.weights, "view": view, "class_map": mapping.how, "predict_over": predict_over}
    source["competing"] = logits if predict_over == "all" else len(mapping.present)
    chosen = _methods(methods)
    given = None if threshold_from is None else thresholds_of(threshold_from, source, chosen, rules)
    folder = None if run_dir is None else Path(run_dir)
    store, samples = collect_heatmaps(
        dataset,
        classifier,
        chosen,
        mapping,
        view=view,
        predict_over=predict_over,
        batch_size=batch_size,
        workers=workers,
        device=target,
        seed=seed,
        on_error=on_error,
        folder=None if folder is None else folder / "heatmaps",
        source=source,
        show_progress=progress,
    )
    results = assemble(dataset, store, samples, boxes, rules, given, workers, progress)
    environment = describe_environment(began, target, source, notes)
    return finish(results, dataset, store, pictures, folder, environment, config)


def score(
    dataset: Dataset,
    heatmaps: Path | str,
    protocols: Sequence[str] | Mapping[str, Protocol] = ("choe2020", "choe2020_v2"),
    *,
    threshold_from: Path | str | None = None,
    workers: int = 2,
    limit: int | None = None,
    pictures: int = 0,
    run_dir: Path | str | None = None,
    config: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Results:
    """Make a run's tables again from its heatmaps, under any protocols, without the network.

    Parameters
    ----------
    dataset : Dataset
        The one that the heatmaps were made on; images are read for pictures only.
    heatmaps : path
        `heatmaps/` of a run; its `samples.parquet`, one folder up, has the predictions.
    protocols, threshold_from, workers, limit, pictures, run_dir, config, progress
        As in `evaluate`.

    Raises
    ------
    UserError
        If the folder is no run's, or the dataset has other samples.
    """
    began = time.time()
    dataset = dataset if limit is None else First(dataset, limit)
    rules, store = _protocols(protocols), HeatmapStore.open(Path(heatmaps).expanduser())
    samples = read_samples(dataset, store, Path(heatmaps).expanduser().parent, part=limit is not None)
    given = None if threshold_from is None else thresholds_of(threshold_from, store.source, store.methods, rules)
    results = assemble(dataset, store, samples, true_boxes(dataset), rules, given, workers, progress)
    environment = describe_environment(began, torch.device("cpu"), store.source, [])
    return finish(results, dataset, store, pictures, None if run_dir is None else Path(run_dir), environment, config)


def _methods(methods: Sequence[str] | Mapping[str, Method]) -> dict[str, Method]:
    named = methods if isinstance(methods, Mapping) else {name: make_method(name) for name in methods}
    if not named:
        raise UserError("no methods: choose at least one, such as cam")
    return dict(named)


def _protocols(protocols: Sequence[str] | Mapping[str, Protocol]) -> dict[str, Protocol]:
    named = protocols if isinstance(protocols, Mapping) else {name: load_protocol(name) for name in protocols}
    if not named:
        raise UserError("no protocols: choose at least one, such as choe2020")
    return {name: protocol.for_many_maps() for name, protocol in named.items()}


def _wrap(module: nn.Module) -> Classifier:
    return Classifier(name=type(module).__name__.lower(), module=module, layer=default_layer(module))


def _knob_notes(dataset: Dataset, classifier: Classifier) -> list[str]:
    """Say it when weights were trained for generated data of another kind."""
    other = [
        f"{knob}={value} (trained for {classifier.knobs[knob]})"
        for knob, value in dataset.knobs.items()
        if knob in classifier.knobs and classifier.knobs[knob] != value
    ]
    if not other:
        return []
    return [f"the weights ({classifier.weights}) were not trained for this {dataset.name} set: {', '.join(other)}"]
