"""How hot loops are compiled: without the interpreter's lock, and kept on disk between processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

# Level 3, numba's own, takes a third longer to compile these kernels, and what comes out is no faster.
os.environ.setdefault("NUMBA_OPT", "2")

import numba

__all__ = ["compiled", "inner"]


def compiled(target: Any) -> Any:
    """Compile a function with numba: `@compiled` when it is first called, `@compiled("i8(i8)")` for these types, now.

    Parameters
    ----------
    target : callable, or str
        A function of numbers and arrays; or the types that one takes and returns, in numba's words.

    Returns
    -------
    callable
        The same for the caller. The machine code is kept beside the module or, where that folder is read-only, in the
        user's cache folder; where that is read-only too, it is compiled in each process.

    Examples
    --------
    >>> compiled(lambda x: x + 1)(2)
    3
    >>> compiled("f8(f8)")(lambda x: x + 1)(2)
    3.0
    """
    if isinstance(target, str):
        return lambda function: _compile(function, (target,))
    return _compile(target, ())


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function that only other compiled functions call; the interpreter must not, it would crash.

    What the interpreter calls a function through takes a third of the time to compile a small one.

    Examples
    --------
    >>> square = inner(lambda x: x * x)
    >>> compiled(lambda x: square(x) + 1)(3)
    10
    """
    return _compile(function, (), no_cpython_wrapper=True)


def _compile(function: Callable[..., Any], types: tuple[str, ...], **more: Any) -> Any:
    # Nothing here is called from C by its address.
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True} | more
    try:
        return numba.njit(*types, cache=True, **options)(function)  # type: ignore[call-overload]
    except RuntimeError:
        return numba.njit(*types, **options)(function)  # type: ignore[call-overload]
