"""Sweeps whose jobs run elsewhere: on a Ray cluster of one node, and as Slurm's jobs, by submitit's own processes."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
RAY = ["launcher=ray", "++hydra.launcher.ray.init.num_cpus=2", "++hydra.launcher.ray.init.include_dashboard=false"]
LOCAL = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10", "hydra.launcher.cpus_per_task=1"]


@pytest.mark.long
@pytest.mark.parametrize(("plugin", "launcher"), [("ray", RAY), ("submitit", LOCAL)])
def test_four_jobs_make_one_table(plugin: str, launcher: list[str], tmp_path: Path) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher")
    words = ["-m", "seed=0,1,2,3", "method=[random]", "protocol=[choe2020]", "limit=3", "pictures=0", "run_dir=sweep"]
    here = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run([sys.executable, "-m", "wsol", *words, *launcher], cwd=tmp_path, env=here, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stdout
    table = pd.read_csv(tmp_path / "sweep" / "sweep.csv", keep_default_na=False)
    assert set(table["n_seeds"]) == {4} and set(table["n_samples"]) == {3}  # seeds are pooled
    assert all((tmp_path / "sweep" / str(number) / "run.json").is_file() for number in range(4))
