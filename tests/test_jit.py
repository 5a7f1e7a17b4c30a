"""Compiled functions work where nothing can be written, and compiling is told of once."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from wsol.jit import jit

FIRST_START = """
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
import numpy as np
import wsol
wsol.score_map(np.eye(3), wsol.Protocol(size=(4, 4)))
"""


def test_only_the_first_start_compiles_and_says_so(tmp_path: Path) -> None:
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", FIRST_START]
    starts = [subprocess.run(command, env=env, capture_output=True, text=True, check=True).stderr for _ in range(2)]
    assert starts[0].count("compiling kernels") == 1 and "compiling" not in starts[1]


def test_without_any_place_for_a_cache_it_compiles_in_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def refusing(*types: str, cache: bool = False, **options: object) -> object:
        if cache:
            raise RuntimeError("cannot cache function 'f': no locator available for file 'f.py'")
        return njit(*types, **options)

    monkeypatch.setattr(numba, "njit", refusing)
    assert jit(lambda x: x + 1)(2) == 3
    assert jit("i8(i8)")(lambda x: x + 1)(2) == 3
