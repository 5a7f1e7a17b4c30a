"""Freed memory stays with a process that asks for it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

import wsol
from wsol import memory

PROGRAM = """
import resource, sys
import numpy as np
import wsol

if sys.argv[1] == "asked":
    assert wsol.keep_memory()
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
@pytest.mark.parametrize("how", ["asked", "not asked"])
def test_blocks_that_are_used_again_are_not_fetched_again(how: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    assert (int(done.stdout) < 1000) == (how == "asked")  # pages; 20 blocks have 300,000


class _Library:
    """A C library that remembers what it was asked."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, []

    def mallopt(self, option: int, value: int) -> int:
        self.asked.append(option)
        return int(option == memory.M_TRIM_THRESHOLD or value <= self.most)


@pytest.mark.parametrize(("most", "done"), [(1 << 30, True), (1 << 25, True), (0, False)])
def test_an_older_library_gets_what_it_takes(monkeypatch: pytest.MonkeyPatch, most: int, done: bool) -> None:
    library = _Library(most)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: library)
    assert wsol.keep_memory() is done
    # Trimming alone would switch off what the library learns about block sizes.
    assert (memory.M_TRIM_THRESHOLD in library.asked) is done


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert wsol.keep_memory() is False


@pytest.mark.parametrize(
    ("name", "value", "chosen"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "131072", True),
        ("MALLOC_MMAP_THRESHOLD_", "131072", True),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1", True),
        ("GLIBC_TUNABLES", "glibc.pthread.rseq=0", False),
    ],
)
def test_a_user_who_has_chosen_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, chosen: bool
) -> None:
    library = _Library(1 << 30)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: library)
    monkeypatch.setenv(name, value)
    assert wsol.keep_memory() is not chosen
    assert (library.asked == []) is chosen
