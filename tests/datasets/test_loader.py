"""Batches come in order, are loaded ahead but not far, and end cleanly."""

from __future__ import annotations

import threading
import time

import pytest

from wsol.datasets.images import load_ahead
from wsol.errors import UserError


def alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("wsol-loader")]


class Load:
    """Hands on items and remembers which; one is broken."""

    def __init__(self, broken: int = -1, seconds: float = 0.0) -> None:
        self.begun: list[int] = []
        self.broken, self.seconds = broken, seconds

    def __call__(self, item: int) -> int:
        self.begun.append(item)
        if item == self.broken:
            raise UserError(f"item {item} is broken")
        time.sleep(self.seconds)
        return item

    def settled(self) -> int:
        """How many there are once no more come."""
        count = -1
        while count != len(self.begun):
            count = len(self.begun)
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
    assert list(load_ahead([], str, 4, workers)) == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_exception_comes_at_the_batch_of_its_item(workers: int) -> None:
    batches = load_ahead(range(12), Load(broken=5), 2, workers)
    assert next(batches) == [0, 1]
    assert next(batches) == [2, 3]
    with pytest.raises(UserError, match="item 5"):
        next(batches)
    assert not alive()


def test_after_an_exception_the_rest_is_not_loaded() -> None:
    load = Load(broken=0, seconds=0.01)
    with pytest.raises(UserError):
        next(load_ahead(range(1000), load, 500, 1))
    assert len(load.begun) < 100


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_look_ahead_is_bounded(workers: int) -> None:
    load = Load()
    batches = load_ahead(range(1000), load, 5, workers)
    next(batches)
    assert 5 < load.settled() <= (workers + 2) * 5
    next(batches)
    assert load.settled() <= (workers + 3) * 5
    assert alive()
    batches.close()
    assert not alive()
    assert len(load.begun) <= (workers + 3) * 5


def test_without_workers_nothing_is_loaded_ahead() -> None:
    load = Load()
    next(load_ahead(range(9), load, 3, 0))
    assert load.begun == [0, 1, 2]


@pytest.mark.parametrize(("batch_size", "workers"), [(0, 2), (-1, 0), (4, -1)])
def test_impossible_numbers_are_refused(batch_size: int, workers: int) -> None:
    with pytest.raises(UserError, match=f"batch_size={batch_size}, workers={workers}"):
        list(load_ahead([1], str, batch_size, workers))
