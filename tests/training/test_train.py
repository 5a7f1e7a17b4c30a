"""Training: it learns, keeps the best and the last, goes on to the bit where it stopped; two processes are one."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tests.training.toy import Small, Tints, file_weights, recipe, run, same, small, stages_of, weights
from wsol.datasets import Sample
from wsol.errors import UserError
from wsol.models import Classifier, gapnet, read_checkpoint
from wsol.training import Stage, classification_accuracy

story = importlib.import_module("wsol.training.train")
Log = pytest.LogCaptureFixture
Patch = pytest.MonkeyPatch


@pytest.mark.parametrize(
    "keys",
    [
        {"optimizer": "sgd", "lr": 0.1, "weight_decay": 1e-4},
        {"schedule": "constant", "lr": 0.02, "precision": "bf16"},
        {"augment": ["crop", "shift", "flip", "turn"], "label_smoothing": 0.1},
    ],
    ids=["sgd", "constant and bf16", "augmented"],
)
def test_it_learns(keys: dict[str, object]) -> None:
    classifier, validation = small(), Tints(16, "val")
    before = classification_accuracy(classifier, validation, workers=0)
    done = run(classifier, [Stage(dataset=Tints(), recipe=recipe(epochs=8, **keys), validation=validation)])
    assert done.history["train_loss"].iloc[-1] < 0.75 * done.history["train_loss"].iloc[0]
    assert done.history["val_top1"].max() >= 0.9
    after = classification_accuracy(classifier, validation, workers=0)
    assert after == done.history["val_top1"].max() > before
    assert not classifier.module.training


def test_history_log_input_sizes_and_what_the_classifier_knows(caplog: Log) -> None:
    stages = stages_of([{"epochs": 1, "input_size": (12, 8)}, {"epochs": 2}], Tints())
    sizes, classifier = set(), small()
    classifier.module.register_forward_pre_hook(lambda module, inputs: sizes.add(tuple(inputs[0].shape[2:])))
    with caplog.at_level(logging.INFO, "wsol"):
        done = run(classifier, stages)
    columns = ["stage", "epoch", "lr", "train_loss", "train_top1", "val_top1", "seconds"]
    assert list(done.history.columns) == columns
    assert done.history[["stage", "epoch"]].to_numpy().tolist() == [[1, 1], [2, 1], [2, 2]]
    assert done.history[["train_top1", "val_top1"]].stack().between(0, 1).all()
    epochs = ["stage 1/2, epoch 1/1", "stage 2/2, epoch 1/2", "stage 2/2, epoch 2/2"]
    assert [message.split(":")[0] for message in caplog.messages] == epochs
    assert sizes == {(12, 8), (16, 16)}
    assert done.run_dir is None
    assert done.classifier.classes == done.classifier.class_ids == ("red", "green")
    assert done.classifier.knobs == {"strength": 60}


def test_boxes_and_masks_are_never_looked_at() -> None:
    class Guarded(Tints):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            boxes = np.full((1, 4), np.nan)
            return Sample(sample_id="x", label=sample.label, image=sample.image, boxes=boxes, mask=Path("/nowhere"))

    whole = run(small(), [Stage(dataset=Tints(), recipe=recipe(epochs=1))])
    trained = run(small(), [Stage(dataset=Guarded(), recipe=recipe(epochs=1))])
    assert same(weights(trained.classifier), weights(whole.classifier))


def test_same_seed_same_weights_whatever_the_threads() -> None:
    stages = [Stage(dataset=Tints(), recipe=recipe(augment=("crop", "flip", "color")))]
    one = weights(run(small(), stages, seed=3, workers=0).classifier)
    two = weights(run(small(), stages, seed=3, workers=3).classifier)
    other = weights(run(small(), stages, seed=4).classifier)
    assert same(one, two)
    assert not same(one, other)


@pytest.mark.parametrize(
    ("epochs", "accuracies", "best"),
    [
        ([3], [0.2, 0.9, 0.5], 1),
        ([3], [0.9, 0.2, 0.9], 2),
        ([3], [0.9, 0.8, 0.7], 0),
        ([3], [0.0, 0.0, 0.0], 2),
        ([1, 2], [1.0, 0.3, 0.2], 1),  # the best are of the last stage
    ],
)
def test_best_and_last(
    tmp_path: Path, monkeypatch: Patch, epochs: list[int], accuracies: list[float], best: int
) -> None:
    after: list[dict[str, torch.Tensor]] = []

    def measure(classifier: Classifier, *_: object) -> float:
        after.append(weights(classifier))
        return accuracies[len(after) - 1]

    monkeypatch.setattr(story, "classification_accuracy", measure)
    done = run(small(), stages_of([{"epochs": count} for count in epochs], Tints()), run_dir=tmp_path)
    assert done.history["val_top1"].tolist() == accuracies
    assert not same(after[0], after[1])
    assert same(file_weights(tmp_path / "best.safetensors"), after[best])
    assert same(file_weights(tmp_path / "last.safetensors"), after[2])
    assert same(weights(done.classifier), after[best])
    metadata = read_checkpoint(tmp_path / "best.safetensors").metadata
    assert metadata["val_top1"] == accuracies[best]
    assert metadata["classes"] == ["red", "green"] and metadata["knobs"] == {"strength": 60}
    assert metadata["input_size"] == [16, 16]


def test_without_validation_the_last_are_the_best(tmp_path: Path) -> None:
    done = run(small(), [Stage(dataset=Tints(), recipe=recipe())], run_dir=tmp_path)
    assert done.history["val_top1"].isna().all()
    assert same(file_weights(tmp_path / "best.safetensors"), file_weights(tmp_path / "last.safetensors"))


def test_an_epoch_that_counts_has_its_weights_written(tmp_path: Path, monkeypatch: Patch) -> None:
    """Broken off while `resume.pt` is written, the epoch is trained again; its weights are there in any case."""
    written: list[float] = []

    def save(self: object, folder: Path, module: nn.Module) -> None:
        assert (folder / "last.safetensors").is_file()
        assert same(file_weights(folder / "last.safetensors"), module.state_dict())
        written.append(1)

    monkeypatch.setattr(story.TrainingState, "save", save)
    run(small(), stages_of([{"epochs": 2}], Tints()), run_dir=tmp_path)
    assert len(written) == 2


@pytest.mark.parametrize(("count", "batch_size", "steps"), [(24, 8, 3), (25, 8, 3), (26, 8, 4), (3, 8, 1), (3, 1, 3)])
def test_steps_of_an_epoch(count: int, batch_size: int, steps: int) -> None:
    """A last batch of a single image is left out: batch normalization can't train on it."""
    sizes: list[int] = []
    classifier = small()

    def note(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if module.training:  # a first pass, in evaluation, only tells which memory format suits the network
            sizes.append(len(inputs[0]))

    classifier.module.register_forward_pre_hook(note)
    stage = Stage(dataset=Tints(count), recipe=recipe(epochs=2, batch_size=batch_size))
    done = run(classifier, [stage])
    assert len(sizes) == 2 * steps
    assert min(sizes) > 1 or batch_size == 1
    assert (done.history["train_loss"] > 0).all()


@pytest.mark.parametrize("logits", [1, 3])
def test_model_with_another_number_of_classes_is_refused(logits: int) -> None:
    classifier = small(module=lambda: gapnet(logits, widths=(4,), strides=(2,)))
    with pytest.raises(UserError, match=f"small has {logits} logits"):
        run(classifier, [Stage(dataset=Tints(), recipe=recipe())])


@pytest.mark.parametrize("classes", [("green", "red"), ("red", "blue"), ("red", "green", "blue")])
def test_datasets_with_other_classes_are_refused(classes: tuple[str, ...]) -> None:
    other, keys = Tints(8, "val", classes), {"dataset": Tints(), "recipe": recipe()}
    for stages in ([Stage(**keys), Stage(**keys | {"dataset": other})], [Stage(**keys, validation=other)]):
        with pytest.raises(UserError, match=rf"stage {len(stages)}: tints \(val\)"):
            run(small(), stages)


@pytest.mark.parametrize(
    ("plan", "culprit"), [([{"precision": "fp16"}], "fp16"), ([{"freeze": ["conv.99"]}], "conv.99")]
)
def test_plans_that_can_not_be_followed_are_refused(plan: list[dict[str, object]], culprit: str) -> None:
    with pytest.raises(UserError, match=culprit):
        run(small(), stages_of(plan, Tints()))


def test_loss_that_is_not_finite_names_the_epoch(tmp_path: Path) -> None:
    classifier = small()
    with torch.no_grad():
        classifier.module.head.bias[0] = float("nan")
    with pytest.raises(UserError, match="^stage 1/1, epoch 1/3: .*nan"):
        run(classifier, stages_of([{}], Tints()), run_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_classification_accuracy_counts_the_highest_logits() -> None:
    class Answers(Small):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            red = (images.mean((2, 3))[:, 0] > images.mean((2, 3))[:, 1]).float()
            return torch.stack([red, torch.full_like(red, 0.5)], 1)

    classifier = small(module=Answers)
    assert classification_accuracy(classifier, Tints(10), batch_size=4, workers=2) == 1
    wrong = Tints(10, classes=("red", "green", "blue"))  # blue is 3 of 10 and never answered
    assert classification_accuracy(classifier, wrong, batch_size=3, workers=0) == 0.7


def test_frozen_layers_keep_weights_and_statistics_and_are_free_afterwards() -> None:
    classifier = small()
    names = ("conv", "norm")
    before = {key: value.clone() for key, value in classifier.module.state_dict().items()}
    run(classifier, [Stage(dataset=Tints(), recipe=recipe(epochs=1, freeze=names))])
    after = classifier.module.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert not any(key.startswith(names) for key in changed)
    assert all(parameter.requires_grad for parameter in classifier.module.parameters())


ROOT = Path(__file__).parents[2]


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Linear(8, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.relu(self.conv(images)).mean((2, 3)))


def plain_run(folder: Path) -> None:
    """27 images: the last batch has three, which two processes share unevenly."""
    keys = {"optimizer": "sgd", "lr": 0.1, "augment": ("flip",)}
    stage = Stage(dataset=Tints(27), recipe=recipe(epochs=2, **keys), validation=Tints(9, "val"))
    run(small(module=Plain), [stage], run_dir=folder, seed=2)


@pytest.mark.long
def test_two_processes_are_one(tmp_path: Path) -> None:
    plain_run(tmp_path / "one")
    code = f"from tests.training.test_train import *; plain_run(Path({str(tmp_path / 'two')!r}))"
    (tmp_path / "job.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", tmp_path / "job.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    one, two = (read_checkpoint(tmp_path / folder / "last.safetensors").state for folder in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-5)
    tables = [pd.read_csv(tmp_path / folder / "history.csv").drop(columns="seconds") for folder in ("one", "two")]
    assert set(tables[1].pop("processes")) == {2} and set(tables[1].pop("batch_statistics")) == {"of each"}
    pd.testing.assert_frame_equal(*tables, atol=1e-5)
    assert '"processes": 2' in (tmp_path / "two" / "environment.json").read_text()


def test_batches_that_can_not_be_split_evenly_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="batch_size=8"):
        run(small(), [Stage(dataset=Tints(), recipe=recipe())])


PLANS = {
    "adamw, one cycle": [{}],
    "sgd, step": [{"optimizer": "sgd", "schedule": "step", "step_epochs": 2, "augment": ("shift", "color")}],
    "two stages": [{"epochs": 2, "input_size": (8, 8), "schedule": "constant"}, {"epochs": 2}],
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize(  # of 24 pictures an epoch: within an epoch and between two
    "reads", [30, 48, *(pytest.param(reads, marks=pytest.mark.long) for reads in (55, 72))]
)
def test_interrupted_and_resumed_is_the_same_to_the_bit(
    tmp_path: Path, plan: list[dict[str, object]], reads: int
) -> None:
    whole = run(small(), stages_of(plan, Tints()), run_dir=tmp_path / "whole", seed=5)
    broken = Tints()
    broken.left = reads
    if reads < 24 * len(whole.history):
        with pytest.raises(KeyboardInterrupt):
            run(small(), stages_of(plan, broken), run_dir=tmp_path / "parts", seed=5)
    else:
        run(small(), stages_of(plan, broken), run_dir=tmp_path / "parts", seed=5)
    done = pd.read_csv(tmp_path / "parts" / "history.csv")
    assert len(done) == reads // 24
    torch.manual_seed(999)  # what happens in between does not matter, nor do the weights to begin with
    resumed = run(small(seed=9), stages_of(plan, Tints()), run_dir=tmp_path / "parts", seed=5, resume=True)
    assert same(weights(resumed.classifier), weights(whole.classifier))
    pd.testing.assert_frame_equal(resumed.history.drop(columns="seconds"), whole.history.drop(columns="seconds"))
    for name in ("best.safetensors", "last.safetensors"):
        parts, expected = (read_checkpoint(tmp_path / folder / name) for folder in ("parts", "whole"))
        assert same(dict(parts.state), dict(expected.state))
        assert parts.metadata == expected.metadata
    kept = sorted(path.name for path in (tmp_path / "parts").iterdir())
    expected = ["best.safetensors", "environment.json", "history.csv", "history.png", "last.safetensors", "resume.pt"]
    assert kept == expected


def test_resuming_what_has_ended_changes_nothing(tmp_path: Path) -> None:
    stages = stages_of([{}], Tints())
    done = run(small(), stages, run_dir=tmp_path)
    again = run(small(seed=1), stages, run_dir=tmp_path, resume=True)
    assert same(weights(done.classifier), weights(again.classifier))
    pd.testing.assert_frame_equal(done.history, again.history)


def test_more_epochs_can_follow_where_the_schedule_allows(tmp_path: Path) -> None:
    keys = {"schedule": "constant", "optimizer": "sgd"}
    whole = run(small(), stages_of([{"epochs": 4, **keys}], Tints()))
    run(small(), stages_of([{"epochs": 2, **keys}], Tints()), run_dir=tmp_path)
    more = run(small(), stages_of([{"epochs": 4, **keys}], Tints()), run_dir=tmp_path, resume=True)
    assert same(weights(more.classifier), weights(whole.classifier))


@pytest.mark.parametrize(
    ("plan", "culprit"),
    [
        ([{"epochs": 5}], "epochs"), ([{"lr": 0.5}], "lr"), ([{"optimizer": "sgd"}], "optimizer"),
        ([{"augment": ("flip",)}], "augment"),
    ],
)  # fmt: skip
def test_resuming_with_another_plan_is_refused(tmp_path: Path, plan: list[dict[str, object]], culprit: str) -> None:
    run(small(), stages_of([{}], Tints()), run_dir=tmp_path)
    before = (tmp_path / "resume.pt").read_bytes()
    with pytest.raises(UserError, match=culprit):
        run(small(), stages_of(plan, Tints()), run_dir=tmp_path, resume=True)
    assert (tmp_path / "resume.pt").read_bytes() == before


def test_before_the_first_epoch_has_ended_resuming_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="resume"):
        run(small(), stages_of([{}], Tints()), run_dir=None, resume=True)
    whole = run(small(), stages_of([{}], Tints()), run_dir=tmp_path / "whole")
    started = run(small(), stages_of([{}], Tints()), run_dir=tmp_path / "parts", resume=True)
    assert same(weights(started.classifier), weights(whole.classifier))


def test_resume_file_of_another_network_is_named(tmp_path: Path) -> None:
    run(small(), stages_of([{}], Tints()), run_dir=tmp_path)
    other = small(module=lambda: gapnet(2, widths=(4,), strides=(2,)))
    with pytest.raises(UserError, match=r"(?s)resume\.pt .*conv\.weight"):
        run(other, stages_of([{}], Tints()), run_dir=tmp_path, resume=True)
