"""Where the C library keeps freed memory: with the process, for the next batch."""

from __future__ import annotations

import ctypes

__all__ = ["keep_memory"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_memory() -> bool:
    """Keep large blocks that are freed instead of handing each back to the system.

    A network's activations are allocated anew for every batch. The GNU C library asks the system for each large block
    and hands it back, and every page of it is filled with zeros again: a fifth of the time of a ResNet-50's forward
    pass on two cores (`results/bench_heatmaps.md`). Kept blocks cost none of that, but they aren't given back before
    the process ends. Meant for programs; a library leaves this choice to them.

    Returns
    -------
    bool
        Whether there was something to set: not with another C library.

    Examples
    --------
    >>> isinstance(keep_memory(), bool)
    True
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function, no such library, not a Unix
        return False
    # Blocks below 1 GiB come from the heap, or below 32 MiB, the most that an older library takes; it is never trimmed.
    kept = mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 1 << 25)
    return bool(kept and mallopt(M_TRIM_THRESHOLD, -1))
