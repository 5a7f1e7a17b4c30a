"""A command as Hydra runs it: in its folder, a record in a sweep, and what is printed when it has ended well."""

from __future__ import annotations

import gc
import shlex
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from wsol.commands import COMMANDS
from wsol.commands.request import Request, exit_code, explain_error, is_user_error
from wsol.config import to_dict
from wsol.console import print_line, print_message, showing_messages
from wsol.errors import UserError
from wsol.io import from_here, write_json

if TYPE_CHECKING:
    from wsol.tables import Results


RECORD = "job.json"
UNFINISHED = "stopped before its end; look at what it printed"
ENDING = ("sweep.tex", "best.csv", "sweep.png", "sweep.svg")  # what is written when a sweep has ended


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

    def keywords(self, cfg: DictConfig) -> dict[str, Any]:
        """What every run is told: where it lies, what it records, whether it says how far it is."""
        config = to_dict(cfg) | {"run_dir": str(self.run_dir)}
        for method in (config.get("methods") or {}).values():
            method.pop("about", None)  # what is shown of a method decides nothing
        progress = cfg.progress and self.verbose
        return {"run_dir": self.run_dir, "config": config, "command": self.request.line, "progress": progress}

    def record(self, number: int, error: str = "", status: int = 0, values: Mapping[str, object] | None = None) -> None:
        """Write down what a job of a sweep was asked for and how it ended: error, exit code, what it returned."""
        record = {"job": number, "overrides": self.overrides, "error": error, "status": status, "values": values or {}}
        write_json(self.run_dir / RECORD, record)


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


@dataclass
class Task:
    """A command made callable by Hydra, here or in a worker of joblib or Slurm, to which it travels by pickle."""

    request: Request
    error: Exception | None = None  # of a single run, for main: Hydra would print words of its own first

    def __call__(self, cfg: DictConfig) -> None:
        """Run the command in the folder that Hydra made for it."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        hydra, single = HydraConfig.get(), HydraConfig.get().mode == RunMode.RUN
        preset = f"experiment/{self.request.command}"
        overrides = [word.replace(preset, "experiment") for word in hydra.overrides.task]
        job = Job(from_here(Path(hydra.runtime.output_dir)), overrides, hydra.runtime.choices, self.request, single)
        if not single:
            with showing_messages():
                return self._in_sweep(cfg, job, int(hydra.job.num))
        try:
            self._run(cfg, job)
        except Exception as error:
            self.error = error
        finally:
            remove_if_unused(job.run_dir)

    def _run(self, cfg: DictConfig, job: Job) -> Mapping[str, object]:
        for key in ("method", "protocol"):
            if key in cfg:  # by a + before it, say: without a word it would change nothing
                raise UserError(f"nothing reads the key {key!r}: {key}=NAME chooses one, {key}s.NAME.… are its keys")
        module = import_module(f"wsol.commands.{self.request.command}")
        if not gc.isenabled():  # the first job: modules stay, so that looking for garbage may pass them over
            gc.freeze()
            gc.enable()
        return module.run(cfg, job)  # type: ignore[no-any-return]

    def _in_sweep(self, cfg: DictConfig, job: Job, number: int) -> None:
        job.record(number, UNFINISHED, status=1)
        try:
            job.record(number, values=self._run(cfg, job))
        except Exception as error:
            message = explain_error(error, self.request) if is_user_error(error) else repr(error)
            job.record(number, message, exit_code(error))
            if not is_user_error(error):
                traceback.print_exc()
            print_message(f"job {number} ({' '.join(job.overrides)}): {message}")


Step = tuple[Sequence[str], str]  # a command, and what it is for


def print_run(results: Results, run_dir: Path) -> None:
    """Print a run's summary and what was written."""
    from wsol.report.summary import print_summary

    print_summary(results)
    written = ["Tables", *(["heatmaps"] if (run_dir / "heatmaps").is_dir() else [])]
    written += ["pictures"] if any(run_dir.glob("figures/example_*")) else []
    print_line(f"{', '.join(written)}: {from_here(run_dir)}")
    if (run_dir / "report.html").is_file():
        print_line(f"Report: {from_here(run_dir / 'report.html')}")


def print_steps(job: Job, *steps: Step) -> None:
    """Print commands to go on with."""
    folder = job.request.config_dir
    flags = [] if folder is None else ["-cd", str(folder)]
    print_line("Go on with:")
    for words, purpose in steps:
        print_line(f"  {shlex.join([*words, *flags])}  # {purpose}")


def sweep_step(job: Job, protocols: Iterable[str]) -> Step:
    """The same command as a sweep over thresholds."""
    command = job.request.command
    words = ["wsol", *([] if command == COMMANDS[0] else [command]), "-m"]
    words += [word for word in job.overrides if not word.startswith("run_dir=")]
    return [*words, f"protocols.{next(iter(protocols))}.threshold=0.1,0.15,0.2"], "a sweep, one table"
