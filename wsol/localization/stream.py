"""The sweep for a stream of score maps, with several threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, repeat
from pathlib import Path
from typing import TypeVar

from wsol.errors import UserError
from wsol.localization.protocol import Protocol, load_protocol
from wsol.localization.sweep import Sweep, sweep_thresholds

__all__ = ["sweep_many"]

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 4


def sweep_many(
    score_maps: Iterable[object],
    gt_boxes: Iterable[object],
    protocol: Protocol | str | Path = "choe2020",
    image_sizes: Iterable[tuple[int, int] | None] | None = None,
    threads: int | None = None,
) -> Iterator[Sweep]:
    """Sweep a stream of score maps with several threads, which do not wait for each other.

    Inputs are taken as they are needed, so any number of maps passes through the memory of a few per thread.

    Parameters
    ----------
    score_maps, gt_boxes, image_sizes : iterables of equal length
        For each map what `sweep_thresholds` takes; an array (N, H, W) will do.
    protocol : Protocol, str or path
        The rules, a preset's name, or a file.
    threads : int, optional
        By default one for each processor that this process may use.

    Yields
    ------
    Sweep
        In the order of the maps.

    Raises
    ------
    UserError
        As `sweep_thresholds`; the text names the map's index.

    Examples
    --------
    >>> import numpy as np
    >>> maps = np.stack([np.eye(4), np.ones((4, 4))])
    >>> [float(sweep.iou_largest[0]) for sweep in sweep_many(maps, [[0, 0, 3, 3]] * 2, threads=2)]
    [1.0, 1.0]
    """
    rules = load_protocol(protocol)
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads < 1:
        raise UserError(f"threads = {threads}: use at least 1")
    return _stream(_matched(score_maps, gt_boxes, image_sizes), rules, threads)


def _matched(
    score_maps: Iterable[object],
    gt_boxes: Iterable[object],
    image_sizes: Iterable[tuple[int, int] | None] | None,
) -> Iterator[tuple[object, object, tuple[int, int] | None]]:
    streams = [iter(score_maps), iter(gt_boxes), repeat(None) if image_sizes is None else iter(image_sizes)]
    end = object()
    for index in range(1 << 62):
        score_map, boxes, image_size = (next(stream, end) for stream in streams)
        if score_map is end and boxes is end and (image_sizes is None or image_size is end):
            return
        for name, value in (("score_maps", score_map), ("gt_boxes", boxes), ("image_sizes", image_size)):
            if value is end:
                raise UserError(f"{name} ends after {index}, the others go on: pass one for each map")
        yield score_map, boxes, image_size  # type: ignore[misc]


def _stream(
    inputs: Iterator[tuple[object, object, tuple[int, int] | None]], rules: Protocol, threads: int
) -> Iterator[Sweep]:
    def some(tasks: list[tuple[int, tuple[object, object, tuple[int, int] | None]]]) -> list[Sweep | UserError]:
        found: list[Sweep | UserError] = []
        for index, given in tasks:
            try:
                found.append(sweep_thresholds(given[0], given[1], rules, given[2]))
            except UserError as error:
                return [*found, UserError(f"map {index}: {error}")]
        return found

    # A few maps at a time, so that handing them over costs little beside the work.
    numbered = enumerate(inputs)
    chunks = iter(lambda: list(islice(numbered, CHUNK if threads > 1 else 1)), [])
    for found in map(some, chunks) if threads == 1 else _in_order(some, chunks, threads):
        for sweep in found:
            if isinstance(sweep, UserError):
                raise sweep
            yield sweep


def _in_order(work: Callable[[T], R], tasks: Iterator[T], threads: int) -> Iterator[R]:
    """Map with threads; takes a task only when one was finished."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                del task
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
