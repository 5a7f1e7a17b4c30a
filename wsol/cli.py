"""What runs when `wsol` is typed: the command is found, then Hydra composes conf/COMMAND.yaml and calls its job."""

import argparse
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wsol import __version__
from wsol.commands.messages import exit_code, explain_error, is_user_error
from wsol.commands.options import check_config_dir, compose_application
from wsol.commands.request import Request, read_words
from wsol.commands.task import Task, forget_earlier
from wsol.console import print_message, showing_messages
from wsol.errors import UserError
from wsol.io import conf_dir
from wsol.memory import keep_memory

# OpenMP's threads spin while they wait, and so keep the threads that load images from running: beside other work that
# made training five times slower. A short spin, 10 to 30 µs, is enough where they wait for each other; sleeping at once
# costs a wake-up for every small layer. It is read when torch is loaded, which happens later.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line, by default the one that the program was started with.

    Returns 0; 2 for what the user can fix, 1 for faults that `wsol check` found and for anything else, 130 after
    Ctrl-C.
    """
    words = list(sys.argv[1:] if words is None else words)
    request = read_words([])
    keep_memory()
    gc.disable()  # nothing that is loaded now becomes garbage; the job turns it on again
    try:
        if {"--version", "-V"} & set(words):
            print(f"wsol {__version__}")
            return 0
        request = read_words(words)
        with showing_messages():
            return _dispatch(request)
    except SystemExit as end:  # Hydra, when it has shown something
        return int(end.code or 0)
    except KeyboardInterrupt:
        print_message("interrupted")
        return 130
    except Exception as error:
        if "--debug" in words or not is_user_error(error):
            traceback.print_exc()
        else:
            print_message(explain_error(error, request))
        return exit_code(error)
    finally:
        gc.enable()


def _dispatch(request: Request) -> int:
    flags = request.flags
    if request.config_dir is not None:
        _make_importable(request.config_dir)
    if flags.help:
        from wsol.commands.help import help_text

        print(help_text(request))
    elif flags.shell_completion and "query=bash" in request.overrides:
        from wsol.commands.completion import complete

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
    forget_earlier(folder)
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    try:
        _run_hydra(replace(request, overrides=[*request.overrides, f"hydra.sweep.dir='{quoted}'"]))
    finally:
        from wsol.commands.sweep import end_sweep

        status = end_sweep(folder)
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
        if is_user_error(error):
            raise
        raise UserError(f"no run can be set up from these options and this run_dir: {error}") from error
    if task.error is not None:
        raise task.error
