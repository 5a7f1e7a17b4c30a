"""Freed memory stays with the process, for good or while a block lasts."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from threading import Thread
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
def test_blocks_that_are_used_again_are_not_fetched_again(how: str) -> None:
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


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin as a process begins: nobody keeps, and nobody has set anything."""
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"blocks": 0, "for_good": False, "library": None}.items():
        monkeypatch.setattr(memory._Kept, name, value)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> _Library:
    """Put a library of ours in the place of this process's."""
    found = _Library()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: found)
    return found


@pytest.mark.parametrize(("most", "done"), [(1 << 30, True), (1 << 25, True), (0, False)])
def test_an_older_library_gets_what_it_takes(library: _Library, most: int, done: bool) -> None:
    library.most = most
    with memory.kept_memory():
        pass
    assert memory.keep_memory() is done
    # Trimming alone would switch off what the library learns about block sizes.
    assert any(option == memory.M_TRIM_THRESHOLD for option, _ in library.asked) is done
    assert library.trimmed == done


@pytest.mark.parametrize("other", [object(), SimpleNamespace(mallopt=lambda option, value: 1)])
def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch, other: object) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: other)
    assert memory.keep_memory() is False
    with memory.kept_memory():
        pass


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
    library: _Library, monkeypatch: pytest.MonkeyPatch, name: str, value: str, chosen: bool
) -> None:
    monkeypatch.setenv(name, value)
    with memory.kept_memory():
        pass
    assert memory.keep_memory() is not chosen
    assert (library.asked == []) == (library.trimmed == 0) == chosen


def test_what_is_chosen_meanwhile_is_for_others(library: _Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set for a child process, say."""
    with memory.kept_memory():
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert library.trimmed == 1
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    assert memory.keep_memory()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert memory.keep_memory()
    with memory.kept_memory():
        pass
    assert library.trimmed == 1


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
    assert (library.asked, library.trimmed) == (ASKED, 0)


def test_a_block_that_does_not_begin_is_not_counted(library: _Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(option: int, value: int) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(library, "mallopt", interrupted)
    with pytest.raises(KeyboardInterrupt), memory.kept_memory():
        pass
    assert memory._Kept.blocks == 0


def test_a_block_may_be_collected_while_another_begins() -> None:
    """An open block that nobody holds any more ends whenever the collector runs: also in `keep_memory`."""
    program = """
import gc
from wsol import memory
def collect(found=memory._glibc):
    gc.collect()
    return found()
memory._glibc = collect
block = memory.kept_memory()
block.__enter__()
memory._Kept.library = None
block.itself = block
del block
gc.disable()
memory.keep_memory()
print("went on")
"""
    command = [sys.executable, "-c", program]
    assert "went on" in subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_blocks_of_many_threads_are_counted(library: _Library) -> None:
    within = []

    def work() -> None:
        for _ in range(200):
            with memory.kept_memory():
                within.append(memory._Kept.library is library)

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(within)
    assert (memory._Kept.blocks, memory._Kept.library) == (0, None)
    assert len(library.asked) == 4 * library.trimmed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes fork on Unix")
@pytest.mark.parametrize("ends", ["its own block", "the parent's block"])
def test_a_forked_child_begins_anew(ends: str) -> None:
    """Another thread holds the lock, and a block is open, when the process forks."""
    program = f"""
import os, threading
from wsol import memory
block = memory.kept_memory()
block.__enter__()
held, go_on = threading.Event(), threading.Event()
def hold():
    with memory._Kept.lock:
        held.set()
        go_on.wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    assert memory._Kept.blocks == 0
    assert memory._Kept.library is None
    if {ends!r} == "its own block":
        with memory.kept_memory():
            assert memory._Kept.blocks == 1
    else:
        block.__exit__(None, None, None)
    assert (memory._Kept.blocks, memory._Kept.library) == (0, None)
    os._exit(0)
go_on.set()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert memory._Kept.blocks == 1
print("went on")
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    assert "went on" in subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_an_extractor_keeps_memory_while_it_is_open(library: _Library, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = HeatmapExtractor(gapnet(3), ("gradcam",))
    hand_back, folding = library.malloc_trim, []
    monkeypatch.setattr(library, "malloc_trim", lambda pad: folding.append(extractor._folding) or hand_back(pad))
    with extractor:
        assert library.asked == ASKED
        extractor(torch.rand(2, 3, 32, 32))
        assert library.trimmed == 0
    assert library.trimmed == 1
    with pytest.raises(UserError), extractor:
        extractor(torch.rand(2, 3, 32, 32), torch.tensor([3, 3]))
    assert library.trimmed == 2
    assert folding == [None, None]  # folded weights are free before
