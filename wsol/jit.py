"""How hot loops are compiled: without the interpreter's lock, and kept on disk between processes."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

# Level 3, numba's own, takes longer to compile these kernels, and what comes out is no faster.
os.environ.setdefault("NUMBA_OPT", "2")

import numba
from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile

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


def _compile(function: Callable[..., Any], types: str | None = None, **options: Any) -> Any:
    # Nothing here is called from C by its address.
    options |= {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    compiled: Any = numba.njit(**options)(function)
    if compiled is function:  # NUMBA_DISABLE_JIT is set
        return function
    with suppress(RuntimeError):  # there is no folder to write to
        compiled._cache = _Cache(function)
    if types is not None:
        compiled.compile(types)
        compiled.disable_compile()
    return compiled


class _Cache(FunctionCache):  # type: ignore[misc]
    """Machine code on disk, found by what all kernels are; a folder that is damaged, full or locked only costs time."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        name = f"{self._impl.filename_base}.{_kernels()}"
        self._cache_file = _Files(self.cache_path, f"{name}.sum", source_stamp=None)

    @contextmanager
    def _guard_against_spurious_io_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of a damaged file pickle makes whatever it happens to be
            _tell(self.cache_path, type(error).__name__)
            with suppress(OSError):
                os.unlink(self._cache_file._index_path)


class _Files(IndexDataCacheFile):  # type: ignore[misc]
    """Machine code behind its hash: of a damaged file it could crash the program, or count wrongly."""

    def _save_data(self, name: str, data: Any) -> None:
        content = self._dump(data)
        with self._open_for_write(self._data_path(name)) as file:
            file.write(sha256(content).digest() + content)

    def _load_data(self, name: str) -> Any:
        content = Path(self._data_path(name)).read_bytes()
        if sha256(content[32:]).digest() != content[:32]:
            raise ValueError(f"{name} is damaged")
        return pickle.loads(content[32:])


@cache
def _kernels() -> str:
    """Hash of the files with kernels: numba itself would notice a change in a kernel's own, not in what it calls."""
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py"))]
    return sha256(b"".join(source for source in sources if b"wsol.jit" in source)).hexdigest()[:12]


@cache
def _tell(folder: str, reason: str) -> None:
    logger.warning("kernels are compiled anew: what %s keeps of them can't be used (%s)", folder, reason)


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
