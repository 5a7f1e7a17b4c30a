"""A run that was interrupted and resumed ends to the bit as one that was not; whatever can't be resumed is named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.training.toy import Tints, run, same, small, stages_of, weights
from wsol.errors import UserError
from wsol.models import gapnet, read_checkpoint

PLANS = {
    "adamw, one cycle": [{}],
    "sgd, step": [{"optimizer": "sgd", "schedule": "step", "step_epochs": 2, "augment": ("shift", "color")}],
    "two stages": [{"epochs": 2, "input_size": (8, 8), "schedule": "constant"}, {"epochs": 2}],
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("reads", [30, 48, 55, 72])  # of 24 pictures an epoch: within an epoch and between two
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
