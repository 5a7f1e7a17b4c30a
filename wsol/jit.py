"""How hot loops are compiled: without the interpreter's lock, and kept on disk between processes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

# Level 3, numba's own, takes longer to compile these kernels, and what comes out is no faster.
os.environ.setdefault("NUMBA_OPT", "2")

import numba
from numba.core import event

__all__ = ["jit", "jit_inner"]

logger = logging.getLogger("wsol")


def jit(target: Any) -> Any:
    """Compile a function with numba: `@jit` when it is first called, `@jit("i8(i8)")` for these types, now.

    The machine code is kept beside the module or, where that folder is read-only, in the user's cache folder; where
    that is read-only too, it is compiled in each process.

    Examples
    --------
    >>> jit(lambda x: x + 1)(2)
    3
    >>> jit("f8(f8)")(lambda x: x + 1)(2)
    3.0
    """
    if isinstance(target, str):
        return lambda function: _compile(function, target)
    return _compile(target)


def jit_inner(function: Callable[..., Any]) -> Any:
    """Compile a function that only other compiled functions call; the interpreter must not, it would crash.

    What the interpreter calls a function through takes a third of the time to compile a small one.
    """
    return _compile(function, no_cpython_wrapper=True)


def _compile(function: Callable[..., Any], *types: str, **options: Any) -> Any:
    # Nothing here is called from C by its address.
    options |= {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    try:
        return numba.njit(*types, cache=True, **options)(function)  # type: ignore[call-overload]
    except RuntimeError:
        return numba.njit(*types, **options)(function)  # type: ignore[call-overload]


class _FirstCompilation(event.Listener):
    """Says why the first start takes seconds longer than the others, which load what it kept on disk."""

    said = False

    def on_start(self, event: event.Event) -> None:
        if not self.said and event.data["dispatcher"].py_func.__module__.startswith("wsol."):
            self.said = True
            logger.info("compiling kernels, once")

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _FirstCompilation())
