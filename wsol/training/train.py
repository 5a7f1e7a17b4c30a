"""The training story: stages of epochs over labels alone, checkpoints that can be taken up again.

Every epoch seeds itself from (seed, stage, epoch), and every image's augmentation from its index too: a run that was
interrupted and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from wsol.console import progress
from wsol.datasets.images import load_ahead
from wsol.datasets.sample import Dataset
from wsol.errors import UserError
from wsol.io import atomic_write
from wsol.models import Classifier, find_layer, logits_of, save_checkpoint
from wsol.models.inference import choose_device, prefer_channels_last
from wsol.training.recipe import PARTS, Augmentation, Optimization, Recipe, Stage, augment

logger = logging.getLogger("wsol")


@dataclass
class Training:
    """What came out.

    Parameters
    ----------
    classifier : Classifier
        With the best weights by validation accuracy in the last stage.
    history : DataFrame
        One row per epoch: stage, epoch, lr, train_loss, train_top1, val_top1 (fractions), seconds.
    run_dir : Path, optional
        Where `best.safetensors`, `last.safetensors`, `history.csv` and `resume.pt` are.
    """

    classifier: Classifier
    history: pd.DataFrame
    run_dir: Path | None


def train(
    classifier: Classifier,
    stages: Sequence[Stage],
    *,
    run_dir: Path | str | None = None,
    seed: int = 0,
    workers: int = 2,
    device: str = "auto",
    resume: bool = False,
    show_progress: bool = True,
) -> Training:
    """Train a classifier on image labels.

    Parameters
    ----------
    classifier : Classifier
        Its module is trained in place.
    stages : sequence of Stage
        One after the other, each with its own optimizer and schedule.
    run_dir : path, optional
        Folder for weights, history and the file to resume from.
    seed : int
    workers : int
        Threads that load images.
    device : str
        "auto", "cpu", "cuda", "cuda:1", …
    resume : bool
        Go on where `run_dir/resume.pt` stopped.
    show_progress : bool

    Returns
    -------
    Training

    Raises
    ------
    UserError
        If there is no stage, a dataset has other classes than the first or the model, nothing can be resumed,
        what is resumed began with another recipe, or the loss is not finite.
    """
    _check_classes(stages)
    place = choose_device(device)
    folder = None if run_dir is None else Path(run_dir)
    module = classifier.module.to(place)
    prefer_channels_last(module, stages[0].recipe.input_size or classifier.input_size, place)
    goal = stages[-1].dataset
    classifier.classes, classifier.class_ids, classifier.knobs = goal.classes, goal.ids, goal.knobs
    state = TrainingState.load(folder, module, place) if resume else TrainingState()
    state.set_plan([stage.recipe for stage in stages])
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    while state.stage < len(stages):
        _run_stage(classifier, stages, state, folder, seed, workers, show_progress)
    if state.best is not None:
        module.load_state_dict(state.best)
    module.eval()
    return Training(classifier, pd.DataFrame(state.history), folder)


def _run_stage(
    classifier: Classifier,
    stages: Sequence[Stage],
    state: TrainingState,
    folder: Path | None,
    seed: int,
    workers: int,
    show_progress: bool,
) -> None:
    """Train the epochs of a stage that are left; after each, write what a resumed training needs."""
    stage, module = stages[state.stage], classifier.module
    recipe, size = stage.recipe, stage.recipe.input_size or classifier.input_size
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    with _frozen(module, recipe.freeze) as frozen:
        optimization = Optimization(module, recipe, len(stage.dataset), next(module.parameters()).device)
        if state.optimization is not None:
            optimization.load_state_dict(state.optimization)
        while state.epoch < recipe.epochs:
            name = f"stage {state.stage + 1}/{len(stages)}, epoch {state.epoch + 1}/{recipe.epochs}"
            began, lr, key = time.monotonic(), optimization.lr, (seed, state.stage, state.epoch)
            module.train()
            frozen.eval()
            with progress(name, len(stage.dataset), show_progress) as advance:
                batches = _training_batches(classifier, stage, key, workers)
                loss, top1 = run_epoch(classifier, criterion, batches, optimization, name, advance)
            val_top1 = float("nan")
            if stage.validation is not None:
                val_top1 = classification_accuracy(classifier, stage.validation, size, recipe.batch_size, workers)
            seconds = round(time.monotonic() - began, 1)
            epoch = {"stage": state.stage + 1, "epoch": state.epoch + 1, "lr": lr, "train_loss": loss}
            state.history.append(epoch | {"train_top1": top1, "val_top1": val_top1, "seconds": seconds})
            percent = f"train {100 * top1:.1f} %, val {100 * val_top1:.1f} %"
            logger.info("%s: loss %.3f, %s, %.0f s", name, loss, percent, seconds)
            is_best = stage is stages[-1] and state.keep_best(module, val_top1)
            state.epoch, state.optimization = state.epoch + 1, optimization.state_dict()
            if folder is not None:
                for file in ("last", "best") if is_best else ("last",):
                    save_checkpoint(classifier, folder / f"{file}.safetensors", {"val_top1": val_top1})
                state.save(folder, module)  # last: an epoch that it counts has its weights written
    state.stage, state.epoch, state.optimization = state.stage + 1, 0, None


def run_epoch(
    classifier: Classifier,
    criterion: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    optimization: Optimization,
    name: str,
    advance: Callable[[int, str], None],
) -> tuple[float, float]:
    """Train on every batch once; return the mean loss and the accuracy on the augmented images."""
    classes, seen, correct, total_loss = len(classifier.classes or ()), 0, 0, 0.0
    for images, labels in batches:  # (B, 3, h, w), (B,)
        with optimization.autocast():
            logits = logits_of(classifier.module(images))  # (B, C)
            if logits.shape[1] != classes:
                raise UserError(f"{classifier.name} has {logits.shape[1]} logits for {classes} classes: build it anew")
            loss = criterion(logits, labels)
        if not torch.isfinite(loss):
            raise UserError(f"{name}: the loss is {loss.item()}; lower training.lr or use training.precision=fp32")
        optimization.step(loss)
        seen, total_loss = seen + len(labels), total_loss + float(loss.detach()) * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
        advance(len(labels), f"{100 * correct / seen:.1f} % correct")
    return total_loss / max(seen, 1), correct / max(seen, 1)


def _training_batches(
    classifier: Classifier, stage: Stage, key: tuple[int, int, int], workers: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """An epoch's shuffled and augmented batches; dropout is seeded as well."""
    recipe, count = stage.recipe, len(stage.dataset)
    size = recipe.input_size or classifier.input_size
    generator = np.random.default_rng(key)
    torch.manual_seed(int(generator.integers(2**31)))
    order = generator.permutation(count).tolist()
    for batch in _batches(classifier, stage.dataset, order, size, recipe.batch_size, workers, recipe.augment, key):
        if len(batch[1]) > 1 or min(count, recipe.batch_size) == 1:  # batch normalization can't train on one image
            yield batch


@torch.inference_mode()
def classification_accuracy(
    classifier: Classifier,
    dataset: Dataset,
    input_size: tuple[int, int] | None = None,
    batch_size: int = 128,
    workers: int = 2,
) -> float:
    """Share of a dataset's images whose highest logit is the label's: Top-1 in [0, 1].

    Parameters
    ----------
    classifier : Classifier
        Its logits in the order of the dataset's classes; it stays on its device.
    dataset : Dataset
    input_size : (height, width), optional
        By default the classifier's.
    batch_size, workers : int
    """
    module, size, correct = classifier.module.eval(), input_size or classifier.input_size, 0
    for images, labels in _batches(classifier, dataset, range(len(dataset)), size, batch_size, workers):
        correct += int((logits_of(module(images)).argmax(1) == labels).sum())
    return correct / len(dataset)


def _batches(
    classifier: Classifier,
    dataset: Dataset,
    indices: Sequence[int],
    size: tuple[int, int],
    batch_size: int,
    workers: int,
    augmentations: Sequence[Augmentation] = (),
    key: tuple[int, ...] = (),
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
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


def _check_classes(stages: Sequence[Stage]) -> None:
    if not stages:
        raise UserError("training.stages is empty: pass at least one stage")
    for number, stage in enumerate(stages, 1):
        for dataset in (stage.dataset, stage.validation):
            if dataset is not None and tuple(dataset.ids) != tuple(stages[0].dataset.ids):
                place = f"stage {number}: {dataset.name} ({dataset.split})"
                raise UserError(f"{place} has other classes than the first stage, or in another order; choose one set")


@dataclass
class TrainingState:
    """Where a training stands: what is kept between epochs, and taken up again after an interruption."""

    stage: int = 0  # the next epoch to train (both from 0)
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)  # a row per epoch that is done
    best_top1: float = -1.0  # validation accuracy of `best`
    best: dict[str, torch.Tensor] | None = None
    plan: list[dict[str, Any]] = field(default_factory=list)  # the recipes, stage by stage
    optimization: dict[str, Any] | None = None  # as it was after the last epoch; None at the start of a stage

    def set_plan(self, recipes: Sequence[Recipe]) -> None:
        """Remember the recipes; refuse others than those that the training began with.

        More epochs of a stage at hand are fine where its schedule doesn't depend on their number.
        """
        plan = [asdict(recipe) for recipe in recipes]
        if self.plan and len(self.plan) != len(plan):
            raise UserError(f"resume: {len(plan)} stages, but the training began with {len(self.plan)}")
        for number, (old, new) in enumerate(zip(self.plan, plan, strict=False)):
            free = {"epochs"} if new["schedule"] != "onecycle" and number >= self.stage else set()
            for key in (key for key in new if key not in free and old.get(key) != new[key]):
                change = f"training.{key}={old.get(key)}, now it is {new[key]}; start anew in another run_dir"
                raise UserError(f"resume: stage {number + 1} began with {change}")
        self.plan = plan

    def keep_best(self, module: nn.Module, top1: float) -> bool:
        """Copy the weights if they are the best so far (later epochs win ties); without validation, the last."""
        if top1 < self.best_top1:  # False for NaN
            return False
        self.best_top1 = top1
        self.best = {name: value.detach().clone() for name, value in module.state_dict().items()}
        return True

    def save(self, folder: Path, module: nn.Module) -> None:
        """Write `resume.pt` and `history.csv`, whole or not at all."""
        content = vars(self) | (self.optimization or {}) | {"module": module.state_dict()}
        del content["optimization"]
        with atomic_write(folder / "resume.pt") as path:
            torch.save(content, path)
        with atomic_write(folder / "history.csv") as path:
            pd.DataFrame(self.history).to_csv(path, index=False)

    @classmethod
    def load(cls, folder: Path | None, module: nn.Module, device: torch.device) -> TrainingState:
        """Read `resume.pt` into the module and a new state."""
        path = None if folder is None else folder / "resume.pt"
        if path is None or not path.is_file():
            raise UserError(f"nothing to resume: no file {path}; pass run_dir=<the interrupted run's folder>")
        try:
            content = torch.load(path, map_location=device, weights_only=True)
            module.load_state_dict(content.pop("module"))
            optimization = {name: content.pop(name) for name in PARTS}
            return cls(**content, optimization=optimization)
        except Exception as error:  # of a damaged file torch.load makes whatever it happens to be
            raise UserError(f"{path} doesn't belong to this training: {error}") from error
