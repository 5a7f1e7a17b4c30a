"""Where the C library keeps freed memory: with the process, for the next batch.

A network's activations are allocated anew for every batch. The GNU C library asks the system for each large block and
hands it back, and every page of it is filled with zeros again: a fifth or more of a ResNet-50's forward pass on two
cores (`results/bench_heatmaps.md`). Kept blocks cost none of that.
"""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_memory() -> bool:
    """Keep large blocks that are freed until the process ends.

    For programs, as `wsol`'s own command line: a library leaves this choice to them. Blocks of up to 1 GiB are kept, in
    threads other than the main one those below 64 MiB, and by a C library before 2.35 those of up to 32. Other
    C libraries are left alone, and so is a user who has set thresholds in the environment.

    Returns
    -------
    bool
        Whether freed memory is kept now.

    Examples
    --------
    >>> isinstance(keep_memory(), bool)
    True
    """
    chosen = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys()
    if chosen or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function, no such library, not a Unix
        return False
    # Blocks below the first threshold come from the heap, which is then never trimmed.
    large = set_option(M_MMAP_THRESHOLD, 1 << 30) or set_option(M_MMAP_THRESHOLD, 1 << 25)
    return bool(large and set_option(M_TRIM_THRESHOLD, -1))
