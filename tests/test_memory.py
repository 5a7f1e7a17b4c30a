"""Freed memory stays with the process, for good or while a block lasts."""

from __future__ import annotations

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from wsol import HeatmapExtractor, memory
from wsol.errors import UserError
from wsol.models import gapnet

PROGRAM = """
import resource, sys
from contextlib import nullcontext
import numpy as np
from wsol.memory import keep_memory, kept_memory

def faults():
    for _ in range(3):
        np.ones(8_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(8_000_000)  # 64 MB, freed at once: glibc itself keeps up to 32
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6

if sys.argv[1] == "for good":
    assert keep_memory()
with kept_memory() if sys.argv[1] != "never" else nullcontext():
    with kept_memory() if sys.argv[1] == "nested" else nullcontext():
        pass
    inside, kept = faults(), resident()
print(inside, kept - resident(), faults())
"""
ASKED = [(memory.M_MMAP_THRESHOLD, 1 << 30), (memory.M_TRIM_THRESHOLD, -1)]


def glibc() -> tuple[int, ...]:
    name, version = platform.libc_ver()
    return tuple(map(int, version.split(".")[:2])) if name == "glibc" else (0,)


@pytest.mark.skipif(glibc() < (2, 35), reason="an older C library than GNU's 2.35 keeps less, others nothing")
@pytest.mark.parametrize("how", ["for good", "block", "nested", "never"])
def test_blocks_that_are_used_again_are_not_fetched_again(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in memory.CHOICES:
        monkeypatch.delenv(name, raising=False)
    command = [sys.executable, "-c", PROGRAM, how]
    inside, handed_back, after = map(
        float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    )
    assert (inside < 100) == (how != "never")
    assert (handed_back > 50) == (how in ("block", "nested"))  # MB
    assert (after < 100) == (how == "for good")


class _Library:
    """A C library that remembers what it was asked."""

    def __init__(self, most: int = 1 << 40) -> None:
        self.most = most
        self.asked: list[tuple[int, int]] = []
        self.trimmed = 0

    def mallopt(self, option: int, value: int) -> int:
        self.asked.append((option, value))
        return int(option == memory.M_TRIM_THRESHOLD or value <= self.most)

    def malloc_trim(self, pad: int) -> int:
        self.trimmed += 1
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> _Library:
    """Put a library of ours in the place of this process's."""
    for name in memory.CHOICES:
        monkeypatch.delenv(name, raising=False)
    found = _Library()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: found)
    monkeypatch.setattr(memory._Kept, "for_good", False)
    monkeypatch.setattr(memory._Kept, "blocks", 0)
    return found


@pytest.mark.parametrize(("most", "done"), [(1 << 30, True), (1 << 25, True), (0, False)])
def test_an_older_library_gets_what_it_takes(library: _Library, most: int, done: bool) -> None:
    library.most = most
    assert memory.keep_memory() is done
    # Trimming alone would switch off what the library learns about block sizes.
    assert ((memory.M_TRIM_THRESHOLD, -1) in library.asked) is done


@pytest.mark.parametrize("other", [object(), SimpleNamespace(mallopt=lambda option, value: 1)])
def test_another_c_library_is_left_alone(library: _Library, monkeypatch: pytest.MonkeyPatch, other: object) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: other)
    assert memory.keep_memory() is False
    with memory.kept_memory():
        pass


def test_a_user_who_has_chosen_is_left_alone(library: _Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert memory.keep_memory() is False
    with memory.kept_memory():
        pass
    assert (library.asked, library.trimmed) == ([], 0)


def test_the_last_of_overlapping_blocks_hands_back(library: _Library) -> None:
    first, second = memory.kept_memory(), memory.kept_memory()
    first.__enter__()
    second.__enter__()
    assert library.asked == ASKED
    first.__exit__(None, None, None)
    assert (library.asked, library.trimmed) == (ASKED, 0)
    second.__exit__(None, None, None)
    assert library.trimmed == 1
    assert library.asked == [*ASKED, (memory.M_MMAP_THRESHOLD, 1 << 25), (memory.M_TRIM_THRESHOLD, 1 << 26)]


def test_a_program_that_keeps_for_good_is_not_undone(library: _Library) -> None:
    with memory.kept_memory():
        assert memory.keep_memory()
    with memory.kept_memory():
        pass
    assert (library.asked, library.trimmed) == (ASKED * 2, 0)


def test_an_extractor_keeps_memory_while_it_is_open(library: _Library) -> None:
    with HeatmapExtractor(gapnet(3), ("gradcam",)) as extractor:
        assert library.asked == ASKED
        extractor(torch.rand(2, 3, 32, 32))
        assert library.trimmed == 0
    assert library.trimmed == 1
    with pytest.raises(UserError), HeatmapExtractor(gapnet(3), ("gradcam",)) as extractor:
        extractor(torch.rand(2, 3, 32, 32), torch.tensor([3, 3]))
    assert library.trimmed == 2
