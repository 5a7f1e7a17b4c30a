"""A job as Hydra calls it: in its folder, and an error ends the job, not the sweep."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from wsol.command_line import sweep
from wsol.command_line.arguments import Arguments
from wsol.command_line.explain import explain, is_users_to_mend
from wsol.command_line.jobs import Job

__all__ = ["Task", "complain", "failures", "logging_to_stderr"]

failures: list[Exception] = []  # of a single run, for main: Hydra would print words of its own first


@dataclass(frozen=True)
class Task:
    """A job made callable by Hydra, here or in a worker of joblib or Slurm, to which it travels by pickle."""

    job: Job

    def __call__(self, cfg: DictConfig) -> None:
        """Run the job in the folder that Hydra made for it."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        hydra, here = HydraConfig.get(), Path.cwd()
        folder, words = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
        folder = folder.relative_to(here) if folder.is_relative_to(here) else folder
        command = str(hydra.job.name)
        typed = [word.replace(f"experiment/{command}", "experiment") for word in words]
        if hydra.mode == RunMode.MULTIRUN:
            with logging_to_stderr():
                self._in_sweep(cfg, folder, int(hydra.job.num), typed, Arguments(command, overrides=words))
            return
        try:
            self.job(cfg, folder, typed, True)
        except Exception as error:
            failures.append(error)
        finally:
            sweep.remove_if_unused(folder)

    def _in_sweep(self, cfg: DictConfig, folder: Path, number: int, typed: list[str], arguments: Arguments) -> None:
        sweep.write_record(folder, number, typed)
        try:
            values = self.job(cfg, folder, typed, False)
            sweep.write_record(folder, number, typed, error=None, values=values)
        except Exception as error:
            mendable = is_users_to_mend(error)
            said = explain(error, arguments) if mendable else repr(error)
            sweep.write_record(folder, number, typed, error=said, unexpected=not mendable)
            if not mendable:
                traceback.print_exc()
            complain(f"job {number} ({' '.join(typed)}): {said}")


def complain(message: str, kind: str = "error") -> None:
    """Print one message to stderr, in color where that is a terminal and NO_COLOR isn't set."""
    color = {"error": "\033[31m", "warning": "\033[33m"}[kind]
    colored = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    head = f"{color}wsol: {kind}:\033[0m" if colored else f"wsol: {kind}:"
    print(head, message, file=sys.stderr)


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Show what wsol says while the block runs, whatever Hydra sets up; leave logging as it was."""
    logger, root = logging.getLogger("wsol"), logging.getLogger()
    before = logger.level, logger.propagate, list(logger.handlers)
    root_before = root.level, list(root.handlers)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.level, logger.propagate, logger.handlers = before
        root.level, root.handlers = root_before
