"""Where the C library keeps freed memory: with the process, for the next batch.

A network's activations are allocated anew for every batch. The GNU C library asks the system for each large block and
hands it back, and every page of it is filled with zeros again: a fifth of the time of a ResNet-50's forward pass on
two cores (`results/bench_heatmaps.md`). Kept blocks cost none of that.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

__all__ = ["keep_memory", "kept_memory"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGE = 1 << 25  # bytes: from here on glibc asks the system for a block of its own, once it has seen large ones
CHOICES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")  # a user's own, in the environment


class _Kept:
    """Who wants freed memory to be kept now."""

    lock = Lock()
    blocks = 0  # that are running
    for_good = False


def keep_memory() -> bool:
    """Keep large blocks that are freed until the process ends.

    Meant for programs, such as `wsol`'s own command line; a library leaves this choice to them. A user who has chosen
    with glibc's environment variables is left alone.

    Returns
    -------
    bool
        Whether there was something to set: not with another C library.

    Examples
    --------
    >>> isinstance(keep_memory(), bool)
    True
    """
    with _Kept.lock:
        _Kept.for_good = _keep()
        return _Kept.for_good


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep large blocks that are freed while this block lasts, then hand all of them back.

    Blocks may overlap, also in threads: the last one to end hands back. From then on glibc treats blocks as it does by
    itself in a program that has used large ones, whatever was set with `mallopt` before.

    Examples
    --------
    >>> with kept_memory():
    ...     batches = [bytearray(1 << 26) for _ in range(2)]
    """
    with _Kept.lock:
        _Kept.blocks += 1
        if _Kept.blocks == 1 and not _Kept.for_good:
            _keep()
    try:
        yield
    finally:
        with _Kept.lock:
            _Kept.blocks -= 1
            if not _Kept.blocks and not _Kept.for_good:
                _hand_back()


def _keep() -> bool:
    library = _glibc()
    # Blocks below 1 GiB come from the heap, or below 32 MiB, the most that an older library takes; it is never trimmed.
    return bool(
        library
        and (library.mallopt(M_MMAP_THRESHOLD, 1 << 30) or library.mallopt(M_MMAP_THRESHOLD, LARGE))
        and library.mallopt(M_TRIM_THRESHOLD, -1)
    )


def _hand_back() -> None:
    if library := _glibc():
        library.mallopt(M_MMAP_THRESHOLD, LARGE)
        library.mallopt(M_TRIM_THRESHOLD, 2 * LARGE)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Return the GNU C library, where it is this process's and nobody has told it what to do."""
    if any(name in os.environ for name in CHOICES):
        return None
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim else None
    except (AttributeError, OSError, TypeError):  # no such function, no such library, not a Unix
        return None
