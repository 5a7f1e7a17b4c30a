"""Watching a training: localization on what is held out, best by it, the curve, other people's loggers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests.training.toy import Tints, file_weights, recipe, run, same, small, stages_of
from wsol.datasets import Dataset, Shapes
from wsol.errors import UserError
from wsol.models import Classifier, gapnet, read_checkpoint, shapes_classifier
from wsol.training import Stage
from wsol.training import train as train_function
from wsol.training.watch import localize, spread

KNOBS = {"size": 32, "classes": 3, "object_size": (0.6, 0.9)}
story = sys.modules[train_function.__module__]


def thin() -> Classifier:
    module = gapnet(3, widths=(6, 8), strides=(2, 2), seed=0)
    return Classifier(name="small", module=module, layer="features", input_size=(32, 32))


def held_out(**keys: object) -> Stage:
    rest, part = spread(Shapes("train", length=30, **KNOBS), 6)
    return Stage(dataset=rest, localization=part, recipe=recipe(**{"localize_every": 1, "batch_size": 8, **keys}))


def test_held_out_images_are_spread_and_not_trained_on() -> None:
    whole = Shapes("train", length=30, **KNOBS)
    rest, part = spread(whole, 6)
    ids = [sample.sample_id for sample in whole]
    assert (len(rest), len(part)) == (24, 6)
    assert sorted(s.sample_id for s in (*rest, *part)) == ids and part[0].sample_id == ids[0]
    assert (part.classes, part.role) == (whole.classes, "train-weaksup")
    assert part.labels.tolist() == [sample.label for sample in part]
    for count in (0, 30):
        with pytest.raises(UserError, match="shapes"):
            spread(whole, count)


def test_localization_every_few_epochs_is_written_down(tmp_path: Path) -> None:
    done = run(thin(), [held_out(localize_every=2, epochs=5)], run_dir=tmp_path, command="wsol train …")
    measured = done.history[["gt_known_loc", "max_box_acc_v2", "threshold", "box_area"]].notna().all(axis=1)
    assert measured.tolist() == [False, True, False, True, True]  # the last epoch in any case
    assert done.history["gt_known_loc"].dropna().between(0, 1).all()
    assert done.history["box_area"].dropna().between(0.01, 1).all()
    written = pd.read_csv(tmp_path / "history.csv")
    for name in ("train_top1", "gt_known_loc", "max_box_acc_v2", "box_area"):
        np.testing.assert_allclose(written[name], 100 * done.history[name])
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["command"] == "wsol train …" and environment["versions"]["torch"]
    assert (environment["best_by"], environment["best_on"]) == ("classification", "the last epoch")


def test_a_training_that_localizes_is_resumed(tmp_path: Path) -> None:
    keys = {"schedule": "constant", "best": "localization"}
    whole = run(thin(), [held_out(epochs=2, **keys)])
    run(thin(), [held_out(epochs=1, **keys)], run_dir=tmp_path)
    rest = run(thin(), [held_out(epochs=2, **keys)], run_dir=tmp_path, resume=True)
    pd.testing.assert_frame_equal(rest.history.drop(columns="seconds"), whole.history.drop(columns="seconds"))


def test_each_of_several_processes_localizes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    part, classifier = held_out().localization, thin()
    classifier.classes = part.classes
    found = localize(classifier, part, 0, "cpu")
    assert 0 <= found["max_box_acc_v2"] <= 1 and (os.environ["WORLD_SIZE"], os.environ["RANK"]) == ("2", "1")


def test_best_by_localization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, after = iter([0.2, 0.9, 0.4]), []

    def measure(classifier: Classifier, dataset: Dataset, *_: object) -> dict[str, float]:
        after.append({name: value.clone() for name, value in classifier.module.state_dict().items()})
        assert len(dataset) == 8
        return {"gt_known_loc": 0.5, "max_box_acc_v2": next(values), "threshold": 0.1}

    monkeypatch.setattr(story, "localize", measure)
    stages = stages_of([{"localize_every": 1, "best": "localization"}], Tints())
    stages = [Stage(**{**vars(stages[0]), "localization": Tints(8, "val")})]
    run(small(), stages, run_dir=tmp_path)
    assert same(file_weights(tmp_path / "best.safetensors"), after[1])
    metadata = read_checkpoint(tmp_path / "best.safetensors").metadata
    assert metadata["best_by"] == "localization" and metadata["best_on"].startswith("tints (val)")


@pytest.mark.parametrize(
    ("stage", "culprit"),
    [
        (Stage(dataset=Tints(), recipe=recipe(localize_every=1)), "localize_every"),
        (Stage(dataset=Tints(), recipe=recipe(best="localization")), "best"),
        (Stage(dataset=Shapes(length=9, **KNOBS), localization=Shapes("test", length=9, **KNOBS),
               recipe=recipe(localize_every=1)), "test"),
    ],
)  # fmt: skip
def test_what_can_not_be_watched_is_refused(stage: Stage, culprit: str) -> None:
    with pytest.raises(UserError, match=culprit):
        run(thin(), [stage])


class Logged:
    """Stands for wandb and mlflow alike."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def __enter__(self) -> Logged:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True

    def log(self, row: dict[str, float], step: int) -> None:
        self.rows.append((step, row))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_loggers_get_the_history_in_percent(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged, module = Logged(), ModuleType(name)
    start = lambda **_: logged  # noqa: E731
    vars(module).update(init=start, start_run=start, log_params=lambda _: None, log_metrics=logged.log)
    monkeypatch.setitem(sys.modules, name, module)
    done = run(small(), stages_of([{}], Tints()), run_dir=tmp_path, logger=name, config={"seed": 1})
    assert [step for step, _ in logged.rows] == [1, 2, 3] and logged.ended
    assert [row["val_top1"] for _, row in logged.rows] == pytest.approx(100 * done.history["val_top1"])


def test_tensorboard_gets_a_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run(small(), stages_of([{"epochs": 1}], Tints()), run_dir=tmp_path, logger="tensorboard")
    assert any((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize(("name", "culprit"), [("wandb", r"wsol\[wandb\]"), ("tensorbord", "tensorbord")])
def test_loggers_that_are_not_there(name: str, culprit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=culprit):
        run(small(), stages_of([{}], Tints()), logger=name)


def test_the_size_that_a_network_was_trained_at(tmp_path: Path) -> None:
    from wsol.engine import weights_notes

    stage = Stage(dataset=Shapes("train", length=8, **KNOBS), recipe=recipe(epochs=1, input_size=(16, 16)))
    run(shapes_classifier(weights=None, num_classes=3), [stage], run_dir=tmp_path)
    loaded = shapes_classifier(weights=tmp_path / "best.safetensors")
    assert loaded.input_size == loaded.trained_size == (16, 16)
    assert weights_notes(SimpleNamespace(knobs={}, name="x"), loaded) == []
    loaded.input_size = (32, 32)
    (note,) = weights_notes(SimpleNamespace(knobs={}, name="x"), loaded)
    assert "16 x 16" in note and "32 x 32" in note


def test_the_stride_that_a_network_was_trained_with(tmp_path: Path) -> None:
    stage = Stage(dataset=Shapes("train", length=8, **KNOBS), recipe=recipe(epochs=1))
    run(shapes_classifier(weights=None, num_classes=3, output_stride=4), [stage], run_dir=tmp_path)
    with pytest.raises(UserError, match="output_stride=4"):
        shapes_classifier(weights=tmp_path / "best.safetensors")
    assert shapes_classifier(weights=tmp_path / "best.safetensors", output_stride=4).output_stride == 4
