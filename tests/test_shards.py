"""Runs that are cut into shards: the same bytes however they were made, killed at any moment and gone on with."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision import models

import wsol
import wsol.cli
import wsol.report.page
from wsol.console import ranks, showing_messages
from wsol.datasets import Shapes
from wsol.errors import UserError
from wsol.models import Classifier, shapes_classifier
from wsol.report.run import Run
from wsol.shards import Shards, cut_shards

WORDS = ["dataset.length=40", "batch_size=8", "shard_size=8", "method=[cam,center]", "protocol=[choe2020,exact]",
         "pictures=0", "report=false", "run_dir=run"]  # fmt: skip
# What is written in each phase of a run, by the first part of the file's name.
PHASES = {
    "begin": ("parts/lock", "parts/identity", "parts/.identity", "config", ".config"), "shard": ("parts/",),
    "join": (".heatmaps", "heatmaps", "samples", ".samples"), "page": ("report", ".report", "figures"),
    "marker": ("run.json", ".run.json"), "table": ("",),
}  # fmt: skip


def fork(work: Callable[[], object], folder: Path, **environment: str) -> int:
    """Start a child, which has everything loaded, in a folder of its own; what it says is in `said` there."""
    folder.mkdir(exist_ok=True)
    if (pid := os.fork()) > 0:
        return pid
    code: object = 1
    try:
        os.chdir(folder)
        log = os.open("said", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1), os.dup2(log, 2)
        sys.stdout, sys.stderr = open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115
        os.environ |= environment
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which what a shell starts by & ignores
        torch.set_num_threads(1)
        code = work() or 0
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        traceback.print_exc()
        code = 2 if isinstance(error, UserError) else 1
    finally:
        os._exit(code if isinstance(code, int) else 0)


def wait(pid: int) -> int:
    """Exit status of a child, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def command(*words: str) -> Callable[[], int]:
    """What a child does: the command line."""

    def work() -> int:
        sys.argv = ["wsol", *words]
        return wsol.cli.main()

    return work


def killed_at(moment: int, again: bool = False, full: bool = False) -> Callable[[], object]:
    """What a child does: evaluate, and kill itself at the n-th of the moments at which something is written.

    `full`: instead the disk is full from then on.

    Moments are those at which a file is opened for writing, synced, renamed or removed, or a folder made or removed;
    each is printed.
    """

    def work() -> None:
        moments = itertools.count() if moment >= 0 else itertools.repeat(-2)
        here, fsync = os.getcwd(), os.fsync

        def passed(path: str, writes: bool) -> None:
            path = os.path.relpath(os.path.join(here, path), os.path.join(here, "run"))
            if not path.startswith(".."):
                os.write(1, f"moment {path}\n".encode())
                number = next(moments)
                if full and writes and number >= moment:
                    raise OSError(28, "No space left on device")
                if not full and number == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        def hook(event: str, args: tuple[Any, ...]) -> None:
            writes = event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR)
            if writes or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
                passed(os.fspath(args[0]), bool(writes))

        def counted(handle: int) -> None:
            passed(os.readlink(f"/proc/self/fd/{handle}"), True)
            fsync(handle)

        sys.addaudithook(hook)
        os.fsync = counted
        wsol.report.page.draw_figures = lambda *_: None  # the slowest, whose files are as any other
        evaluate(Path("run"), 10, ["choe2020"], report=True, resume=again, command="typed")

    return work


def moments_of(folder: Path) -> list[str]:
    """Phase of each moment that a child passed."""
    paths = [line[7:] for line in (folder / "said").read_text().splitlines() if line.startswith("moment ")]
    end = max((n for n, path in enumerate(paths) if "run.json" in path), default=len(paths))
    phases = [next(name for name, starts in PHASES.items() if path.startswith(starts)) for path in paths]
    return ["removal" if number > end else phase for number, phase in enumerate(phases)]


def content(folder: Path) -> dict[str, bytes]:
    """All that is the same however a run was made: all but what says when and where it was."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != "environment.json"}


def evaluate(
    run_dir: Path | None, length: int = 19, protocols: Sequence[str] = ("choe2020", "exact"), **options: object
) -> wsol.Results:
    more = {"batch_size": 4, "shard_size": 8, "report": False, "pictures": 0, "progress": False} | options
    return wsol.evaluate(Shapes(length=length), shapes_classifier(), ["cam", "center"], protocols,
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
    assert repr(again) == repr(results)  # empty cells are numbers that are missing, not texts


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


def test_overwriting_begins_anew(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as context:
        stop_after(1, context, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            evaluate(run, seed=1)
    results = evaluate(run, overwrite=True)
    assert results.environment["forward_passes"] == 5
    assert content(run) == content(whole)
    started = results.environment["started"]
    assert started not in caplog.text
    evaluate(run)
    assert any(str(run) in text and started in text for text in caplog.messages), "a whole run is replaced"


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


@pytest.fixture(scope="module")
def passed(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its page that was made in a child and never killed."""
    folder = tmp_path_factory.mktemp("passed")
    assert wait(fork(killed_at(-1), folder)) == 0, (folder / "said").read_text()
    return folder


def kill_and_resume(passed: Path, tmp_path: Path, times: int) -> None:
    """Kill -9 in each phase in turn, at moments drawn from it, then go on: the same bytes."""
    phases, expected, draw = moments_of(passed), content(passed / "run"), random.Random(times)
    names, hits = list(dict.fromkeys(phases)), Counter[str]()
    for number in range(times):
        wanted = names[(number + 1) % len(names)]
        moment = draw.choice([moment for moment, phase in enumerate(phases) if phase == wanted])
        folder = tmp_path / f"{moment}"
        assert wait(fork(killed_at(moment), folder)) == -signal.SIGKILL, (folder / "said").read_text()
        hits[wanted] += 1
        if (folder / "run" / "run.json").is_file():
            Run.open(folder / "run")
        elif (folder / "run").is_dir():
            with pytest.raises(UserError):
                Run.open(folder / "run")
        begun = (folder / "run" / "parts").is_dir() or (folder / "run" / "run.json").is_file()
        assert wait(fork(killed_at(-1, again=begun), folder)) == 0, (wanted, moment, (folder / "said").read_text())
        assert content(folder / "run") == expected, (wanted, moment)
        shutil.rmtree(folder)
    print(f"{len(phases)} moments, {Counter(phases)}; killed {hits}")


def test_killed_at_six_moments(passed: Path, tmp_path: Path) -> None:
    kill_and_resume(passed, tmp_path, 6)


@pytest.mark.long
def test_killed_at_fifty_moments(passed: Path, tmp_path: Path) -> None:
    kill_and_resume(passed, tmp_path, 50)


@pytest.mark.long
def test_killed_twice_and_by_the_clock(passed: Path, tmp_path: Path) -> None:
    """Also in the middle of what no hook sees, and a resume may be killed as well."""
    expected, draw, kills = content(passed / "run"), random.Random(0), 0
    for number in range(6):
        folder, again = tmp_path / f"{number}", False
        for _ in range(2):
            pid = fork(killed_at(-1, again), folder)
            time.sleep(draw.uniform(0.05, 1.5))
            os.kill(pid, signal.SIGKILL)
            kills += wait(pid) == -signal.SIGKILL
            again = (folder / "run" / "parts").is_dir() or (folder / "run" / "run.json").is_file()
        assert wait(fork(killed_at(-1, again), folder)) == 0, (folder / "said").read_text()
        assert content(folder / "run") == expected
    assert kills > 6


@pytest.mark.parametrize(
    "phase", ["shard", "table", *(pytest.param(name, marks=pytest.mark.long) for name in ("join", "page", "marker"))]
)
def test_a_full_disk_then_space(passed: Path, tmp_path: Path, phase: str) -> None:
    """In each phase the disk is full; with space again the run goes on: the same bytes."""
    moment = moments_of(passed).index(phase) + 1
    assert wait(fork(killed_at(moment, full=True), tmp_path)) == 2, (tmp_path / "said").read_text()
    assert wait(fork(killed_at(-1, again=True), tmp_path)) == 0, (tmp_path / "said").read_text()
    assert content(tmp_path / "run") == content(passed / "run")


def until(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_run_and_say_how_to_go_on(whole: Path, tmp_path: Path, sent: int, code: int) -> None:
    pid = fork(command(*WORDS, "dataset.length=1000"), tmp_path)
    until(lambda: any((tmp_path / "run" / "parts").glob("0*")))
    os.kill(pid, sent)
    assert wait(pid) == code, (tmp_path / "said").read_text()
    assert "resume=true run_dir=run" in (tmp_path / "said").read_text()
    assert any((tmp_path / "run" / "parts").glob("0*"))


def ranks_of(folder: Path, world: int, *words: str) -> list[int]:
    """Processes that share a run."""
    pids = [fork(command(*WORDS, *words), folder, RANK=str(rank), WORLD_SIZE=str(world)) for rank in range(world)]
    return [wait(pid) for pid in pids]


def killed_at_shard(count: int) -> Callable[[], int]:
    """What a child does: the command line, until it kills itself when it has kept so many shards."""

    def work() -> int:
        keep, left = Shards._keep, iter(range(count))

        def dying(self: Shards, number: int, part: Any) -> None:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            keep(self, number, part)

        Shards._keep = dying  # type: ignore[method-assign]
        return command(*WORDS, "report=true")()

    return work


@pytest.fixture(scope="module")
def alone(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    assert wait(fork(command(*WORDS, "report=true"), folder)) == 0
    return folder / "run"


@pytest.mark.long
@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_a_run(alone: Path, tmp_path: Path, world: int) -> None:
    """Each does its share, one prints; the same bytes."""
    assert ranks_of(tmp_path, world, "report=true") == [0] * world, (tmp_path / "said").read_text()
    assert content(tmp_path / "run") == content(alone)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["forward_passes"] == 5
    warnings = [(folder / "said").read_text().count("wsol: warning") for folder in (tmp_path, alone.parent)]
    assert warnings[0] == warnings[1]


def test_a_process_that_begins_late_finds_the_run(whole: Path, tmp_path: Path) -> None:
    """There is one shard, which the first process has done long before the second one looks for the run."""
    words = [*WORDS, "dataset.length=8"]
    first = fork(command(*words), tmp_path, RANK="0", WORLD_SIZE="2")
    until(lambda: (tmp_path / "run" / "heatmaps" / "cam.npy").is_file() or (tmp_path / "run" / "parts/000000").is_dir())
    assert wait(fork(command(*words), tmp_path, RANK="1", WORLD_SIZE="2")) == 0, (tmp_path / "said").read_text()
    assert wait(first) == 0
    assert (tmp_path / "run" / "run.json").is_file()


@pytest.mark.long
def test_others_wait_until_the_first_has_cleared_away_what_was_left(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock is there a while before: the parts of the run that it overwrites are none of theirs."""
    take_lock = Shards._take_lock

    def slow(self: Shards) -> None:
        time.sleep(3)  # the others look at the killed run's
        take_lock(self)
        time.sleep(3)

    monkeypatch.setattr(wsol.shards, "SILENT", 8.0)
    monkeypatch.setattr(wsol.shards, "BEAT", 0.5)
    assert wait(fork(killed_at_shard(3), tmp_path)) == -signal.SIGKILL
    (tmp_path / "run" / "parts" / "rank-1.json").write_text("{}")
    monkeypatch.setattr(Shards, "_take_lock", slow)
    assert ranks_of(tmp_path, 2, "report=true", "overwrite=true") == [0, 0], (tmp_path / "said").read_text()
    assert content(tmp_path / "run") == content(alone)


class Broken(Shapes):
    """One mask of the second shard can't be read."""

    def __getitem__(self, index: int) -> wsol.Sample:
        sample = super().__getitem__(index)
        return dataclasses.replace(sample, mask=Path("/nowhere/mask.png")) if index == 12 else sample


@pytest.mark.long
def test_the_first_process_says_what_others_met(whole: Path, tmp_path: Path) -> None:
    """A mask that only the second process was asked to read is named once."""

    def work() -> None:
        with showing_messages():
            wsol.evaluate(
                Broken(length=16), shapes_classifier(), ["cam"], ["choe2020"], run_dir=Path("run"), on_error="skip",
                batch_size=8, shard_size=8, report=False, pictures=0,
            )  # fmt: skip

    pids = [fork(work, tmp_path, RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    said = (tmp_path / "said").read_text()
    assert list(map(wait, pids)) == [0, 0], said
    assert (tmp_path / "said").read_text().count("warning: sample test/00012") == 1


@pytest.mark.long
def test_a_killed_rank_is_named_and_others_do_the_rest(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wsol.shards, "SILENT", 8.0)
    monkeypatch.setattr(wsol.shards, "BEAT", 0.5)

    first = fork(command(*WORDS, "report=true"), tmp_path, RANK="0", WORLD_SIZE="2")
    second = fork(killed_at_shard(0), tmp_path, RANK="1", WORLD_SIZE="2")
    assert wait(second) == -signal.SIGKILL
    assert wait(first) == 1
    assert "process 1" in (tmp_path / "said").read_text()
    assert not (tmp_path / "run" / "run.json").exists()
    assert ranks_of(tmp_path, 3, "report=true", "resume=true") == [0, 0, 0], (tmp_path / "said").read_text()
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["forward_passes"] == 2  # of all three
    assert content(tmp_path / "run") == content(alone)


@pytest.mark.long
def test_a_sweep_skips_jobs_that_are_done(whole: Path, tmp_path: Path) -> None:
    words = [*WORDS[1:], "-m"]
    assert wait(fork(command(*words, "dataset.length=8,9"), tmp_path)) == 0, (tmp_path / "said").read_text()
    before = [(tmp_path / "run" / number / "environment.json").read_text() for number in "01"]
    again = command(*words, "dataset.length=9,10,8", "resume=true")
    assert wait(fork(again, tmp_path)) == 0, (tmp_path / "said").read_text()
    after = [(tmp_path / "run" / number / "environment.json").read_text() for number in "012"]
    assert [after[2], after[0]] == before
    assert json.loads(after[1])["forward_passes"] == 2


@pytest.mark.long
def test_of_two_resumes_one_is_refused(whole: Path, tmp_path: Path) -> None:
    words = [*WORDS, "dataset.length=400"]
    pid = fork(command(*words), tmp_path)
    until(lambda: any((tmp_path / "run" / "parts").glob("0*")))
    os.kill(pid, signal.SIGKILL)
    wait(pid)
    both = [fork(command(*words, "resume=true"), tmp_path) for _ in range(2)]
    assert sorted(map(wait, both)) == [0, 2], (tmp_path / "said").read_text()


@pytest.mark.long
@pytest.mark.parametrize("remainder", [1, 2, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_shards_of_mobilenet_with_a_remainder(tmp_path: Path, remainder: int, threads: int) -> None:
    """A last batch of one to three images has the bytes that it has in one shard."""
    runs = []
    for size in (8, 512):
        torch.manual_seed(0)
        torch.set_num_threads(threads)
        classes = Shapes(length=1).classes
        classifier = Classifier.from_module(models.mobilenet_v2(num_classes=len(classes)), classes=classes)
        wsol.evaluate(
            Shapes(length=8 + remainder), classifier, ["cam", "gradcam"], ["choe2020"], run_dir=tmp_path / f"{size}",
            batch_size=4, shard_size=size, report=False, pictures=0, progress=False,
        )  # fmt: skip
        runs.append(content(tmp_path / f"{size}"))
    assert runs[0] == runs[1]
