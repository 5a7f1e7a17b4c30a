"""A command as Hydra runs it: in its folder, a record in a sweep, and what is printed when it has ended well."""

from __future__ import annotations

import gc
import json
import os
import re
import shlex
import sys
import traceback
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from wsol.commands import COMMANDS
from wsol.commands.request import Request, compose_application, exit_code, explain_error, is_user_error, read_words
from wsol.config import resume_config, to_dict
from wsol.console import clean, print_line, print_message, ranks, showing_messages
from wsol.errors import UserError, quantity
from wsol.io import from_here, read_json, write_json

if TYPE_CHECKING:
    from wsol.tables import Results


RECORD = "job.json"
WAITING = "never started"
UNFINISHED = "stopped before its end; look at what it printed"
ENDING = ("sweep.tex", "sweep.md", "sweep.html", "best.csv", "jobs.csv", "sweep.png", "sweep.svg", "sweep.pdf")


@dataclass(frozen=True)
class Job:
    """What a command gets beside its configuration."""

    run_dir: Path
    overrides: list[str]  # as they were typed
    choices: Mapping[str, str]  # which option of a group was taken
    request: Request
    verbose: bool = True  # not in a sweep, where what a job returns goes into the sweep's table

    def typed(self, start: str) -> list[str]:
        """Overrides that begin with these letters."""
        return [word for word in self.overrides if word.startswith(start)]

    def resumed(self, cfg: DictConfig) -> DictConfig:
        """With `resume=true`, the configuration that the run in this folder began with."""
        from wsol.engine import FREE

        if ranks()[1] > 1 and not self.typed("run_dir="):
            raise UserError("several processes share a run by its folder: pass run_dir=DIR")
        if not cfg.get("resume"):
            return cfg
        if not (self.run_dir / "config.yaml").is_file():
            if self.verbose:
                raise UserError(f"nothing to resume: {self.run_dir} has no config.yaml; leave resume=true out")
            cfg.resume = False  # a job of a sweep that was never begun
            return cfg
        return resume_config(self.run_dir, _without_cards(cfg), self.overrides, (*FREE, "run_dir", "hydra", "launcher"))

    def begun(self, line: str) -> Job:
        """The job that a run began with, which may have been resumed since; `line` is what was typed then."""
        if line == self.request.line or not line.startswith("wsol "):
            return self
        try:
            request, record = read_words(shlex.split(line)[1:]), self.run_dir / RECORD
            if record.is_file():  # it was a job of a sweep
                words = [request.command, *read_json(record)["overrides"]]
                request = replace(request, overrides=read_words(words).overrides)
            hydra = compose_application(request.command, request.overrides, request.config_dir).hydra
        except (UserError, HydraException, OmegaConfBaseException):  # options of the user's own are gone
            return self
        return replace(self, overrides=_typed(request.overrides), choices=hydra.runtime.choices, request=request)

    def keywords(self, cfg: DictConfig) -> dict[str, Any]:
        """What every run is told: where it lies, what it records, whether it says how far it is."""
        config = _without_cards(cfg) | {"run_dir": str(self.run_dir)}
        progress = cfg.progress and self.verbose
        return {"run_dir": self.run_dir, "config": config, "command": self.request.line, "progress": progress}

    def record(self, number: int, error: str = "", status: int = 0, values: Mapping[str, object] | None = None) -> None:
        """Write down what a job of a sweep was asked for and how it ended: error, exit code, what it returned."""
        record = {"job": number, "overrides": self.overrides, "error": error, "status": status, "values": values or {}}
        self.run_dir.mkdir(parents=True, exist_ok=True)
        write_json(self.run_dir / RECORD, record)


def _without_cards(cfg: DictConfig) -> dict[str, Any]:
    """A configuration without what is shown of a method, which decides nothing."""
    config = to_dict(cfg)
    for method in (config.get("methods") or {}).values():
        method.pop("about", None)
    return config


def list_jobs(folder: Path, config: DictConfig, words: Sequence[str]) -> None:
    """Write down every job of a sweep before the first one starts; none shall end because another's worker is killed.

    What another sweeper than Hydra's own will ask for isn't known before.
    """
    hydra, jobs = config.hydra, list[list[str]]()
    if str(hydra.sweeper._target_).endswith(".BasicSweeper"):
        sweep_overrides = [f"{key}={value}" for key, value in (hydra.sweeper.get("params") or {}).items()]
        overrides = OverridesParser.create().parse_overrides([*sweep_overrides, *words])
        jobs = [_typed(job) for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]
    if config.get("resume"):
        renumber(folder, jobs)
    forget_earlier(folder)
    for number, asked in enumerate(jobs):
        Job(folder / str(number), asked, {}, Request("", Namespace(), [], "")).record(number, WAITING, 1)
    if str(hydra.launcher._target_).endswith(".JoblibLauncher"):
        from hydra_plugins.hydra_joblib_launcher import _core

        _core.Parallel = SeparateWorkers


def renumber(folder: Path, jobs: Sequence[Sequence[str]]) -> None:
    """Give folders of an earlier sweep's jobs the numbers by which the same is asked for now; others come behind."""
    from wsol.engine import FREE

    free = tuple(f"{key}=" for key in (*FREE, "run_dir", "launcher"))
    wanted = {str(number): sorted(word for word in job if not word.startswith(free)) for number, job in enumerate(jobs)}
    others, moves = count(len(jobs)), dict[Path, str]()
    for record in sorted(folder.glob(f"*/{RECORD}")):
        words = json.loads(record.read_text(encoding="utf-8"))["overrides"]
        asked = sorted(word for word in words if not word.startswith(free))
        same = (number for number, job in wanted.items() if job == asked and number not in moves.values())
        behind = (name for name in map(str, others) if not (folder / name).exists())
        moves[record.parent] = next(same, None) or next(behind)
    moves = {place: name for place, name in moves.items() if place.name != name}
    for place in moves:
        place.rename(place.with_name(f".{place.name}.moved"))
    for place, name in moves.items():
        place.with_name(f".{place.name}.moved").rename(folder / name)


class SeparateWorkers:
    """What runs jobs side by side in place of joblib's `Parallel`, whose workers all end when one of them is killed."""

    def __init__(self, n_jobs: int = -1, **_: object) -> None:
        from joblib import cpu_count, effective_n_jobs

        self.count = effective_n_jobs(n_jobs)
        self.env = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cpu_count() // self.count)))}
        self.idle: list[Any] = []
        self.workers: list[Any] = []

    def __call__(self, tasks: Iterable[tuple[Any, Any, Any]]) -> list[JobReturn]:
        """Run the jobs, each in one of so many processes; of a killed one its record says so."""
        with ThreadPoolExecutor(self.count) as pool:
            try:
                return list(pool.map(self._run, tasks))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                for worker in self.workers:
                    worker.shutdown(kill_workers=True)

    def _run(self, task: tuple[Any, Any, Any]) -> JobReturn:
        from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

        function, arguments, keywords = task
        worker = self.idle.pop() if self.idle else ProcessPoolExecutor(1, env=self.env)
        self.workers.append(worker)
        try:
            ended: JobReturn = worker.submit(function, *arguments, **keywords).result()
        except BrokenProcessPool:
            return JobReturn(status=JobStatus.COMPLETED)
        self.idle.append(worker)
        return ended


def forget_earlier(folder: Path) -> None:
    """Jobs of an earlier sweep in the same folder no longer count."""
    for name in (f"*/{RECORD}", *ENDING):
        for path in folder.glob(name):
            path.unlink()


def remove_if_unused(folder: Path) -> None:
    """Remove a run's folder in which nothing was written, or only the sweep's plan."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {"multirun.yaml"}:
        (folder / "multirun.yaml").unlink(missing_ok=True)
        folder.rmdir()


def _typed(words: Iterable[str]) -> list[str]:
    """Overrides of the task as they were typed: presets are kept per command."""
    return [re.sub(r"experiment/\w+", "experiment", word) for word in words if not word.startswith("hydra")]


@dataclass
class Task:
    """A command made callable by Hydra, here or in a worker of joblib or Slurm, to which it travels by pickle."""

    request: Request
    error: Exception | None = None  # of a single run, for main: Hydra would print words of its own first

    def __call__(self, cfg: DictConfig) -> float | None:
        """Run the command in the folder that Hydra made for it."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        hydra, single = HydraConfig.get(), HydraConfig.get().mode == RunMode.RUN
        folder, choices = from_here(Path(hydra.runtime.output_dir)), hydra.runtime.choices
        job = Job(folder, _typed(hydra.overrides.task), choices, self.request, single)
        if not single:
            with showing_messages():
                return self._in_sweep(cfg, job, int(hydra.job.num))
        try:
            self._run(cfg, job)
        except Exception as error:
            self.error = error
        finally:
            remove_if_unused(job.run_dir)
        return None

    def _run(self, cfg: DictConfig, job: Job) -> Mapping[str, object]:
        for key in ("method", "protocol"):
            if key in cfg:  # by a + before it, say: without a word it would change nothing
                raise UserError(f"nothing reads the key {key!r}: {key}=NAME chooses one, {key}s.NAME.… are its keys")
        module = import_module(f"wsol.commands.{self.request.command}")
        if not gc.isenabled():  # the first job: modules stay, so that looking for garbage may pass them over
            gc.freeze()
            gc.enable()
        return module.run(cfg, job)  # type: ignore[no-any-return]

    def _in_sweep(self, cfg: DictConfig, job: Job, number: int) -> float | None:
        job.record(number, UNFINISHED, status=1)
        try:
            values = self._run(cfg, job)
            job.record(number, values=values)
            return objective(job.run_dir, values)
        except Exception as error:
            message = explain_error(error, self.request) if is_user_error(error) else repr(error)
            job.record(number, message, exit_code(error))
            if not is_user_error(error):
                print(clean(traceback.format_exc()), file=sys.stderr)
            print_message(f"job {number} ({' '.join(job.overrides)}): {message}")
        return None


def objective(folder: Path, values: Mapping[str, object]) -> float | None:
    """What a sweeper such as Optuna maximizes, in percent: the measure of sweeps, of the best method but baselines."""
    import pandas as pd

    from wsol.heatmaps.method import BASELINES
    from wsol.report.summary import MEASURES

    path = folder / "summary.csv"
    table = pd.read_csv(path) if path.is_file() else pd.DataFrame([values])
    methods = table[~table["method"].isin(BASELINES)] if "method" in table else table
    for name, (_, factor) in MEASURES.items():
        if name in methods and methods[name].notna().any():
            return factor * float(methods[name].max())
    return None


def earlier_heatmaps(job: Job) -> Path | None:
    """Heatmaps of another job of this sweep that was asked for the same but for rules of scoring, if one has ended."""
    if job.verbose:
        return None
    pattern = re.compile(r"[+~]*(protocols?\b|threshold_from|table\b)")
    asked = [word for word in job.overrides if not pattern.match(word)]
    for path in sorted(job.run_dir.parent.glob(f"*/{RECORD}")):
        record, heatmaps = read_json(path), path.parent / "heatmaps"
        alike = [word for word in record["overrides"] if not pattern.match(word)] == asked
        if alike and not record["error"] and path.parent != job.run_dir and heatmaps.is_dir():
            return heatmaps
    return None


Step = tuple[Sequence[str], str]  # a command, and what it is for


def print_run(results: Results, run_dir: Path) -> None:
    """Print a run's summary and what was written."""
    from wsol.report.summary import print_summary

    print_summary(results)
    if len(results.faithfulness):
        from wsol.report.charts import method_name
        from wsol.report.faithfulness import judge_run, measured_by, print_faithfulness

        print_faithfulness(judge_run(*measured_by(results)), method_name)
    written = ["Tables", *(["heatmaps"] if (run_dir / "heatmaps").is_dir() else [])]
    written += ["pictures"] if any(run_dir.glob("figures/example_*")) else []
    print_line(f"{', '.join(written)}: {from_here(run_dir)}")
    if (run_dir / "report.html").is_file():
        print_line(f"Report: {from_here(run_dir / 'report.html')}")


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print what a run would take."""
    low, high = (timedelta(seconds=round(seconds)) for seconds in plan["seconds"])
    batch = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in plan["batch_seconds"].items())
    nouns = {"images": "image", "samples": "sample", "shards": "shard", "passes": "batch"}
    print_line(", ".join(quantity(plan[key], noun) for key, noun in nouns.items()))
    print_line(f"About {plan['bytes'] / 1e6:,.1f} MB, and as much again while its shards are joined")
    among = f" by {plan['processes']} processes like this one" if plan["processes"] > 1 else ""
    print_line(f"A batch takes: {batch}; all of them {low} to {high}{among}")


def print_steps(job: Job, *steps: Step) -> None:
    """Print commands to go on with."""
    folder = job.request.config_dir
    flags = [] if folder is None else ["-cd", str(folder)]
    print_line("Go on with:")
    for words, purpose in steps:
        print_line(f"  {shlex.join([*words, *flags])}  # {purpose}")


def sweep_step(job: Job, *settings: str) -> Step:
    """The same command as a sweep over these settings."""
    command = job.request.command
    words = ["wsol", *([] if command == COMMANDS[0] else [command]), "-m"]
    words += [word for word in job.overrides if not word.startswith("run_dir=")]
    return [*words, *settings], "a sweep, one table"
