"""What runs when `wsol` is typed: the command is found, then Hydra composes conf/COMMAND.yaml and calls its job."""

import gc
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

ALONE = {"train": "experiment=shapes"}  # what a command runs with when nothing is chosen

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
        with _surroundings(request):
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
    if request.config_dir is not None:
        check_config_dir(request.config_dir)
    if request.flags.help:
        from wsol.commands.help import help_text

        print(help_text(request))
    elif request.flags.shell_completion and "query=bash" in request.overrides:
        from wsol.commands.completion import complete

        print(" ".join(complete(os.environ.get("COMP_LINE", "wsol "), _run_hydra)))
    elif request.flags.multirun and not (request.flags.cfg or request.flags.info):
        return _sweep(_with_presets(request))
    else:
        _run_hydra(_with_presets(request))
    return 0


def _with_presets(request: Request) -> Request:
    """Presets are kept per command: `experiment=x` means `experiment/train=x` in `wsol train`."""
    overrides, alone = request.overrides, ALONE.get(request.command)
    chosen = {re.split("[=@/]", word.lstrip("+~"))[0] for word in overrides}
    if alone and not chosen & {"dataset", "model", "experiment"}:
        overrides = (alone, *overrides)
    own = rf"\1experiment/{request.command}"
    words = [re.sub(r"^(\+{0,2}|~)experiment(?=[=@]|$)", own, word) for word in overrides]
    return replace(request, overrides=tuple(words))


def _sweep(request: Request) -> int:
    """Run one job per combination, then make their one table, also after a failure or Ctrl-C."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(request.overrides))
    fixed = [word for word, override in zip(request.overrides, parsed, strict=True) if not override.is_sweep_override()]
    config = compose_application(request.command, fixed, request.config_dir, with_hydra=True)
    folder = Path(str(config.hydra.sweep.dir)).absolute()
    forget_earlier(folder)
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    try:
        _run_hydra(replace(request, overrides=(*request.overrides, f"hydra.sweep.dir='{quoted}'")))
    finally:
        from wsol.commands.sweep import end_sweep

        status = end_sweep(folder)
    return status


def _run_hydra(request: Request) -> None:
    import hydra

    task, before = Task(request), sys.argv
    sys.argv = ["wsol", *request.flag_words, "--", *request.overrides]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=request.command)(task)()
    except OSError as error:  # what goes wrong in a job is kept by the task
        if error.filename is None:
            raise
        raise UserError(f"{error.filename}: no folder for a run ({error.strerror}); pass another run_dir") from error
    except (TypeError, ValueError) as error:
        if is_user_error(error):
            raise
        raise UserError(f"these options can't be put together: {error}; choose one by its name, group=name") from error
    finally:
        sys.argv = before
    if task.error is not None:
        raise task.error


@contextmanager
def _surroundings(request: Request) -> Iterator[None]:
    """Errors come out of Hydra whole, and the user's modules can be imported, here and in other processes."""
    path, environment = list(sys.path), dict(os.environ)
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if request.config_dir is not None:
        folder = str(request.config_dir)
        sys.path.append(folder)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), folder]))
    try:
        with showing_messages():
            yield
    finally:
        sys.path[:] = path
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
