"""What runs when `wsol` is typed: the command is found, then Hydra composes conf/COMMAND.yaml and calls its job."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hydra import initialize_config_dir
from hydra._internal.core_plugins.bash_completion import BashCompletion
from hydra.core.global_hydra import GlobalHydra

from wsol import __version__
from wsol.commands import COMMANDS
from wsol.commands.request import (
    FLAGS,
    Request,
    application_groups,
    check_config_dir,
    compose_application,
    exit_code,
    explain_error,
    is_user_error,
    key_of,
    read_words,
    search_path,
    to_preset,
)
from wsol.commands.task import Task, list_jobs
from wsol.console import clean, print_message, showing_messages
from wsol.errors import UserError
from wsol.io import conf_dir
from wsol.memory import keep_memory

PATIENCE = 8  # seconds from a signal to the end
# OpenMP's threads spin while they wait, and so keep the threads that load images from running: beside other work that
# made training five times slower. A short spin, 10 to 30 µs, is enough where they wait for each other; sleeping at once
# costs a wake-up for every small layer. It is read when torch is loaded, which happens later.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line, by default the one that the program was started with.

    Returns 0; 2 for what the user can fix, 1 for faults that `wsol check` found and for anything else, 130 after
    Ctrl-C, 143 after SIGTERM.
    """
    words, as_program = list(sys.argv[1:] if words is None else words), words is None
    request = read_words([])
    keep_memory()
    gc.disable()  # nothing that is loaded now becomes garbage; the job turns it on again
    try:
        if {"--version", "-V"} & set(words):
            print(f"wsol {__version__}")
            return 0
        request = read_words(words)
        with showing_messages(), _ending_when_asked(as_program):
            status = _dispatch(request)
        sys.stdout.flush()
        return status
    except SystemExit as end:  # Hydra, when it has shown something
        return int(end.code or 0)
    except BrokenPipeError:  # whoever read it, as `| head` does, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as end:
        print_message("interrupted")
        return 143 if isinstance(end, Terminated) else 130
    except Exception as error:
        if "--debug" in words or not is_user_error(error):
            print(clean(traceback.format_exc()), file=sys.stderr)
        else:
            print_message(explain_error(error, request))
        return exit_code(error)
    finally:
        gc.enable()


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a run as Ctrl-C does."""


def _terminate(*_: object) -> None:
    raise Terminated


@contextmanager
def _ending_when_asked(as_program: bool) -> Iterator[None]:
    """Have SIGTERM, as clusters send it, end the block as Ctrl-C does, and either end the program after `PATIENCE`.

    Python's handler waits for what runs, a kernel or a disk that doesn't answer; the byte in the pipe doesn't.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    (told, tell), ended = os.pipe(), threading.Event()
    os.set_blocking(tell, False)

    def watch() -> None:
        while (signals := os.read(told, 1)) and signals[0] not in (signal.SIGINT, signal.SIGTERM):
            pass
        if signals and not ended.wait(PATIENCE):
            os._exit(128 + signals[0])

    handler = signal.signal(signal.SIGTERM, _terminate)
    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGTERM, handler)
        os.close(tell)
        if not as_program:  # else what still runs may keep the interpreter from ending
            ended.set()


def _dispatch(request: Request) -> int:
    flags = request.flags
    logging.raiseExceptions = not flags.info  # Hydra logs it, and `| head` closes the pipe
    if request.config_dir is not None:
        _make_importable(request.config_dir)
    if flags.help:
        from wsol.commands.help import help_text

        print(help_text(request))
    elif flags.shell_completion and "query=bash" in request.overrides:
        print(" ".join(complete(os.environ.get("COMP_LINE", "wsol "))))
    elif flags.multirun and not (flags.cfg or flags.info):
        return _sweep(request)
    else:
        _run_hydra(request)
    return 0


def _make_importable(config_dir: Path) -> None:
    """The user's modules lie beside their options; jobs in other processes find them by the environment."""
    check_config_dir(config_dir)
    sys.path.append(str(config_dir))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(config_dir)]))


def _sweep(request: Request) -> int:
    """Run one job per combination, then make their one table, also after a failure or Ctrl-C."""
    config = compose_application(request.command, request.overrides, request.config_dir)
    folder = Path(str(config.hydra.sweep.dir)).absolute()
    list_jobs(folder, config, request.overrides)
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    try:
        _run_hydra(replace(request, overrides=[*request.overrides, f"hydra.sweep.dir='{quoted}'"]))
    finally:
        from wsol.commands.sweep import end_sweep
        from wsol.config import to_dict
        from wsol.report.latex import table_options

        tables = to_dict({name: config.get(name) for name in ("table", "published")})
        status = end_sweep(folder, table_options(tables))
    return status


def _run_hydra(request: Request) -> None:
    """Do what `hydra.main` does, with words that are taken apart already."""
    from hydra import version
    from hydra._internal import utils

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come out whole
    version.setbase("1.3")
    arguments = argparse.Namespace(**vars(request.flags), overrides=[*request.overrides])
    task = Task(request)
    try:
        utils._run_hydra(arguments, utils.get_args_parser(), task, str(conf_dir()), request.command)
    except (OSError, TypeError, ValueError) as error:  # what goes wrong in a job is kept by the task
        if is_user_error(error) or isinstance(error, BrokenPipeError):
            raise
        raise UserError(f"no run can be set up from these options and this run_dir: {error}") from error
    if task.error is not None:
        raise task.error


def complete(line: str) -> list[str]:
    """Words that may stand where a line such as "wsol train model=res" is being typed."""
    words = line.split()[1:]
    word = "" if not words or line[-1:].isspace() else words.pop()
    if word.startswith("-"):
        return [flag for flag in FLAGS if flag.startswith(word)]
    try:
        request = read_words(words)
    except UserError:  # half a line need not make sense
        request = read_words([])
    choices = [re.sub("^experiment/.*?(=|$)", "experiment=", choice) for choice in _hydras_choices(request, word)]
    groups = application_groups(request.command, request.config_dir)
    elsewhere = {path.name for path in conf_dir().iterdir() if path.is_dir()}.difference(groups)
    choices = [choice for choice in choices if key_of(choice) not in elsewhere]
    if not any("=" in typed or typed in COMMANDS for typed in (word, *words)):
        choices += [name for name in COMMANDS if name.startswith(word)]
    return sorted(set(choices))


def _hydras_choices(request: Request, word: str) -> list[str]:
    flags = ["-m"] if request.flags.multirun else []
    words = [*flags, *search_path(request.config_dir), *request.overrides, to_preset(word, request.command)]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        plugin = BashCompletion(GlobalHydra.instance().config_loader())
        return plugin._query(request.command, " ".join(words))
