"""How hot loops are compiled: without the interpreter's lock, and kept on disk between processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["compiled"]

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function with numba when it is first called.

    Parameters
    ----------
    function : callable
        Of numbers and arrays.

    Returns
    -------
    callable
        The same for the caller. The machine code is kept beside the module or, where that folder is read-only, in the user's
        cache folder; where that is read-only too, it is compiled in each process.

    Examples
    --------
    >>> compiled(lambda x: x + 1)(2)
    3
    """
    options = {"nogil": True, "error_model": "numpy"}
    if function.__name__ not in ("place_truth","all_inside","sweep_bins","quantize","place","look_up"): options.update(no_cpython_wrapper=True,no_cfunc_wrapper=True)
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)
