"""Batches in order, loaded ahead by threads.

Decoding, resizing and the Shapes kernel all run without Python's global lock, so threads keep the network busy
without the start-up time, the copies and the fork hazards of worker processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from wsol.errors import UserError

__all__ = ["load_ahead"]

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def load_ahead(
    items: Sequence[Item], load: Callable[[Item], Loaded], batch_size: int, workers: int = 2
) -> Iterator[list[Loaded]]:
    """Yield `[load(item), …]` in batches, in the order of the items, whatever the number of workers.

    Parameters
    ----------
    items : sequence
        Indices, say.
    load : function
        Called once per item, in a thread; its exception is raised here, at the batch of that item.
    batch_size : int
        Items per batch; the last may be shorter.
    workers : int
        Threads; 0 loads in the caller's own. At most `workers + 2` batches exist at a time.

    Raises
    ------
    UserError
        If the batch size is below 1 or the number of workers below 0.

    Examples
    --------
    >>> list(load_ahead([1, 2, 3], lambda item: item * 10, batch_size=2))
    [[10, 20], [30]]
    """
    if batch_size < 1 or workers < 0:
        raise UserError(f"batch_size={batch_size}, workers={workers}: pass at least 1 image and 0 workers")
    batches = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
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
