"""Batches come in order, are loaded ahead but not far, and end cleanly."""

from __future__ import annotations

import threading
import time

import pytest

from wsol.datasets.loader import load_ahead
from wsol.errors import UserError


def alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("wsol-loader")]


def settled(values: list[int]) -> int:
    """How many there are once no more come."""
    count = -1
    while count != len(values):
        count = len(values)
        time.sleep(0.05)
    return count


@pytest.mark.parametrize("workers", [0, 1, 2, 7])
@pytest.mark.parametrize("batch_size", [1, 3, 10, 99])
def test_order_is_kept(workers: int, batch_size: int) -> None:
    def load(item: int) -> int:
        time.sleep(0.001 * (item % 3))  # later items are ready before earlier ones
        return item * item

    batches = list(load_ahead(range(10), load, batch_size, workers))
    assert [value for batch in batches for value in batch] == [i * i for i in range(10)]
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert not alive()


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_gives_nothing(workers: int) -> None:
    assert list(load_ahead([], str, 4, workers)) == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_exception_comes_at_the_batch_of_its_item(workers: int) -> None:
    def load(item: int) -> int:
        if item == 5:
            raise UserError("item 5 is broken")
        return item

    batches = load_ahead(range(12), load, 2, workers)
    assert next(batches) == [0, 1]
    assert next(batches) == [2, 3]
    with pytest.raises(UserError, match="item 5"):
        next(batches)
    assert not alive()


def test_after_an_exception_the_rest_is_not_loaded() -> None:
    begun: list[int] = []

    def load(item: int) -> int:
        begun.append(item)
        if item == 0:
            raise UserError("item 0 is broken")
        time.sleep(0.01)
        return item

    with pytest.raises(UserError):
        next(load_ahead(range(1000), load, 500, 1))
    assert len(begun) < 100


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_look_ahead_is_bounded(workers: int) -> None:
    begun: list[int] = []

    def load(item: int) -> int:
        begun.append(item)
        return item

    batches = load_ahead(range(1000), load, 5, workers)
    next(batches)
    assert 5 < settled(begun) <= (workers + 2) * 5
    next(batches)
    assert settled(begun) <= (workers + 3) * 5
    batches.close()


def test_without_workers_nothing_is_loaded_ahead_and_in_the_callers_thread() -> None:
    begun: list[str] = []
    batches = load_ahead(range(9), lambda item: begun.append(threading.current_thread().name), 3, 0)
    next(batches)
    assert begun == [threading.current_thread().name] * 3


def test_closing_early_ends_the_threads() -> None:
    begun: list[int] = []

    def load(item: int) -> int:
        begun.append(item)
        time.sleep(0.005)
        return item

    batches = load_ahead(range(1000), load, 10, 2)
    next(batches)
    assert alive()
    batches.close()
    assert not alive()
    assert len(begun) <= 40


@pytest.mark.parametrize(("batch_size", "workers"), [(0, 2), (-1, 0), (4, -1)])
def test_impossible_numbers_are_refused(batch_size: int, workers: int) -> None:
    with pytest.raises(UserError, match=f"batch_size={batch_size}, workers={workers}"):
        list(load_ahead([1], str, batch_size, workers))
