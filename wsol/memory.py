"""Where the C library keeps freed memory: with the process, for the next batch.

A network's activations are allocated anew for every batch. The GNU C library asks the system for each large block and
hands it back, and every page of it is filled with zeros again: a fifth or more of a ResNet-50's forward pass on two
cores (`results/bench_heatmaps.md`). Kept blocks cost none of that.

Blocks of up to 1 GiB are kept; in threads other than the main one those below 64 MiB, and by a C library before 2.35
those of up to 32. Other C libraries are left alone, and so is a user who has set thresholds in the environment.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

__all__ = ["keep_memory", "kept_memory"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGE = 1 << 25  # bytes: from here on glibc asks the system for a block of its own, once it has seen large ones


class _Kept:
    """Who wants freed memory to be kept now."""

    lock = RLock()  # taken again where an abandoned block is collected while another begins
    blocks = 0  # that are running
    for_good = False
    library: Any = None  # that keeps it


def keep_memory() -> bool:
    """Keep large blocks that are freed until the process ends.

    Meant for programs, such as `wsol`'s own command line; a library leaves this choice to them.

    Returns
    -------
    bool
        Whether freed memory is kept now.

    Examples
    --------
    >>> isinstance(keep_memory(), bool)
    True
    """
    with _Kept.lock:
        _keep()
        _Kept.for_good = _Kept.library is not None
        return _Kept.for_good


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep large blocks that are freed while this block lasts, then hand back those that are free.

    Blocks may overlap, also in threads: the last one to end hands back. From then on glibc's thresholds are those that
    it reaches by itself in a program that has used large blocks, whatever was set with `mallopt` before.

    Examples
    --------
    >>> with kept_memory():
    ...     batches = [bytearray(1 << 26) for _ in range(2)]
    """
    with _Kept.lock:
        _Kept.blocks += 1
    try:
        with _Kept.lock:
            _keep()
        yield
    finally:
        with _Kept.lock:
            _Kept.blocks = max(_Kept.blocks - 1, 0)  # a child process may end a block that its parent began
            if not _Kept.blocks and not _Kept.for_good:
                _hand_back()


def _keep() -> None:
    library = _glibc() if _Kept.library is None else None
    # Blocks below the first threshold come from the heap, which is then never trimmed.
    if (
        library
        and (library.mallopt(M_MMAP_THRESHOLD, 1 << 30) or library.mallopt(M_MMAP_THRESHOLD, LARGE))
        and library.mallopt(M_TRIM_THRESHOLD, -1)
    ):
        _Kept.library = library


def _hand_back() -> None:
    library, _Kept.library = _Kept.library, None
    if library:
        library.mallopt(M_MMAP_THRESHOLD, LARGE)
        library.mallopt(M_TRIM_THRESHOLD, 2 * LARGE)
        library.malloc_trim(0)


def _glibc() -> Any:
    """Return the GNU C library, where it is this process's and its user hasn't told it what to do."""
    own = "MALLOC_MMAP_THRESHOLD_" in os.environ or "MALLOC_TRIM_THRESHOLD_" in os.environ
    if own or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim else None
    except (AttributeError, OSError, TypeError):  # no such function, no such library, not a Unix
        return None


def _in_child() -> None:
    """Begin anew after a fork: another thread may have held the lock, and the blocks are the parent's."""
    _Kept.lock, _Kept.blocks = RLock(), 0
    if not _Kept.for_good:
        _hand_back()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
