"""The training story: stages of epochs over labels alone, checkpoints that can be taken up again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from wsol.console import progress
from wsol.datasets.loader import load_ahead
from wsol.datasets.sample import Dataset
from wsol.datasets.views import apply_view
from wsol.errors import UserError
from wsol.models import Classifier, find_layer, logits_of, save_checkpoint
from wsol.models.device import choose_device
from wsol.models.memory_format import prefer_channels_last
from wsol.training.augment import augment
from wsol.training.optimization import Tools, make_tools
from wsol.training.progress_file import Standing
from wsol.training.recipe import Stage

__all__ = ["Training", "classification_accuracy", "train"]

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

    Every epoch seeds itself from (seed, stage, epoch), and every image's augmentation from its index too: a run
    that was interrupted and resumed ends with the same weights as one that was not.

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
    _check(stages)
    target = choose_device(device)
    folder = None if run_dir is None else Path(run_dir)
    module = classifier.module.to(target)
    prefer_channels_last(module, stages[0].recipe.input_size or classifier.input_size, target)
    classifier.classes, classifier.class_ids = stages[-1].dataset.classes, stages[-1].dataset.ids
    classifier.knobs = stages[-1].dataset.knobs
    standing = Standing.load(folder, module, target) if resume else Standing()
    standing.keep_plan([stage.recipe for stage in stages])
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    while standing.stage < len(stages):
        stage, last_stage = stages[standing.stage], standing.stage == len(stages) - 1
        still = _freeze(module, stage.recipe.freeze)
        tools = make_tools(module, stage.recipe, len(stage.dataset), target, standing)
        while standing.epoch < stage.recipe.epochs:
            name = f"stage {standing.stage + 1}/{len(stages)}, epoch {standing.epoch + 1}/{stage.recipe.epochs}"
            began, lr = time.monotonic(), tools.schedule.get_last_lr()[0]
            key = (seed, standing.stage, standing.epoch)
            loss, top1 = _train_epoch(classifier, stage, tools, key, still, workers, name, show_progress)
            val_top1 = float("nan")
            if stage.validation is not None:
                val_top1 = classification_accuracy(
                    classifier, stage.validation, stage.recipe.input_size, stage.recipe.batch_size, workers
                )
            seconds = time.monotonic() - began
            standing.history.append(
                {"stage": standing.stage + 1, "epoch": standing.epoch + 1, "lr": lr, "train_loss": loss}
                | {"train_top1": top1, "val_top1": val_top1, "seconds": round(seconds, 1)}
            )
            logger.info(
                "%s: loss %.3f, train %.1f %%, val %.1f %%, %.0f s", name, loss, 100 * top1, 100 * val_top1, seconds
            )
            best = last_stage and standing.keep_best(module, val_top1)
            standing.epoch += 1
            tools.remember(standing)
            if folder is not None:
                for file in ("last", "best") if best else ("last",):
                    save_checkpoint(classifier, folder / f"{file}.safetensors", {"val_top1": val_top1})
                standing.save(folder, module)  # last: an epoch that it counts has its weights written
        for part in still:
            part.requires_grad_(True)
        standing.stage, standing.epoch, standing.optimizer = standing.stage + 1, 0, None
    if standing.best is not None:
        module.load_state_dict(standing.best)
    module.eval()
    return Training(classifier, pd.DataFrame(standing.history), folder)


def _check(stages: Sequence[Stage]) -> None:
    if not stages:
        raise UserError("training.stages is empty: pass at least one stage")
    for number, stage in enumerate(stages):
        for part in (stage.dataset, stage.validation):
            if part is not None and tuple(part.ids) != tuple(stages[0].dataset.ids):
                raise UserError(
                    f"stage {number + 1}: {part.name} ({part.split}) has the classes {list(part.ids)[:5]} …, "
                    f"the first stage {list(stages[0].dataset.ids)[:5]} …; they must be the same, in one order"
                )


def _freeze(module: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Take the layers named out of training; hand them back."""
    still = [find_layer(module, name) for name in names]
    for part in still:
        part.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UserError(f"training.freeze={list(names)}: nothing is left to train")
    return still


def _train_epoch(
    classifier: Classifier,
    stage: Stage,
    tools: Tools,
    key: tuple[int, int, int],
    still: Sequence[nn.Module],
    workers: int,
    name: str,
    show_progress: bool,
) -> tuple[float, float]:
    """Train one epoch; return the mean loss and the accuracy on the augmented images."""
    recipe, data, module = stage.recipe, stage.dataset, classifier.module
    generator = np.random.default_rng(key)
    torch.manual_seed(int(generator.integers(2**31)))
    size = recipe.input_size or classifier.input_size

    def load(index: int) -> tuple[torch.Tensor, int]:
        sample = data[index]
        own = np.random.default_rng((*key, index))
        return augment(sample.read_image(), recipe.augment, size, classifier.interpolation, own), sample.label

    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    module.train()
    for part in still:
        part.eval()
    seen, right, total = 0, 0, 0.0
    with progress(name, len(data), show_progress) as advance:
        order = generator.permutation(len(data)).tolist()
        for batch in load_ahead(order, load, recipe.batch_size, workers):
            if len(batch) == 1 < min(len(data), recipe.batch_size):
                continue  # batch normalization can't train on a single image
            images = classifier.prepare(torch.stack([pixels for pixels, _ in batch]), tools.device)
            labels = torch.tensor([label for _, label in batch], device=tools.device)
            with tools.autocast():
                logits = logits_of(module(images))
                if logits.shape[1] != len(data.classes):
                    raise UserError(
                        f"{classifier.name} has {logits.shape[1]} logits, {data.name} {len(data.classes)} "
                        f"classes: build the model with as many"
                    )
                loss = criterion(logits, labels)
            if not torch.isfinite(loss):
                raise UserError(f"{name}: the loss is {loss.item()}; lower training.lr or use training.precision=fp32")
            tools.step(loss)
            seen, total = seen + len(batch), total + float(loss.detach()) * len(batch)
            right += int((logits.argmax(1) == labels).sum())
            advance(len(batch), f"{100 * right / seen:.1f} % right")
    return total / max(seen, 1), right / max(seen, 1)


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
    module, right = classifier.module.eval(), 0
    device = next(module.parameters()).device
    for images, labels in _views(classifier, dataset, input_size or classifier.input_size, batch_size, workers):
        right += int((logits_of(module(classifier.prepare(images, device))).argmax(1).cpu() == labels).sum())
    return right / len(dataset)


def _views(
    classifier: Classifier, dataset: Dataset, size: tuple[int, int], batch_size: int, workers: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    def load(index: int) -> tuple[torch.Tensor, int]:
        sample = dataset[index]
        return apply_view(sample.read_image(), "squash", size, classifier.interpolation)[0], sample.label

    for batch in load_ahead(range(len(dataset)), load, batch_size, workers):
        yield torch.stack([pixels for pixels, _ in batch]), torch.tensor([label for _, label in batch])
