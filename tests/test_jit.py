"""Compiled functions: told of once, kept on disk, and right whatever becomes of the folder that they are kept in."""

import errno
import logging
import os
import pickle
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numba
import pytest
from numba.core.caching import IndexDataCacheFile

from wsol import jit

FIRST_START = """
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
import numpy as np
import wsol
wsol.score_map(np.eye(3), wsol.Protocol(size=(4, 4)))
"""
MOVED_CLASS = pickle.dumps(numba.__version__) + b"cwsol.nowhere\nThing\n."


def test_only_the_first_start_compiles_and_says_so(tmp_path: Path) -> None:
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", FIRST_START]
    starts = [subprocess.run(command, env=env, capture_output=True, text=True, check=True).stderr for _ in range(2)]
    assert starts[0].count("compiling kernels") == 1 and "compiling" not in starts[1]


@pytest.fixture
def was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Start anew with two kernels: whether both, which work in any case, were on disk already."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))
    jit._tell.cache_clear()
    path = tmp_path / "kernels.py"
    path.write_text("""from wsol.jit import jit
increased = jit("i8(i8)")(lambda x: x + 1)
@jit
def doubled(x):
    return 2 * x
""")

    def start() -> bool:
        kernels = runpy.run_path(str(path))
        assert (kernels["increased"](2), kernels["doubled"](2)) == (3, 4)
        return all(kernels[name].stats.cache_hits for name in ("increased", "doubled"))

    assert not start() and start()
    return start


def test_a_change_in_any_kernel_is_noticed(was_kept: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "_kernels", lambda: "others")
    assert not was_kept() and was_kept()


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"\x80", MOVED_CLASS])
def test_a_damaged_file_is_told_of_and_made_anew(
    was_kept: Callable[[], bool], tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, content: bytes
) -> None:
    for path in (tmp_path / "kept").rglob(f"*.{kind}"):
        path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "wsol"):
        assert not was_kept()
    assert len(caplog.messages) == 1 and str(tmp_path) in caplog.text
    assert was_kept()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_folder_that_takes_nothing_costs_time_only(
    was_kept: Callable[[], bool], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(self: IndexDataCacheFile, path: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(IndexDataCacheFile, "_open_for_write", refuse)
    monkeypatch.setattr(jit, "_kernels", lambda: "others")
    assert not was_kept() and not was_kept()


def test_without_any_place_it_compiles_in_each_process() -> None:
    namespace = {"__name__": "nowhere"}
    exec("from wsol.jit import jit\nincreased = jit(lambda x: x + 1)", namespace)
    assert namespace["increased"](2) == 3
