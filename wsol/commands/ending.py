"""What is printed when a run has ended well: its summary, where it lies, and how to go on."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wsol.commands import COMMANDS
from wsol.commands.task import Job
from wsol.console import print_line
from wsol.io import from_here

if TYPE_CHECKING:
    from wsol.tables import Results


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
    own = [] if folder is None else ["-cd", str(folder)]
    print_line("Go on with:")
    for words, purpose in steps:
        print_line(f"  {shlex.join([*words, *own])}  # {purpose}")


def sweep_step(job: Job, protocols: Iterable[str]) -> Step:
    """The same command as a sweep over thresholds."""
    command = job.request.command
    words = ["wsol", *([] if command == COMMANDS[0] else [command]), "-m"]
    words += [word for word in job.overrides if not word.startswith("run_dir=")]
    return [*words, f"protocols.{next(iter(protocols))}.threshold=0.1,0.15,0.2"], "a sweep, one table"
