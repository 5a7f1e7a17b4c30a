"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from wsol.memory import keep_memory

assert keep_memory() if sys.argv[1] == "kept" else True
for _ in range(3):
    np.ones(8_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(8_000_000)  # 64 MB, freed at once: glibc itself keeps up to 32
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def glibc() -> tuple[int, ...]:
    name, version = platform.libc_ver()
    return tuple(map(int, version.split(".")[:2])) if name == "glibc" else (0,)


@pytest.mark.skipif(glibc() < (2, 35), reason="an older C library than GNU's 2.35 keeps less, others nothing")
def test_blocks_that_are_used_again_are_not_fetched_again() -> None:
    faults = {}
    for how in ("kept", "given back"):
        command = [sys.executable, "-c", PROGRAM, how]
        faults[how] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert faults["kept"] < 100 < faults["given back"]


def test_an_older_library_gets_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from wsol import memory

    def library(most: int, asked: list[tuple[int, int]]) -> SimpleNamespace:
        def mallopt(option: int, value: int) -> int:
            asked.append((option, value))
            return int(option == memory.M_TRIM_THRESHOLD or value <= most)

        return SimpleNamespace(mallopt=mallopt)

    for most, done in ((1 << 30, True), (1 << 25, True), (0, False)):
        asked: list[tuple[int, int]] = []
        found = library(most, asked)
        monkeypatch.setattr(memory.ctypes, "CDLL", lambda name, found=found: found)
        assert memory.keep_memory() is done
        # Trimming alone would switch off what the library learns about block sizes.
        assert ((memory.M_TRIM_THRESHOLD, -1) in asked) is done


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from wsol import memory

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.keep_memory() is False
