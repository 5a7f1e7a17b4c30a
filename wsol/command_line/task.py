"""A job as Hydra calls it: in its folder, and an error ends the job, not the sweep."""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from wsol.command_line import sweep
from wsol.command_line.arguments import Arguments
from wsol.command_line.explain import exit_code, explain, is_users_to_mend
from wsol.command_line.jobs import Job
from wsol.console import print_message, showing_messages
from wsol.errors import UserError

__all__ = ["Task", "failures"]

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
            with showing_messages():
                self._in_sweep(cfg, folder, int(hydra.job.num), typed, Arguments(command, overrides=words))
            return
        try:
            if not os.access(folder, os.W_OK | os.X_OK):
                raise UserError(f"run_dir={folder}: nothing can be written there; pass another run_dir")
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
            sweep.write_record(folder, number, typed, error=said, unexpected=exit_code(error) == 1)
            if not mendable:
                traceback.print_exc()
            print_message(f"job {number} ({' '.join(typed)}): {said}")
