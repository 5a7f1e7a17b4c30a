"""The command line: `wsol [evaluate | train | score | compare | …]`, each a Hydra application over conf/."""

from __future__ import annotations

import io
import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from wsol import __version__
from wsol.command_line import completion, jobs, sweep
from wsol.command_line.arguments import Arguments, parse_arguments
from wsol.command_line.check_job import check_job
from wsol.command_line.compare_job import compare_job
from wsol.command_line.explain import exit_code, explain, is_users_to_mend
from wsol.command_line.explain_job import explain_job
from wsol.command_line.options import check_headers, group_options, help_text, shadowed
from wsol.command_line.report_job import report_job
from wsol.command_line.task import Task, failures
from wsol.console import print_message, showing_messages
from wsol.errors import UserError
from wsol.io import conf_dir
from wsol.memory import keep_memory

__all__ = ["APPLICATIONS", "main"]

logger = logging.getLogger("wsol")
EXPERIMENT = re.compile(r"^(\+{0,2}|~)experiment(?=[=@]|$)")


@dataclass(frozen=True)
class Application:
    """A command: its job, one line on what it does, and what it runs with when nothing is chosen."""

    job: jobs.Job
    about: str
    alone: tuple[str, ...] = ()


# OpenMP's threads spin while they wait, and so keep the threads that load images from running: beside other work that
# made training five times slower. A short spin, 10 to 30 µs, is enough where they wait for each other; sleeping at once
# costs a wake-up for every small layer. It is read when torch is loaded, which happens later.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    words : sequence of str, optional
        By default those that the program was started with.

    Returns
    -------
    int
        0; 2 for what the user can mend, 1 for faults that `wsol check` found and for anything else, 130 after Ctrl-C.

    Examples
    --------
    >>> main(["--version"])
    wsol ...
    0
    """
    words = list(sys.argv[1:] if words is None else words)
    arguments = Arguments(next(iter(APPLICATIONS)))
    keep_memory()
    try:
        arguments = parse_arguments(words, list(APPLICATIONS))
        with _surroundings(arguments, words):
            return _dispatch(arguments)
    except KeyboardInterrupt:
        print_message("interrupted")
        return 130
    except Exception as error:
        if "--debug" in arguments.flags or "--debug" in words or not is_users_to_mend(error):
            traceback.print_exc()
            return exit_code(error)
        print_message(explain(error, arguments))
        return exit_code(error)


def _dispatch(arguments: Arguments) -> int:
    if "--version" in arguments.flags:
        print(f"wsol {__version__}")
        return 0
    _check_config_dir(arguments.config_dir)
    if "--help" in arguments.flags:
        abouts = [(name, application.about) for name, application in APPLICATIONS.items()]
        print(help_text(arguments.command, abouts, arguments.config_dir))
        return 0
    if "--shell-completion" in arguments.flags and "query=bash" in arguments.overrides:
        return _complete()
    arguments.overrides = _completed_overrides(arguments)
    sweep.sweep_folders.clear()
    failures.clear()
    try:
        _run_hydra(arguments)
    finally:
        status = _finish_sweep()
    if failures:
        raise failures.pop()
    return status


def _completed_overrides(arguments: Arguments) -> list[str]:
    """Presets are kept per application: `experiment=x` means `experiment/train=x` in `wsol train`."""
    words, alone = arguments.overrides, APPLICATIONS[arguments.command].alone
    chosen = {re.split("[=@/]", word.lstrip("+~"))[0] for word in words}
    if not chosen & {"dataset", "model", "experiment"}:
        words = [*alone, *words]
    words = [EXPERIMENT.sub(rf"\1experiment/{arguments.command}", word) for word in words]
    _check_experiment(words, arguments)
    return words


def _check_experiment(words: Sequence[str], arguments: Arguments) -> None:
    group = f"experiment/{arguments.command}"
    asked = [word.partition("=")[2] for word in words if word.lstrip("+~").startswith(f"{group}=")]
    for name in (part for value in asked for part in value.split(",")):
        if name == "null" or name in group_options(group, arguments.config_dir):
            continue
        others = [
            command for command in APPLICATIONS if name in group_options(f"experiment/{command}", arguments.config_dir)
        ]
        if others:
            there = ", ".join(group_options(group, arguments.config_dir)) or "none"
            raise UserError(
                f"experiment={name} is a preset of wsol {others[0]}, not of wsol {arguments.command} (its own: {there})"
            )


def _run_hydra(arguments: Arguments) -> None:
    import hydra

    application = APPLICATIONS[arguments.command]
    run = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=arguments.command)(
        Task(application.job)
    )
    before = sys.argv
    sys.argv = ["wsol", *arguments.for_hydra()]
    try:
        run()
    except SystemExit as end:  # Hydra's parser, and Hydra after showing something
        if end.code:
            raise UserError(f"Hydra refused: {' '.join(sys.argv)}") from end
    except OSError as error:  # what goes wrong in a job is kept in `failures`
        if error.filename is None:
            raise
        raise UserError(f"{error.filename}: no folder for a run ({error.strerror}); pass another run_dir") from error
    except (TypeError, ValueError) as error:
        if is_users_to_mend(error):
            raise
        raise UserError(f"these options can't be put together: {error}; choose one by its name, group=name") from error
    finally:
        sys.argv = before


def _finish_sweep() -> int:
    """Make the one table of a sweep, also where it was cut short."""
    if not sweep.sweep_folders:
        return 0
    folder = sweep.sweep_folders.pop()
    found = sweep.collect(folder)
    if found.frame.empty:
        sweep.remove_if_unused(folder)
        return found.status
    from wsol.command_line.sweep_end import tell_and_write  # not above: torch is not loaded for --help

    tell_and_write(found, folder)
    return found.status


def _complete() -> int:
    line = os.environ.get("COMP_LINE", "wsol ")
    typed, word, for_hydra = completion.prepare_line(line, list(APPLICATIONS))
    typed.flags = {**typed.flags, "--shell-completion": ""}
    found: list[str] = []
    if not word.startswith("-"):
        os.environ["COMP_LINE"] = for_hydra
        typed.overrides = ["query=bash"]
        typed.flags = {
            name: typed.flags[name] for name in ("--config-dir", "--shell-completion") if name in typed.flags
        }
        with redirect_stdout(io.StringIO()) as answer:
            _run_hydra(typed)
        typed.overrides = [part for part in for_hydra.split()[1:] if part != "-m"][: -1 if word else None]
        found = answer.getvalue().split()
    before = line.split()[1 : -1 if word else None]
    commands = [] if set(before) & set(APPLICATIONS) else list(APPLICATIONS)
    print(" ".join(completion.complete(typed, word, found, commands)))
    return 0


def _check_config_dir(folder: Path | None) -> None:
    if folder is None:
        return
    if not folder.is_dir():
        raise UserError(f"--config-dir {folder}: no such folder")
    check_headers(folder)
    for hidden in shadowed(folder):
        logger.warning("%s is hidden by our own %s: give it another name", folder / hidden, hidden)


@contextmanager
def _surroundings(arguments: Arguments, words: Sequence[str]) -> Iterator[None]:
    """Errors come out of Hydra whole, and the user's modules can be imported, here and in other processes."""
    path, environment = list(sys.path), dict(os.environ)
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ["WSOL_COMMAND"] = shlex.join(["wsol", *words])  # for the records of a run, also in other processes
    if arguments.config_dir is not None:
        folder = str(arguments.config_dir)
        sys.path.append(folder)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), folder]))
    try:
        with showing_messages():
            yield
    finally:
        sys.path[:] = path
        for name in ("HYDRA_FULL_ERROR", "WSOL_COMMAND", "PYTHONPATH", "COMP_LINE"):
            os.environ.pop(name, None)
            os.environ.update({name: environment[name]} if name in environment else {})


APPLICATIONS = {
    "evaluate": Application(jobs.evaluate_job, "a dataset and a classifier in, a table of localization accuracies out"),
    "train": Application(
        jobs.train_job, "train a classifier for localization, on labels alone", ("experiment=shapes",)
    ),
    "score": Application(jobs.score_job, "the same tables from heatmaps that are there already, without a network"),
    "compare": Application(compare_job, "runs side by side: is the difference between two methods more than noise?"),
    "report": Application(report_job, "write the page and the figures of a run again"),
    "explain": Application(explain_job, "what a classifier sees in an image, and where, as one picture"),
    "check": Application(check_job, "read a whole dataset before a long run: what is in it, and what is wrong with it"),
}
