"""Batches in order, loaded ahead by threads: the one ordered, bounded thread map of the house.

Decoding, resizing and the kernels all run without Python's global lock, so threads keep the network busy without the
start-up time, the copies and the fork hazards of worker processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from wsol.errors import UserError

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def load_ahead(
    items: Sequence[Item], load: Callable[[Item], Loaded], batch_size: int, workers: int = 2
) -> Iterator[list[Loaded]]:
    """Yield `[load(item), …]` in batches, in the order of the items, whatever the number of threads.

    An exception of `load` is raised at the batch of its item. Without workers the caller's own thread loads; else at
    most `workers + 2` batches exist at a time.

    Examples
    --------
    >>> list(load_ahead([1, 2, 3], lambda item: item * 10, batch_size=2))
    [[10, 20], [30]]
    """
    if batch_size < 1 or workers < 0:
        raise UserError(f"batch_size={batch_size}, workers={workers}: pass at least 1 image and 0 workers")
    batches = (items[start : start + batch_size] for start in range(0, len(items), batch_size))
    if workers == 0:
        yield from ([load(item) for item in batch] for batch in batches)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="wsol-loader") as pool:
        ahead: deque[list[Future[Loaded]]] = deque()
        try:
            for batch in batches:
                ahead.append([pool.submit(load, item) for item in batch])
                if len(ahead) == workers + 2:
                    yield [future.result() for future in ahead.popleft()]
            while ahead:
                yield [future.result() for future in ahead.popleft()]
        finally:
            pool.shutdown(cancel_futures=True)  # also what is left of the batch that failed
