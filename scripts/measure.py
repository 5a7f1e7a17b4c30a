"""What all benches share: the clocks of wall and processor, and no results from a machine that does other things."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

MOST = 0.5  # load per core, above which times say nothing


class Seconds(NamedTuple):
    """What a call took."""

    wall: float
    cpu: float


def timed(function: Callable[..., object], *arguments: object, thread: bool = False) -> Seconds:
    """Time a call: on the wall, and on the processor, of this process or of this thread alone."""
    clock = time.thread_time if thread else time.process_time
    wall, cpu = time.perf_counter(), clock()
    function(*arguments)
    return Seconds(time.perf_counter() - wall, clock() - cpu)


def read_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line, with `--anyway`, and add `load`, a text.

    Where the machine is busy nothing goes on but a rehearsal, whose results go to the folder of temporary files.
    """
    parser.add_argument("--anyway", action="store_true", help="also on a busy machine: a rehearsal, no results")
    options, load, cores = parser.parse_args(), os.getloadavg()[0], os.cpu_count() or 1
    if load > MOST * cores and not options.anyway:
        raise SystemExit(f"load {load:.1f} on {cores} cores; at most {MOST * cores:.1f} is allowed, or --anyway")
    for name in {"out", "output"} & set(vars(options)) if load > MOST * cores else ():
        setattr(options, name, Path(tempfile.gettempdir()) / getattr(options, name).name)
    options.load = f"load {load:.1f} on {cores} cores when it began"
    return options
