"""The training story: stages of epochs over labels alone, checkpoints that can be taken up again.

Every epoch seeds itself from (seed, stage, epoch), every step from its number too, and every image's augmentation from
its index: a run that was interrupted and resumed ends with the same weights as one that was not. Under torchrun each
process takes its share of every batch, and all have the same weights.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import distributed, nn

from wsol.console import progress
from wsol.datasets.images import load_ahead
from wsol.datasets.sample import Dataset
from wsol.errors import UserError, quantity
from wsol.io import atomic_write, write_json
from wsol.models import Classifier, find_layer, logits_of, save_checkpoint
from wsol.models.inference import choose_device, frozen, prefer_channels_last
from wsol.models.zoo import seeded
from wsol.training.methods import TrainingMethod
from wsol.training.recipe import PARTS, Augmentation, Optimization, Recipe, Stage, augment, whole_batches
from wsol.training.watch import Log, draw_history, in_percent, localize, logging_to

logger = logging.getLogger("wsol")


@dataclass
class Training:
    """What came out: a row of the history per epoch has stage, epoch, lr, train_loss, train_top1, val_top1, seconds.

    Where it is localized also gt_known_loc, max_box_acc_v2, box_area (fractions like Top-1) and threshold. `run_dir`
    has `best.safetensors`, `last.safetensors`, `history.csv` (in percent), `.png`, `environment.json`, `resume.pt`.
    """

    classifier: Classifier  # with the best weights by validation in the last stage
    history: pd.DataFrame
    run_dir: Path | None


def train(
    classifier: Classifier, stages: Sequence[Stage], *, method: TrainingMethod | None = None,
    run_dir: Path | str | None = None, seed: int = 0, workers: int = 2, device: str = "auto", resume: bool = False,
    logger: str | None = None, config: Mapping[str, Any] | None = None, command: str | None = None,
    show_progress: bool = True,
) -> Training:  # fmt: skip
    """Train a classifier on image labels.

    Under torchrun every process calls it: each takes its share of every batch, and rank 0 writes.

    Parameters
    ----------
    classifier : Classifier
        Its module is trained in place; ACoL and SPG put another in its place.
    stages : sequence of Stage
        One after the other, each with its own optimizer and schedule.
    method : TrainingMethod, optional
        `HaS()`, `CutMix()`, `ADL()`, `ACoL()`, `SPG()` of `wsol.training`, or one of your own; None: cross entropy.
    run_dir : path, optional
        Folder for weights, history and the file to resume from.
    seed : int
    workers : int
        Threads that load images.
    device : str
        "auto", "cpu", "cuda", "cuda:1", …
    resume : bool
        Go on where `run_dir/resume.pt` stopped; where there is none yet, start.
    logger : "tensorboard", "wandb" or "mlflow", optional
        Who else gets the history.
    config, command : mapping and str, optional
        What was asked for, for the logger; and what was typed, for `environment.json`.
    show_progress : bool

    Returns
    -------
    Training

    Raises
    ------
    UserError
        If a dataset has other classes than the first or the model, the method doesn't know the
        network, nothing can be resumed, what is resumed began with another recipe, or the loss is not finite.
    """
    _check_stages(stages)
    world, local_rank = int(os.environ.get("WORLD_SIZE", 1)), os.environ.get("LOCAL_RANK", "0")
    on_gpus = world > 1 and device != "cpu" and torch.cuda.is_available()
    place = choose_device(f"cuda:{local_rank}" if on_gpus else device)
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    method = TrainingMethod() if method is None else method
    with seeded(seed):
        method.change_network(classifier)
    module = classifier.module.to(place)
    prefer_channels_last(module, stages[0].recipe.input_size or classifier.input_size, place)
    goal = stages[-1].dataset
    classifier.classes, classifier.class_ids, classifier.knobs = goal.classes, goal.ids, goal.knobs
    classifier.weights = "as trained"
    _check_logits(classifier, place)
    folder = None if run_dir is None else Path(run_dir)
    state = TrainingState.load(folder, module, place) if resume else TrainingState()
    state.set_plan([stage.recipe for stage in stages], method)
    writes = folder if folder is not None and int(os.environ.get("RANK", 0)) == 0 else None
    if writes is not None:
        writes.mkdir(parents=True, exist_ok=True)
    run = _Run(
        classifier, stages, method, state, writes, seed, workers, show_progress, command or "", world,
        classifier.input_size,
    )  # fmt: skip
    with logging_to(logger if writes is not None or folder is None else None, folder, config or {}) as run.log:
        while state.stage < len(stages):
            _run_stage(run)
    if state.best is not None:
        module.load_state_dict(state.best)
    module.eval()
    if writes is not None:
        draw_history(in_percent(state.history), writes / "history.png")
    return Training(classifier, pd.DataFrame(state.history), folder)


@dataclass
class _Run:
    """A training that is under way: what all of its parts need."""

    classifier: Classifier
    stages: Sequence[Stage]
    method: TrainingMethod
    state: TrainingState
    folder: Path | None  # None: this process writes nothing
    seed: int
    workers: int
    show_progress: bool
    command: str
    world: int  # how many processes share a batch
    input_size: tuple[int, int]  # the classifier's, for stages that say nothing else
    log: Log = lambda row, step: None
    started: float = field(default_factory=time.time)

    @property
    def chosen(self) -> dict[str, str]:
        """Which split decides on the best weights, and by what."""
        last = self.stages[-1]
        judge = last.localization if last.recipe.best == "localization" else last.validation
        return {"best_by": last.recipe.best, "best_on": "the last epoch" if judge is None else _place(judge)}

    def write_environment(self, folder: Path, device: torch.device) -> None:
        """Write what a reader needs to trust the weights, years later."""
        from wsol.engine import Provenance, _environment

        data, name = self.stages[-1].dataset, self.classifier.name
        source = Provenance(dataset=data.name, split=str(data.split), role=data.role, model=name)
        each = "over all processes" if all(s.recipe.sync_bn for s in self.stages) else "of each process's share"
        more = {"training_method": repr(self.method), **self.chosen, "processes": self.world}
        more |= {"batch_statistics": each} if self.world > 1 else {}
        write_json(folder / "environment.json", _environment(self.started, source, [], self.command, {}, device) | more)


def _run_stage(run: _Run) -> None:
    """Train the epochs of a stage that are left; after each, write what a resumed training needs."""
    state, classifier, module = run.state, run.classifier, run.classifier.module
    stage, last = run.stages[state.stage], state.stage == len(run.stages) - 1
    recipe, device = stage.recipe, next(module.parameters()).device
    classifier.input_size = recipe.input_size or run.input_size  # the weights' files say it
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    with _frozen(module, recipe.freeze) as frozen:
        optimization = Optimization(module, recipe, len(stage.dataset), device, run.world)
        if state.optimization is not None:
            optimization.load_state_dict(state.optimization)
        network = module
        if run.world > 1:  # gradients are averaged; normalization stays each one's own unless it is asked for
            shared = nn.SyncBatchNorm.convert_sync_batchnorm(module) if recipe.sync_bn else module
            network = nn.parallel.DistributedDataParallel(shared)
        while state.epoch < recipe.epochs:
            name = f"stage {state.stage + 1}/{len(run.stages)}, epoch {state.epoch + 1}/{recipe.epochs}"
            began, lr, key = time.monotonic(), optimization.lr, (run.seed, state.stage, state.epoch)
            module.train()
            frozen.eval()
            with progress(name, len(stage.dataset), run.show_progress) as advance:
                batches = _training_batches(classifier, stage, key, run.workers)
                loss, top1 = run_epoch(network, run.method, criterion, batches, optimization, key, name, advance)
            epoch: dict[str, Any] = {"stage": state.stage + 1, "epoch": state.epoch + 1, "lr": lr, "train_loss": loss}
            epoch |= {"train_top1": top1} | _validate(run, stage)
            if run.world > 1:
                epoch |= {"processes": run.world, "batch_statistics": "of all" if recipe.sync_bn else "of each"}
            state.history.append(epoch | {"seconds": round(time.monotonic() - began, 1)})
            row = in_percent(state.history[-1:]).select_dtypes("number").iloc[0]
            if _rank() == 0:
                percent = f"train {row['train_top1']:.1f} %, val {row['val_top1']:.1f} %"
                logger.info("%s: loss %.3f, %s, %.0f s", name, loss, percent, row["seconds"])
            run.log({str(column): value for column, value in row.dropna().items()}, len(state.history))
            value = epoch["max_box_acc_v2" if recipe.best == "localization" else "val_top1"]
            measured = value == value or recipe.best == "classification"
            is_best = last and measured and state.keep_best(module, value)
            state.epoch, state.optimization = state.epoch + 1, optimization.state_dict()
            if run.folder is not None:
                about = {"val_top1": epoch["val_top1"], **run.chosen}
                for file in ("last", "best") if is_best else ("last",):
                    save_checkpoint(classifier, run.folder / f"{file}.safetensors", about)
                run.write_environment(run.folder, device)
                state.save(run.folder, module)  # last: an epoch that it counts has its weights written
    state.stage, state.epoch, state.optimization = state.stage + 1, 0, None


def _rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def _world() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def _total(*values: float) -> list[float]:
    """Sums over all processes."""
    if not distributed.is_initialized():
        return list(values)
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return sums.tolist()  # type: ignore[no-any-return]


def _validate(run: _Run, stage: Stage) -> dict[str, float]:
    """What an epoch's validation gives: accuracy, and where its turn has come localization; NaN otherwise."""
    recipe, classifier, epoch = stage.recipe, run.classifier, run.state.epoch + 1
    values = {"val_top1": float("nan")}
    if stage.validation is not None:
        size, count = classifier.input_size, recipe.batch_size
        values["val_top1"] = classification_accuracy(classifier, stage.validation, size, count, run.workers)
    if recipe.localize_every:
        values |= dict.fromkeys(("gt_known_loc", "max_box_acc_v2", "threshold", "box_area"), float("nan"))
        if stage.localization is not None and (epoch % recipe.localize_every == 0 or epoch == recipe.epochs):
            device = str(next(classifier.module.parameters()).device)
            values |= localize(classifier, stage.localization, run.workers, device)
    return values


def run_epoch(
    network: nn.Module, method: TrainingMethod, criterion: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor, float]], optimization: Optimization, key: tuple[int, int, int],
    name: str, advance: Callable[[int, str], None],
) -> tuple[float, float]:  # fmt: skip
    """Train on every batch once; return the mean loss and the accuracy on the augmented images."""
    count, correct, total_loss = 0, 0, 0.0
    for step, (images, labels, weight) in enumerate(batches):  # (B, 3, h, w), (B,)
        torch.manual_seed(int(np.random.default_rng((*key, step, 1)).integers(2**31)))
        images, targets = method.change_batch(images, labels, np.random.default_rng((*key, step, 2 + _rank())))
        with optimization.autocast():
            logits, loss = method.loss(network, images, targets, criterion)
        if not torch.isfinite(loss):
            raise UserError(f"{name}: the loss is {loss.item()}; lower training.lr or use training.precision=fp32")
        optimization.step(loss * weight)
        count, total_loss = count + len(labels), total_loss + float(loss.detach()) * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
        advance(len(labels), f"{100 * correct / count:.1f} % correct")
    seen_by_all, loss_of_all, correct_of_all = _total(count, total_loss, correct)
    return loss_of_all / max(seen_by_all, 1), correct_of_all / max(seen_by_all, 1)


def _training_batches(
    classifier: Classifier, stage: Stage, key: tuple[int, int, int], workers: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
    """An epoch's shuffled and augmented batches; of each this process's share, and what its mean loss counts."""
    recipe, count = stage.recipe, len(stage.dataset)
    world = _world()
    order = np.random.default_rng(key).permutation(count)[: whole_batches(count, recipe.batch_size, world)]
    batches = [order[start : start + recipe.batch_size] for start in range(0, len(order), recipe.batch_size)]
    shares = [np.array_split(batch, world)[_rank()] for batch in batches]
    indices, size = np.concatenate(shares).tolist(), recipe.batch_size // world
    loaded = _batches(classifier, stage.dataset, indices, classifier.input_size, size, workers, recipe.augment, key)
    for batch, share, (images, labels) in zip(batches, shares, loaded, strict=True):
        yield images, labels, world * len(share) / len(batch)


@torch.inference_mode()
def classification_accuracy(
    classifier: Classifier, dataset: Dataset, input_size: tuple[int, int] | None = None, batch_size: int = 128,
    workers: int = 2,
) -> float:  # fmt: skip
    """Share of a dataset's images whose highest logit, in the order of its classes, is the label's: Top-1 in [0, 1]."""
    module, size, correct = classifier.module.eval(), input_size or classifier.input_size, 0
    indices = range(_rank(), len(dataset), _world())
    for images, labels in _batches(classifier, dataset, indices, size, batch_size, workers):
        correct += int((logits_of(module(images)).argmax(1) == labels).sum())
    return _total(correct)[0] / len(dataset)


def _batches(
    classifier: Classifier, dataset: Dataset, indices: Sequence[int], size: tuple[int, int], batch_size: int,
    workers: int, augmentations: Sequence[Augmentation] = (), key: tuple[int, ...] = (),
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:  # fmt: skip
    """Normalized images of samples (B, 3, h, w) and their labels (B,), in the order of the indices."""
    device = next(classifier.module.parameters()).device

    def load(index: int) -> tuple[torch.Tensor, int]:
        sample, generator = dataset[index], np.random.default_rng((*key, index))
        return augment(sample.read_image(), augmentations, size, classifier.interpolation, generator), sample.label

    for batch in load_ahead(indices, load, batch_size, workers):
        pictures, labels = zip(*batch, strict=True)
        yield classifier.prepare(torch.stack(pictures), device), torch.tensor(labels, device=device)


@contextmanager
def _frozen(module: nn.Module, names: Sequence[str]) -> Iterator[nn.Module]:
    """Take the layers named out of training while the block runs."""
    layers = nn.ModuleList(find_layer(module, name) for name in names).requires_grad_(False)
    try:
        yield layers
    finally:
        layers.requires_grad_(True)


def _place(dataset: Dataset) -> str:
    role = f", role {dataset.role}" if dataset.role else ""
    return f"{dataset.name} ({dataset.split}{role}), {quantity(len(dataset), 'sample')}"


def _check_stages(stages: Sequence[Stage]) -> None:
    """Refuse stages that can't be trained, or whose best weights would be chosen on nothing, or on the test set."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    for number, stage in enumerate(stages, 1):
        for dataset in (stage.dataset, stage.validation, stage.localization):
            if dataset is not None and tuple(dataset.ids) != tuple(stages[0].dataset.ids):
                place = f"stage {number}: {dataset.name} ({dataset.split})"
                raise UserError(f"{place} has other classes than the first stage, or in another order; choose one set")
        if stage.recipe.localize_every and stage.localization is None:
            raise UserError(f"stage {number}: training.localize_every needs images to localize on: hold_out=200, say")
        if stage.localization is not None and stage.localization.role == "test":
            place = f"{stage.localization.name} ({stage.localization.split})"
            raise UserError(f"stage {number}: localization.split: {place} is for the last evaluation only")
        if stage.recipe.batch_size % world:
            raise UserError(f"training.batch_size={stage.recipe.batch_size} can't be split over {world} processes")
    if stages[-1].recipe.best == "localization" and not stages[-1].recipe.localize_every:
        raise UserError("training.best=localization needs training.localize_every=1, or another number of epochs")


@torch.no_grad()
def _check_logits(classifier: Classifier, device: torch.device) -> None:
    """Refuse a network with another number of logits than there are classes."""
    with frozen(classifier.module):
        black = torch.zeros(2, 3, *classifier.input_size, device=device)
        logits = logits_of(classifier.module(black), classifier.name).shape[1]
    if logits != len(classifier.classes or ()):
        raise UserError(f"{classifier.name} has {logits} logits for the classes {classifier.classes}: build it anew")


@dataclass
class TrainingState:
    """Where a training stands: what is kept between epochs, and taken up again after an interruption."""

    stage: int = 0  # the next epoch to train (both from 0)
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)  # a row per epoch that is done
    best_top1: float = -1.0  # what validation gave for `best`
    best: dict[str, torch.Tensor] | None = None
    plan: list[dict[str, Any]] = field(default_factory=list)  # the recipes, stage by stage
    optimization: dict[str, Any] | None = None  # as it was after the last epoch; None at the start of a stage

    def set_plan(self, recipes: Sequence[Recipe], method: TrainingMethod) -> None:
        """Remember the recipes and the method; refuse others than those that the training began with.

        More epochs of a stage at hand are fine where its schedule doesn't depend on their number.
        """
        plan = [asdict(recipe) | {"method": repr(method)} for recipe in recipes]
        for number, (old, new) in enumerate(zip(self.plan or plan, plan, strict=True)):
            free = {"epochs"} if new["schedule"] != "onecycle" and number >= self.stage else set()
            for key in (key for key in new if key not in free and old.get(key, new[key]) != new[key]):
                change = f"training.{key}={old[key]}, now it is {new[key]}; start anew in another run_dir"
                raise UserError(f"resume: stage {number + 1} began with {change}")
        self.plan = plan

    def keep_best(self, module: nn.Module, value: float) -> bool:
        """Copy the weights if they are the best so far (later epochs win ties); without validation, the last."""
        if value < self.best_top1:  # False for NaN
            return False
        self.best_top1 = value
        self.best = {name: value.detach().clone() for name, value in module.state_dict().items()}
        return True

    def save(self, folder: Path, module: nn.Module) -> None:
        """Write `resume.pt` and `history.csv`, whole or not at all."""
        content = vars(self) | (self.optimization or {}) | {"module": module.state_dict()}
        del content["optimization"]
        with atomic_write(folder / "history.csv") as path:  # first: an epoch that resume.pt counts is in it
            in_percent(self.history).to_csv(path, index=False)
        with atomic_write(folder / "resume.pt") as path:
            torch.save(content, path)

    @classmethod
    def load(cls, folder: Path | None, module: nn.Module, device: torch.device) -> TrainingState:
        """Read `resume.pt` into the module and a new state; before the first epoch has ended there is none."""
        if folder is None:
            raise UserError("nothing to resume without run_dir: pass the interrupted run's folder")
        path = folder / "resume.pt"
        if not path.is_file():
            return cls()
        try:
            content = torch.load(path, map_location=device, weights_only=True)
            module.load_state_dict(content.pop("module"))
            optimization = {name: content.pop(name) for name in PARTS}
            return cls(**content, optimization=optimization)
        except Exception as error:  # of a damaged file torch.load makes whatever it happens to be
            raise UserError(f"{path} doesn't belong to this training: {error}") from error
