"""The main job, top to bottom: a dataset, a classifier, methods and protocols in, tables out."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsol.assemble import assemble, finish, read_samples, true_boxes
from wsol.datasets.classes import map_classes
from wsol.datasets.sample import Dataset
from wsol.environment import describe_environment
from wsol.errors import UserError
from wsol.heatmaps.collect import collect_heatmaps, count_logits
from wsol.heatmaps.method import Method, expand_layers, make_method
from wsol.heatmaps.store import add_baselines, open_heatmaps
from wsol.localization import Protocol, load_protocol
from wsol.metrics.ready import resizing_notes
from wsol.models import Classifier, default_layer
from wsol.models.inference import choose_device
from wsol.predictions import read_predictions
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
    flip: bool = False,
    batch_size: int = 64,
    workers: int = 2,
    device: str = "auto",
    seed: int = 0,
    score: str | None = None,
    chunk: int = 32,
    on_error: str = "stop",
    predict_over: str = "all",
    class_map: str | Path | None = None,
    threshold_from: Path | str | None = None,
    threshold_from_test: bool = False,
    pictures: int = 12,
    report: bool = True,
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
        How an image becomes the network's input: "squash", "crop" or "tencrop".
    flip : bool
        Show every image mirrored as well; the heatmaps are turned back and averaged.
    batch_size, workers : int
        Images per forward pass; threads that load and score.
    device : str
        "auto", "cpu", "cuda", …
    seed : int
        For the random baseline, and for methods that draw masks or noise.
    score : "logit", "log_prob", "prob" or "rest", optional
        What gradient methods differentiate; by default the logit (ShapleyCAM: `rest`; RISE and occlusion: `prob`).
    chunk : int
        Images in each further pass of methods that need several: their memory bound.
    on_error : "stop" or "skip"
        An image that can't be read stops the run, or counts as a miss and is named.
    predict_over : "all" or "present"
        Classes that compete: all of the model's, or the dataset's only.
    class_map : "id", "name", "position" or a file, optional
        How the dataset's classes meet the logits; by default by id, then by name.
    threshold_from : path, optional
        A run on another split; its thresholds are used here.
    threshold_from_test : bool
        Whether that may be a split whose role is "test"; the tables then say so.
    pictures : int
        Example pictures in `run_dir/figures`.
    report : bool
        Whether to write `run_dir/report.html` and its figures.
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
    dataset = dataset if limit is None else dataset.first(limit)
    classifier = model if isinstance(model, Classifier) else _wrap(model)
    classifier.module.to(target)
    rules, boxes, logits = _protocols(protocols), true_boxes(dataset), count_logits(classifier, target)
    mapping = map_classes(dataset.classes, dataset.ids, classifier.classes, classifier.class_ids, logits, class_map)
    notes = [*mapping.notes, *_knob_notes(dataset, classifier)]
    for note in notes:
        logger.warning("%s", note)
    source: dict[str, Any] = {"dataset": dataset.name, "split": dataset.split, "model": classifier.name}
    shown = f"{view}+flip" if flip and view != "tencrop" else view  # ten crops are mirrored anyway
    source |= {"role": dataset.role, "weights": classifier.weights, "view": shown}
    source |= {"class_map": mapping.how, "predict_over": predict_over}
    source["competing"] = logits if predict_over == "all" else len(mapping.present)
    chosen = expand_layers(_methods(methods))
    given = None
    if threshold_from is not None:
        given = thresholds_of(threshold_from, source, chosen, rules, threshold_from_test)
    folder = None if run_dir is None else Path(run_dir)
    store, samples = collect_heatmaps(
        dataset,
        classifier,
        chosen,
        mapping,
        view=view,
        flip=flip,
        predict_over=predict_over,
        batch_size=batch_size,
        workers=workers,
        device=target,
        seed=seed,
        score=score,
        chunk=chunk,
        on_error=on_error,
        folder=None if folder is None else folder / "heatmaps",
        source=source,
        show_progress=progress,
    )
    results = assemble(dataset, store, samples, boxes, rules, given, workers, progress)
    environment = describe_environment(began, target, source, notes)
    return finish(results, dataset, store, pictures, report, folder, environment, _recorded(config, rules))


def score(
    dataset: Dataset,
    heatmaps: Path | str | None = None,
    protocols: Sequence[str] | Mapping[str, Protocol] = ("choe2020", "choe2020_v2"),
    *,
    methods: Sequence[str] | Mapping[str, Method] = (),
    heatmaps_kind: str | None = None,
    heatmaps_name: str | None = None,
    predictions: Path | str | None = None,
    predictions_classes: str | None = None,
    on_error: str = "stop",
    seed: int = 0,
    threshold_from: Path | str | None = None,
    threshold_from_test: bool = False,
    workers: int = 2,
    limit: int | None = None,
    pictures: int = 0,
    report: bool = True,
    run_dir: Path | str | None = None,
    config: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Results:
    """Make the tables from heatmaps that are there already, or of baselines, without a network.

    Parameters
    ----------
    dataset : Dataset
        The one that the heatmaps were made on; images are read for pictures only, and where nothing says their sizes.
    heatmaps : path, optional
        `heatmaps/` of a run, whose `samples.parquet`, one folder up, has the predictions; or a folder of
        `<sample id>.npy` files (ids with slashes are sub-folders; the image's suffix may be left out), or an .npz file
        with sample ids as keys: each a map (h, w) of the whole image, at any resolution. None: baselines alone.
    protocols
        As in `evaluate`.
    methods : sequence of names, or dict of name to Method
        Baselines ("center", "full", "random") beside the heatmaps, or instead of them.
    heatmaps_kind : "scoremap" or "raw", optional
        Whether maps lie in [0, 1] and are scored as they are (what somebody else's are by default; they are resized
        where a protocol evaluates at another size, and that is said), or each protocol normalizes them (what a run's
        own always are).
    heatmaps_name : str, optional
        What the tables call somebody else's maps; by default the folder's or file's name.
    predictions : path, optional
        A file that fills the Top-k columns, see `wsol.predictions.read_predictions`.
    predictions_classes : "id", "name" or "position", optional
        What that file calls classes by.
    on_error : "stop" or "skip"
        Whether missing or faulty heatmaps and predictions stop everything, or are named and count as misses.
    seed : int
        Of the random baseline.
    threshold_from, threshold_from_test, workers, limit, pictures, report, run_dir, config, progress
        As in `evaluate`.

    Raises
    ------
    UserError
        If there is nothing to score, or something is wrong with it: which samples, and what to do.

    Examples
    --------
    >>> from wsol.datasets import Shapes
    >>> score(Shapes(length=8), methods=["full"], progress=False).summary["gt_known_loc"].notna().all().item()
    True
    """
    began = time.time()
    dataset = dataset if limit is None else dataset.first(limit)
    rules, boxes = _protocols(protocols), true_boxes(dataset)
    if heatmaps is None and not methods:
        raise UserError(
            "heatmaps is needed: pass heatmaps=FOLDER (of a run, or of <sample id>.npy files) or an .npz file; "
            "or method=center, full or random for baselines alone"
        )
    store, notes = open_heatmaps(
        dataset,
        None if heatmaps is None else Path(heatmaps).expanduser(),
        kind=heatmaps_kind,
        name=heatmaps_name,
        on_error=on_error,
        part=limit is not None,
        workers=workers,
        show_progress=progress,
    )
    notes += resizing_notes(dataset, store, rules)
    add_baselines(store, _methods(methods) if methods else {}, seed)
    samples = read_samples(dataset, store, part=limit is not None)
    if predictions is not None:
        file = Path(predictions).expanduser()
        samples, about, more = read_predictions(file, dataset, samples, predictions_classes, on_error)
        store.source, notes = store.source | about, notes + more
    for note in notes:
        logger.warning("%s", note)
    given = None
    if threshold_from is not None:
        given = thresholds_of(threshold_from, store.source, store.methods, rules, threshold_from_test)
    results = assemble(dataset, store, samples, boxes, rules, given, workers, progress)
    environment = describe_environment(began, torch.device("cpu"), store.source, notes)
    folder = None if run_dir is None else Path(run_dir)
    return finish(results, dataset, store, pictures, report, folder, environment, _recorded(config, rules))


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


def _recorded(config: Mapping[str, Any] | None, protocols: Mapping[str, Protocol]) -> Mapping[str, Any]:
    """What is written down as asked for; without a configuration the rules, which reports and comparisons need."""
    return {"protocols": {name: asdict(rules) for name, rules in protocols.items()}} if config is None else config


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
