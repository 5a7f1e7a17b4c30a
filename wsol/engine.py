"""The two stories, top to bottom: `evaluate` a classifier's heatmaps, `score` heatmaps that are there already."""

from __future__ import annotations

import logging
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import pandas as pd
from pydantic import Field

import wsol
from wsol.console import ranks
from wsol.datasets.benchmarks import compare_with_benchmark
from wsol.datasets.classes import ClassMap, map_classes
from wsol.datasets.sample import Dataset, check_sizes
from wsol.errors import UserError, first_names, quantity
from wsol.heatmaps.method import Method, expand_layers, make_method
from wsol.heatmaps.store import HeatmapStore, add_baselines, check_names, open_heatmaps
from wsol.io import expand_path, remove_stale, write_json
from wsol.localization import Protocol, load_protocol, protocol_names
from wsol.metrics.scoring import Scorer, ground_truth_boxes, resizing_notes
from wsol.predictions import read_predictions, read_samples
from wsol.ready_boxes import read_ready_boxes, score_ready_boxes
from wsol.settings import settings
from wsol.shards import Shards, cut_shards, identity_of, weights_of
from wsol.tables import Results, SampleTable, choose_thresholds, make_tables, read_results, write_tables

if TYPE_CHECKING:
    import torch

    from wsol.metrics.faithfulness import Faithful
    from wsol.models import Classifier

logger = logging.getLogger("wsol")

Methods = Sequence[str] | Mapping[str, Method]
Protocols = Sequence[str] | Mapping[str, Protocol]
SLOW = 10.0  # seconds of a batch that a plan doesn't do twice
ALL = "all"  # every preset that applies
FREE = ("workers", "device", "report", "pictures", "progress", "resume", "overwrite", "mixed", "plan")  # on a resume
PACKAGES = ("torch", "torchvision", "numpy", "numba", "pandas", "scikit-image", "hydra-core", "pillow")


def evaluate(
    dataset: Dataset,
    model: Classifier | torch.nn.Module,
    methods: Methods = ("cam", "gradcam", "center"),
    protocols: Protocols = ("choe2020_v2",),
    *,
    view: str = "squash",
    threshold_from: Path | str | None = None,
    run_dir: Path | str | None = None,
    config: Mapping[str, Any] | None = None,
    command: str | None = None,
    options: Options | None = None,
    **more: Any,
) -> Results:
    """Measure how well a classifier's heatmaps say where the object is.

    Parameters
    ----------
    dataset : Dataset
        With boxes or masks.
    model : Classifier or nn.Module
        A plain module is shown images of 224 × 224 with ImageNet's mean and standard deviation. It stays on the
        device, in channels-last memory, when this returns.
    methods, protocols : sequence of names, or dict of name to Method or Protocol
    view : "squash", "crop" or "tencrop"
        How an image becomes the network's input.
    threshold_from : path, optional
        A run on another split; its thresholds are used here.
    run_dir : path, optional
        Where tables, heatmaps, pictures and the report go; None: nowhere.
    config, command : mapping and str, optional
        Written down there: what was asked for, by default the protocols; and what was typed.
    options : Options, optional
        Everything else; each of its fields is a keyword of its own as well, which wins.

    Returns
    -------
    Results
        With `.summary`, `.metrics`, `.per_image`, `.curves`, `.sweeps`, `.samples` as DataFrames. A `UserError` says
        what doesn't fit: classes, layers, boxes, files, options.

    Examples
    --------
    >>> from wsol.datasets import Shapes
    >>> from wsol.models import shapes_classifier
    >>> results = evaluate(Shapes(length=8), shapes_classifier(), methods=["cam"], progress=False)
    >>> results.summary["max_box_acc_v2"].notna().tolist()
    [True]
    """
    from wsol.heatmaps.collect import Recorder  # torch is loaded here: `score` never needs it

    # What can be refused is refused before the network runs.
    started, options = time.time(), _options(Options, options, more)
    dataset, methods = options.first_of(dataset), _load_methods(methods)
    presets, left_out = _load_protocols(protocols, raw=any(method.baseline is None for method in methods.values()))
    protocols = _for_dataset(presets, dataset)
    gt_boxes = ground_truth_boxes(dataset)
    check_sizes(dataset, options.workers)
    classifier, device = _on_device(model, options.device)
    class_map, competing = _map_classes(dataset, classifier, device, options)
    provenance = _provenance(dataset, classifier, class_map, competing, view, options)
    source = provenance.to_dict()
    notes = _warn([*class_map.notes, *weights_notes(dataset, classifier), *left_out]) + _benchmark_notes(dataset)
    thresholds = choose_thresholds(methods, presets, source, threshold_from, options.threshold_from_test)

    config = dict(config or {"protocols": {name: asdict(protocol) for name, protocol in protocols.items()}})
    measure = _faithfulness(options)
    if measure is not None:
        config.setdefault("faithfulness", {preset.name: asdict(preset) for preset in measure.presets})
    scorer, recorder = Scorer(dataset, protocols, options.on_error), Recorder(
        dataset, classifier, methods, class_map, view=view, device=device, source=source, measure=measure,
        **options.for_the_pass(),
    )  # fmt: skip
    identity = identity_of(dataset, protocols, methods, config, source=source, layers=recorder.methods,
                           **weights_of(classifier), **options.identity(device))  # fmt: skip
    size = recorder.shard_images(options.shard_size)
    if options.plan:
        with recorder:
            return _plan(dataset, scorer, recorder.record, recorder.images_at_once, size, options.workers)
    with Shards(dataset, size, identity, run_dir, config, _typed(command), **options.for_the_folder()) as shards:
        if shards.folder is not None and shards.whole:  # a resume that finds everything done
            return read_results(shards.folder)
        # 1. Shard by shard. The network runs here and nowhere else: heatmaps, and where the true class stands among
        #    the logits; while it sees the next shard, the last one's heatmaps become boxes at every threshold.
        with recorder, shards.progress("heatmaps", options.progress) as advance:
            shards.do(recorder.record(shards.missing_ranges, advance), scorer.score, options.workers)
        dark, made = shards.how_made()
        if dark:
            text = f"{quantity(len(dark), 'image')} of 16 bits using fewer, which the network sees dark"
            notes += _warn([f"{text}: {first_names(dark)}"])

        # 2. All shards together: what became of every sample at τ; tables with intervals.
        heatmaps, samples = shards.join_heatmaps()
        table = SampleTable(samples, gt_boxes, dataset.classes, dataset.multilabel, provenance.tells_top5(dataset))
        scored = shards.join_scores(scorer, heatmaps.methods)
        results = make_tables(scored, table, protocols, thresholds, source, shards.folder)
        if measure is not None:
            measure.add_tables(results, shards.join_faithfulness(), table)

        # 3. Everything that a reader needs, years later.
        results.environment = _environment(started, provenance, notes, shards.began, presets, device)
        results.environment |= made
        return shards.commit(_write_run(results, dataset, heatmaps, config, options))


def score(
    dataset: Dataset,
    heatmaps: Path | str | None = None,
    protocols: Protocols = ("choe2020_v2",),
    *,
    boxes: Path | str | None = None,
    masks: Path | str | None = None,
    methods: Methods = (),
    predictions: Path | str | None = None,
    threshold_from: Path | str | None = None,
    run_dir: Path | str | None = None,
    config: Mapping[str, Any] | None = None,
    command: str | None = None,
    options: ScoreOptions | None = None,
    **more: Any,
) -> Results:
    """Make the tables from heatmaps, boxes or masks that are there already, or of baselines, without a network.

    Parameters
    ----------
    dataset : Dataset
        The one that the heatmaps were made on; images are read for pictures only, and where nothing says their sizes.
    heatmaps : path, optional
        `heatmaps/` of a run, whose `samples.parquet`, one folder up, has the predictions; or a folder of
        `<sample id>.npy` files (ids with slashes are sub-folders; the image's suffix may be left out), or an .npz file
        with sample ids as keys: each a map (h, w) of the whole image, at any resolution. None: baselines alone.
    protocols, threshold_from, run_dir, config, command
        As in `evaluate`.
    boxes, masks : path, optional
        Boxes or masks that somebody's method gave, see `wsol.ready_boxes.read_ready_boxes`; options say the boxes'
        corners and units. No threshold has a say in them.
    methods : sequence of names, or dict of name to Method
        Baselines ("center", "full", "random") beside the heatmaps, or instead of them.
    predictions : path, optional
        A file that fills the Top-k columns, see `wsol.predictions.read_predictions`.
    options : ScoreOptions, optional
        Everything else; each of its fields is a keyword of its own as well, which wins.

    Examples
    --------
    >>> from wsol.datasets import Shapes
    >>> score(Shapes(length=8), methods=["full"], progress=False).summary["gt_known_loc"].notna().all().item()
    True
    """
    started, options = time.time(), _options(ScoreOptions, options, more)
    if all(source is None for source in (heatmaps, boxes, masks)) and not methods:
        hint = "heatmaps=FOLDER or FILE.npz, boxes=FILE or masks=FOLDER; or method=center, full or random alone"
        raise UserError(f"heatmaps, boxes or masks are needed: pass {hint}")
    dataset, part = options.first_of(dataset), options.limit is not None
    gt_boxes = ground_truth_boxes(dataset)
    check_sizes(dataset, options.workers)

    # 1. Heatmaps that are there already, and predictions where somebody made some.
    store, notes = open_heatmaps(dataset, expand_path(heatmaps), part=part, **options.for_reading())
    add_baselines(store, _load_methods(methods) if methods else {}, options.seed)
    presets, left_out = _load_protocols(protocols, store.has_raw(), ready_boxes=not store.methods)
    protocols = _for_dataset(presets, dataset)
    samples, about = read_samples(dataset, store, part), store.source
    box_sources, remarks = read_ready_boxes(
        dataset, samples, boxes, masks, taken=store.methods, part=part, **options.for_boxes()
    )
    if box_sources:
        about = about | {"heatmaps": ", ".join(str(path) for path in (heatmaps, boxes, masks) if path is not None)}
    notes += resizing_notes(dataset, store, protocols) + remarks + left_out
    if predictions is not None:
        path, naming = Path(predictions).expanduser(), options.predictions_classes
        samples, about_file, file_notes = read_predictions(path, dataset, samples, naming, options.on_error)
        about, notes = about | about_file, notes + file_notes
    provenance = Provenance.of(about)
    source, notes = provenance.to_dict(), _warn(notes) + _benchmark_notes(dataset)
    thresholds = choose_thresholds(store.methods, presets, source, threshold_from, options.threshold_from_test)
    thresholds |= {(source.name, name): (None, source.kind) for source in box_sources for name in protocols}

    # 2. and 3. As in `evaluate`; boxes that are given have no sweeps.
    config = dict(config or {"protocols": {name: asdict(protocol) for name, protocol in protocols.items()}})
    scorer = Scorer(dataset, protocols, options.on_error)
    origin = {"source": source, "layers": store.methods, "maps": store.fingerprint()}
    identity = identity_of(dataset, protocols, {}, config, **origin, **options.identity())
    table = SampleTable(samples, gt_boxes, dataset.classes, dataset.multilabel, provenance.tells_top5(dataset))
    how = options.for_the_folder("wsol score")
    if options.plan:
        return _plan(dataset, scorer, lambda _: [(store, None, None, {})], 64, options.shard_size, options.workers)
    with Shards(dataset, options.shard_size, identity, run_dir, config, _typed(command), **how) as shards:
        if shards.folder is not None and shards.whole:  # a resume that finds everything done
            return read_results(shards.folder)
        with shards.progress("scoring", options.progress) as advance:
            score = partial(scorer.score, advance=advance)
            shards.do(((store, None, None, {}) for _ in shards.missing), score, options.workers)
        shards.how_made()
        scored_boxes = (score_ready_boxes(source, dataset, samples, protocols) for source in box_sources)
        scored = chain(shards.join_scores(scorer, store.methods), scored_boxes)
        results = make_tables(scored, table, protocols, thresholds, source, shards.folder)
        results.environment = _environment(started, provenance, notes, shards.began, presets)
        return shards.commit(_write_run(results, dataset, store, config, options))


@settings
class Provenance:
    """What the heatmaps of a run were made from: `source` in its `environment.json`; None where it says nothing.

    `competing`: how many classes are ranked for Top-k; `listed`: how many a file of predictions gives per sample.
    """

    dataset: str = ""
    split: str = ""
    model: str | None = None
    role: str | None = None
    weights: str | None = None
    view: str | None = None
    heatmaps: str | None = None
    predictions: str | None = None
    class_map: str | None = None
    predict_over: str | None = None
    competing: int | None = None
    listed: int | None = None

    @classmethod
    def of(cls, source: Mapping[str, Any]) -> Provenance:
        """Read it from a run's `source`; what this version doesn't know is left out."""
        return cls(**{field.name: source[field.name] for field in fields(cls) if field.name in source})

    def to_dict(self) -> dict[str, Any]:
        """What is known, as `source`."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def tells_top5(self, dataset: Dataset) -> bool:
        """Whether Top-5 says anything: more than five classes compete, and five of each prediction are known."""
        return (self.competing or len(dataset.classes)) > 5 and (self.listed or 5) >= 5


@settings
class RunOptions:
    """What `evaluate` and `score` have in common.

    Parameters
    ----------
    on_error : "stop" or "skip"
        An image, heatmap or prediction that is missing or faulty stops the run, or counts as a miss and is named.
    seed : int
        For the random baseline, and for methods that draw masks or noise.
    threshold_from_test : bool
        Whether `threshold_from` may be a split whose role is "test"; the tables then say so.
    workers : int
        Threads that load and score.
    limit : int, optional
        Only the first so many samples.
    pictures, report, progress : int, bool, bool
        Example pictures in `run_dir/figures`, and a grid of some; whether to write `run_dir/report.html`; whether to
        say how far a run is.
    shard_size : int
        Images that are done and written together: a run that dies loses those that it had in hand.
    resume, overwrite : bool
        What becomes of an unfinished run in `run_dir`: it is gone on with, if it is this very one; or removed.
    mixed : bool
        Whether a run may be resumed on another kind of device, or with another version of torch.
    plan : bool
        Only do one batch, of which nothing is kept, and say what the run would take: `environment["plan"]`.
    """

    on_error: Literal["stop", "skip"] = "stop"
    seed: int = 0
    threshold_from_test: bool = False
    workers: int = 2
    limit: int | None = None
    pictures: int = 0
    report: bool = True
    progress: bool = True
    shard_size: int = 512
    resume: bool = False
    overwrite: bool = False
    mixed: bool = False
    plan: bool = False

    def for_the_folder(self, command: str = "wsol") -> dict[str, Any]:
        """Keywords of `Shards`."""
        return {name: getattr(self, name) for name in ("resume", "overwrite", "mixed")} | {"command": command}

    def identity(self, device: torch.device | None = None) -> dict[str, Any]:
        """What of these a resumed run must have in common with what it resumes."""
        made = {"device": "none" if device is None else device.type} | ({"torch": version("torch")} if device else {})
        return {name: value for name, value in asdict(self).items() if name not in (*FREE, "limit")} | made

    def first_of(self, dataset: Dataset) -> Dataset:
        """As many samples as are asked for."""
        return dataset if self.limit is None else dataset.first(self.limit)


@settings
class Options(RunOptions):
    """How `evaluate` goes about it, beside `RunOptions`; by default it draws 12 pictures.

    Parameters
    ----------
    flip : bool
        Show every image mirrored as well; the heatmaps are turned back and averaged.
    batch_size, chunk : int
        Images per forward pass, all of a smaller set; a last batch is filled up, so that all have one size;
        and in each further pass of methods that need several: their memory bound.
    device : str
        "auto", "cpu", "cuda", …
    score : "logit", "log_prob", "prob" or "rest", optional
        What gradient methods differentiate; by default the logit (ShapleyCAM: `rest`; RISE and occlusion: `prob`).
    predict_over : "all" or "present"
        Classes that compete: all of the model's, or the dataset's only.
    class_map : "id", "name", "position" or a file, optional
        How the dataset's classes meet the logits; by default by id, then by name.
    faithfulness : sequence of names, or dict of name to the fields of a preset
        What else is measured of the heatmaps, see `wsol.metrics.faithfulness`: many further passes.
    faithfulness_limit : int
        Of so many samples, the first.
    """

    pictures: int = 12
    flip: bool = False
    batch_size: int = 64
    device: str = "auto"
    score: str | None = None
    chunk: int = 32
    predict_over: str = "all"
    class_map: str | Path | None = None
    faithfulness: Any = ()
    faithfulness_limit: Annotated[int, Field(ge=1)] = 500

    def for_the_pass(self) -> dict[str, Any]:
        """Keywords of `Recorder`."""
        names = ("flip", "predict_over", "batch_size", "workers", "seed", "score", "chunk", "on_error")
        return {name: getattr(self, name) for name in names}


@settings
class ScoreOptions(RunOptions):
    """How `score` goes about it, beside `RunOptions`.

    Parameters
    ----------
    heatmaps_kind : "scoremap" or "raw", optional
        "scoremap": in [0, 1], never normalized, resized only where a protocol evaluates at another size, which is said:
        the default of somebody else's maps. "raw": each protocol normalizes them, as those of a run always are.
    heatmaps_name : str, optional
        What the tables call somebody else's maps; by default the folder's or file's name.
    predictions_classes : "id", "name" or "position", optional
        What the file of predictions, or that of boxes, calls classes by.
    box_corners, box_units : "inclusive" or "exclusive", "pixels" or "relative"
        Needed with boxes, as for `boxes_file` of a folder: whether x1 and y1 are the last pixels inside or one beyond;
        pixels of the image, or shares of its sides.
    """

    heatmaps_kind: str | None = None
    heatmaps_name: str | None = None
    predictions_classes: str | None = None
    box_corners: str | None = None
    box_units: str | None = None

    def for_boxes(self) -> dict[str, Any]:
        """Keywords of `read_ready_boxes`."""
        rules = {"corners": self.box_corners, "units": self.box_units}
        return {"rules": rules, "naming": self.predictions_classes, "on_error": self.on_error}

    def for_reading(self) -> dict[str, Any]:
        """Keywords of `open_heatmaps`."""
        kind = {"kind": self.heatmaps_kind, "name": self.heatmaps_name}
        return kind | {"on_error": self.on_error, "workers": self.workers, "show_progress": self.progress}


T = TypeVar("T", bound=RunOptions)


def _options(kind: type[T], options: T | None, more: Mapping[str, Any]) -> T:
    if options is not None and not isinstance(options, kind):
        raise UserError(f"options is a {type(options).__name__}: pass wsol.engine.{kind.__name__}(…)")
    return kind(**more) if options is None else replace(options, **more)


def _load_methods(methods: Methods) -> dict[str, Method]:
    named = methods if isinstance(methods, Mapping) else {name: make_method(name) for name in methods}
    if not named:
        raise UserError("no methods: choose at least one, such as cam")
    expanded = expand_layers(named)
    check_names(expanded)
    return expanded


def _load_protocols(
    protocols: Protocols, raw: bool, ready_boxes: bool = False
) -> tuple[dict[str, Protocol], list[str]]:
    """Protocols by name, "all" being every preset that applies; and notes of those that don't."""
    names = list(protocols)
    if not names:
        raise UserError("no protocols: choose at least one, such as choe2020")
    presets = {name: load_protocol(name) for name in (protocol_names() if ALL in names else ())}
    named = (
        protocols if isinstance(protocols, Mapping) else {name: load_protocol(name) for name in names if name != ALL}
    )
    ready = [name for name, rules in presets.items() if rules.ready_boxes and not ready_boxes and name not in named]
    as_is = [name for name, rules in presets.items() if rules.normalization == "none" and raw and name not in named]
    named = {name: protocol for name, protocol in (presets | dict(named)).items() if name not in (ALL, *ready, *as_is)}
    reasons = ((ready, "score boxes that are ready, not heatmaps"), (as_is, "take maps in [0, 1] as they are, not raw"))
    return named, [f"protocols left out, which {why}: {', '.join(left_out)}" for left_out, why in reasons if left_out]


def _for_dataset(presets: Mapping[str, Protocol], dataset: Dataset) -> dict[str, Protocol]:
    """Choose what presets say of a dataset of that name, and a grid that all maps share."""
    return {name: protocol.for_dataset(dataset.name).for_many_maps() for name, protocol in presets.items()}


def _on_device(model: Classifier | torch.nn.Module, name: str) -> tuple[Classifier, torch.device]:
    from wsol.models import Classifier, default_layer
    from wsol.models.inference import choose_device

    device = choose_device(name)
    if not isinstance(model, Classifier):
        model = Classifier(name=type(model).__name__.lower(), module=model, layer=default_layer(model))
    model.module.to(device)
    return model, device


def _map_classes(
    dataset: Dataset, classifier: Classifier, device: torch.device, options: Options
) -> tuple[ClassMap, int]:
    """Which logit belongs to each class of the dataset, and how many logits compete."""
    from wsol.heatmaps.collect import count_logits

    logits, names = count_logits(classifier, device), (classifier.classes, classifier.class_ids)
    class_map = map_classes(dataset.classes, dataset.ids, *names, logits, options.class_map)
    return class_map, logits if options.predict_over == "all" else len(class_map.present)


def _faithfulness(options: Options) -> Faithful | None:
    if not options.faithfulness:
        return None
    from wsol.metrics.faithfulness import Faithful

    return Faithful(options.faithfulness, options.faithfulness_limit, options.seed, options.chunk)


def _benchmark_notes(dataset: Dataset) -> list[str]:
    """Say whether this is the split that papers report on."""
    text, same = compare_with_benchmark(dataset)
    logger.log(logging.INFO if same else logging.WARNING, "%s", text) if text else None
    return [text] if text else []


def weights_notes(dataset: Dataset | None, classifier: Classifier) -> list[str]:
    """Warn where weights are random, or were trained on generated images with other settings."""
    if classifier.weights == "random" or "random (seed" in classifier.weights:
        return [f"weights of {classifier.name}: {classifier.weights}; what they see says nothing: load trained ones"]
    trained, knobs = classifier.knobs, {} if dataset is None else dataset.knobs
    changed = {knob: value for knob, value in knobs.items() if trained.get(knob, value) != value}
    other = [f"{knob}={value} (trained for {trained[knob]})" for knob, value in changed.items()]
    weights = f"the weights ({classifier.weights}) were not trained for this {dataset and dataset.name} set"
    notes = [f"{weights}: {', '.join(other)}"] if other else []
    if classifier.trained_size not in (None, classifier.input_size):
        sizes = (" x ".join(map(str, size)) for size in (classifier.trained_size, classifier.input_size) if size)
        notes.append("the weights were trained on {} pixels and see {} here".format(*sizes))
    return notes


def _provenance(
    dataset: Dataset, classifier: Classifier, class_map: ClassMap, competing: int, view: str, options: Options
) -> Provenance:
    view = f"{view}+flip" if options.flip and view != "tencrop" else view  # ten crops are mirrored anyway
    return Provenance(
        dataset=dataset.name, split=str(dataset.split), role=dataset.role, model=classifier.name, view=view,
        weights=classifier.weights, class_map=class_map.how, predict_over=options.predict_over, competing=competing,
    )  # fmt: skip


def _plan(
    dataset: Dataset,
    scorer: Scorer,
    record: Callable[[list[range]], Iterable[Any]],
    images_at_once: int,
    shard_size: int,
    workers: int,
) -> Results:
    """Do one batch, in a folder that goes, and say what the run would take: `environment["plan"]`."""
    if ranks()[0] > 0:
        raise SystemExit(0)
    images, (batch, *_) = dataset.table["image_id"].nunique(), cut_shards(dataset, max(images_at_once, 1))
    for _ in range(2):  # the first is slow: kernels are loaded, memory is asked for
        begun = time.perf_counter()
        shard = list(record([batch]))
        recorded = time.perf_counter()
        with TemporaryDirectory() as folder, Shards(dataset.first(len(batch)), images, {}, folder, {}) as trial:
            trial.do(shard, scorer.score, workers)
            seconds = recorded - begun, time.perf_counter() - recorded
            size = sum(path.stat().st_size for path in trial.work.glob("0*/**/*") if path.is_file())
        if seconds[0] > SLOW:
            break
    share, names = len(dataset) / len(batch), ("heatmaps", "scoring")
    plan = {"images": images, "samples": len(dataset), "shards": len(cut_shards(dataset, shard_size)),
            "passes": math.ceil(images / max(images_at_once, 1)), "bytes": round(size * share),
            "batch_seconds": dict(zip(names, seconds, strict=True)), "processes": ranks()[1],
            "seconds": [share * most(seconds) / ranks()[1] for most in (max, sum)]}  # fmt: skip
    return Results(pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), environment={"plan": plan})


def _warn(notes: list[str]) -> list[str]:
    for note in notes:
        logger.warning("%s", note)
    return notes


def _typed(command: str | None) -> str:
    return shlex.join(sys.argv) if command is None else command


def _environment(
    started: float, provenance: Provenance, notes: list[str], command: str, presets: Mapping[str, Protocol],
    device: torch.device | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What a reader needs to trust a run, years later; without a network there is no device but the CPU."""
    name, threads = platform.processor() or "cpu", os.cpu_count()
    if device is not None:
        import torch

        name = torch.cuda.get_device_name(device) if device.type == "cuda" else name
        threads = torch.get_num_threads()
    return {
        "role": provenance.role or "",
        "source": provenance.to_dict(),
        "notes": notes,
        "cite": {name: f"{name}@{rules.fingerprint()}, wsol {wsol.__version__}" for name, rules in presets.items()},
        "command": command,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
        "seconds": round(time.time() - started, 1),
        "device": f"{device or 'cpu'} ({name})",
        "threads": threads,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {"wsol": wsol.__version__} | {package: version(package) for package in PACKAGES},
    }


def _write_run(
    results: Results, dataset: Dataset, heatmaps: HeatmapStore, config: dict[str, Any], options: RunOptions
) -> Results:
    """Write tables, what was asked for and what it ran on, pictures and the report."""
    folder, results.config, results.heatmaps = results.run_dir, config, heatmaps
    if folder is None:
        return results
    from wsol.report.faithfulness import write_faithfulness
    from wsol.report.latex import table_options
    from wsol.report.summary import summary_for_people, write_summary

    remove_stale(folder)
    write_tables(results, folder)
    write_summary(summary_for_people(results), folder, results.environment["cite"], table_options(config))
    write_faithfulness(results, folder, table_options(config))
    write_json(folder / "environment.json", results.environment)
    chosen = (config.get("figures") or {}).get("examples") or ()
    if (options.pictures or chosen) and "true_boxes" in results.samples:
        from wsol.report.pictures import draw_examples

        draw_examples(results, dataset, heatmaps, options.pictures, folder / "figures", chosen)
    if options.report:
        from wsol.report.page import write_report

        write_report(folder, dataset, heatmaps)
    return results
