"""Runs that are cut into shards: the same bytes however they were made, killed at any moment and gone on with."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import wsol
from wsol.datasets import Shapes
from wsol.errors import UserError
from wsol.models import shapes_classifier
from wsol.report.run import Run
from wsol.shards import Shards, cut_shards, ranks

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("dataset.length=40", "batch_size=8", "shard_size=8", "method=[cam,center]", "protocol=[choe2020,exact]",
         "pictures=2", "progress=false")  # fmt: skip
# A child that kills itself at the n-th of the moments at which files are opened for writing, synced, renamed or gone.
KILLED = """
import os, signal, sys
count, last = 0, int(os.environ.get("KILL_AT", -1))
def hook(event, args):
    global count
    writes = event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR)
    if not writes and event not in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"): return
    if os.environ["RUN"] not in str(args[0]): return
    count += 1
    if count == last: os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
import wsol.cli
code = wsol.cli.main(sys.argv[1:])
print("moments", count)
sys.exit(code)
"""


def start(words: list[str], run: Path, kill_at: int = -1, **environment: str) -> subprocess.Popen[str]:
    environment |= {"RUN": str(run), "KILL_AT": str(kill_at), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", KILLED, *words, f"run_dir={run}"]
    return subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            env={**os.environ, **environment})  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    """All that is the same however a run was made: what says when and where it was, it may say."""
    varying = ("environment.json", "report.html", "config.yaml", "run.json")
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name not in varying}


def evaluate(run_dir: Path | None, length: int = 19, **options: object) -> wsol.Results:
    more = {"batch_size": 4, "shard_size": 8, "report": False, "pictures": 0, "progress": False} | options
    return wsol.evaluate(Shapes(length=length), shapes_classifier(), ["cam", "center"], ["choe2020", "exact"],
                         run_dir=run_dir, **more)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    evaluate(folder)
    return folder


def stop_after(shards: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """The process ends in the middle of writing a shard."""
    keep, kept = Shards._keep, []

    def dying(self: Shards, number: int, part: object) -> None:
        if len(kept) == shards:
            raise error
        kept.append(number)
        keep(self, number, part)  # type: ignore[arg-type]

    monkeypatch.setattr(Shards, "_keep", dying)


@pytest.mark.parametrize("options", [{"shard_size": 4}, {"shard_size": 512}, {"workers": 0}, {"workers": 3}], ids=str)
def test_the_same_bytes_whatever_the_shards_and_threads(whole: Path, tmp_path: Path, options: dict[str, int]) -> None:
    evaluate(tmp_path / "run", **options)
    assert content(tmp_path / "run") == content(whole)
    assert not (tmp_path / "run" / "parts").exists()


def test_a_run_in_memory_has_the_same_tables(whole: Path) -> None:
    results, run = evaluate(None), Run.open(whole)
    pd.testing.assert_frame_equal(results.per_image, pd.read_parquet(whole / "per_image.parquet"))
    assert np.allclose(
        run.sweep("cam", "exact")["iou"], results.sweeps.query("method == 'cam' and protocol == 'exact'")["iou"]
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk"), UserError("image")], ids=repr)
def test_what_was_done_is_kept_and_gone_on_with(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as context:
        stop_after(1, context, error)
        with pytest.raises(type(error)):
            evaluate(run)
    with pytest.raises(UserError, match="overwrite=true"):
        evaluate(run)
    with pytest.raises(UserError, match="resume=true"):
        Run.open(run)
    results = evaluate(run, resume=True)
    assert results.environment["forward_passes"] == 3  # of five batches two were done
    assert content(run) == content(whole)
    again = evaluate(run, resume=True)
    assert again.environment == json.loads((run / "environment.json").read_text())  # nothing ran
    pd.testing.assert_frame_equal(again.per_image, results.per_image)


def test_another_run_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError, match="resume"):
        evaluate(run, resume=True)
    with monkeypatch.context() as context:
        stop_after(1, context, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            evaluate(run)
    for other, named in (({"length": 20}, "samples"), ({"seed": 1}, "seed"), ({"batch_size": 2}, "batch_size")):
        with pytest.raises(UserError, match=named):
            evaluate(run, resume=True, **other)
    known = json.loads((run / "parts" / "identity.json").read_text())
    (run / "parts" / "identity.json").write_text(json.dumps(known | {"torch": "1.0"}))
    with pytest.raises(UserError, match="mixed=true"):
        evaluate(run, resume=True)
    evaluate(run, resume=True, mixed=True)


def test_overwriting_begins_anew(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as context:
        stop_after(1, context, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            evaluate(run, seed=1)
    results = evaluate(run, overwrite=True)
    assert results.environment["forward_passes"] == 5
    assert content(run) == content(whole)


def test_one_writer(tmp_path: Path) -> None:
    """Another process's lock is respected as long as it lives, and taken over when it is dead."""
    run, me = tmp_path / "run", os.getppid()
    (run / "parts").mkdir(parents=True)
    lock = {"host": os.uname().nodename, "pid": me}
    (run / "parts" / "lock.json").write_text(json.dumps(lock))
    with pytest.raises(UserError, match=str(me)):
        evaluate(run, overwrite=True)
    (run / "parts" / "lock.json").write_text(json.dumps(lock | {"pid": 2**22 + 1}))
    evaluate(run, overwrite=True)


def test_tables_that_were_changed_are_refused(whole: Path, tmp_path: Path) -> None:
    import shutil

    run = shutil.copytree(whole, tmp_path / "run")
    (run / "summary.csv").write_text("x")
    with pytest.raises(UserError, match=r"summary\.csv"):
        Run.open(run)


def test_shards_hold_whole_images() -> None:
    pixels = np.zeros((1, 1, 3), np.uint8)
    names = ("a1", "a2", "b1", "c1", "c2", "c3")
    samples = [wsol.Sample(sample_id=name, image_id=name[0], label=0, image=pixels) for name in names]
    several = wsol.Dataset(samples, classes=("x",), name="s", split="t", multilabel=True)
    assert cut_shards(several, 2) == [range(3), range(3, 6)]
    assert cut_shards(Shapes(length=5), 2) == [range(2), range(2, 4), range(4, 5)]


def test_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of torchrun, else those of a step of srun; a batch script is one process."""
    for name in [name for name in os.environ if name.startswith(("SLURM", "RANK", "WORLD"))]:
        monkeypatch.delenv(name)
    assert ranks() == (0, 1)
    for name, value in {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    assert ranks() == (0, 1)
    monkeypatch.setenv("SLURM_STEP_ID", "4294967291")
    monkeypatch.setenv("SLURM_STEP_NAME", "batch")
    assert ranks() == (0, 1)
    for name, value in {"SLURM_STEP_ID": "0", "SLURM_STEP_NAME": "wsol", "SLURM_STEP_NUM_TASKS": "8"}.items():
        monkeypatch.setenv(name, value)
    assert ranks() == (3, 8)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert ranks() == (1, 2)


def kill_and_resume(tmp_path: Path, times: int) -> None:
    """Kill -9 at moments drawn over a run's whole life, then go on: the same bytes."""
    child = start(list(WORDS), tmp_path / "whole")
    said, _ = child.communicate()
    assert child.returncode == 0, said
    moments, expected = int(said.split("moments ")[1]), content(tmp_path / "whole")
    drawn = sorted(random.Random(0).sample(range(1, moments + 1), times))
    print(f"{moments} moments at which a file is written, renamed or removed; killed at {drawn}")
    for moment in drawn:
        run = tmp_path / f"killed_{moment}"
        child = start(list(WORDS), run, moment)
        said, _ = child.communicate()
        assert child.returncode == -signal.SIGKILL, said
        if (run / "run.json").is_file():  # nothing but the parts was left to be removed
            assert {*expected} <= {*content(run)}
            continue
        with pytest.raises(UserError):
            Run.open(run)
        child = start(["resume=true", *WORDS], run)
        said, _ = child.communicate()
        assert child.returncode == 0, f"killed at {moment}: {said}"
        assert content(run) == expected, moment


@pytest.mark.long
def test_killed_at_six_moments(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, 6)


@pytest.mark.long
def test_killed_at_fifty_moments(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, 50)


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_run_soon_and_say_how_to_go_on(tmp_path: Path, sent: int, code: int) -> None:
    words = [word.replace("length=40", "length=4000") for word in WORDS]
    child = start(words, tmp_path / "run")
    until(lambda: any((tmp_path / "run" / "parts").glob("0*")))
    child.send_signal(sent)
    began = time.monotonic()
    said, _ = child.communicate()
    assert child.returncode == code and time.monotonic() - began < 60
    assert f"resume=true run_dir={tmp_path / 'run'}" in said
    assert any((tmp_path / "run" / "parts").glob("0*"))


@pytest.mark.long
def test_processes_share_a_run(tmp_path: Path) -> None:
    """Two do a half each, one prints; the same bytes."""
    alone = start(list(WORDS), tmp_path / "one")
    assert alone.wait() == 0
    both = [start(list(WORDS), tmp_path / "two", RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    said = [child.communicate()[0] for child in both]
    assert [child.returncode for child in both] == [0, 0], said
    assert [text.count("shapes (test, 40 samples)") for text in said] == [1, 0]
    assert content(tmp_path / "two") == content(tmp_path / "one")
