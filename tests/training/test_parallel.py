"""Two processes under torchrun end with the weights of one, to rounding, where nothing normalizes by the batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from tests.training.toy import Tints, recipe, run, small
from wsol.errors import UserError
from wsol.models import read_checkpoint
from wsol.training import Stage

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
    code = f"from tests.training.test_parallel import *; plain_run(Path({str(tmp_path / 'two')!r}))"
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
