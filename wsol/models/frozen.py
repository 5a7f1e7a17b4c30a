"""A network as heatmaps need it: in evaluation, its parameters without gradients; and everything back afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import nn

__all__ = ["frozen", "one_at_a_time"]


@dataclass(eq=False)
class _Before:
    """What a network was like before it was frozen."""

    modes: list[tuple[nn.Module, bool]]
    flags: list[tuple[nn.Parameter, bool]]

    def restore(self) -> None:
        for module, training in self.modes:
            # A mode that does more than to set its flag (weights merged and taken apart again) is asked for.
            if module.training != training and type(module).train is not nn.Module.train:
                module.train(training)
        for module, training in self.modes:
            module.training = training
        for parameter, flag in self.flags:
            parameter.requires_grad_(flag)


_open: WeakKeyDictionary[nn.Module, list[_Before]] = WeakKeyDictionary()
_lock = threading.RLock()
_turns: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()


def one_at_a_time(model: nn.Module) -> threading.RLock:
    """Return the lock of a model, for a `with` block: heatmaps patch its modules while it runs.

    Examples
    --------
    >>> model = nn.Linear(2, 2)
    >>> with one_at_a_time(model), one_at_a_time(model):  # the same thread may enter again
    ...     model.training
    True
    """
    with _lock:
        return _turns.setdefault(model, threading.RLock())


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluate with parameters that get no gradients; every mode and flag is as before when the block ends.

    Blocks over one model may end in any order, in threads, say: it stays frozen until the last of them ends.

    Parameters
    ----------
    model : nn.Module

    Examples
    --------
    >>> model = nn.Linear(2, 2)
    >>> with frozen(model):
    ...     model.training, model.weight.requires_grad
    (False, False)
    >>> model.training, model.weight.requires_grad
    (True, True)
    """
    with _lock:  # what one thread restores, another must not look at half done
        before = _Before(
            [(module, module.training) for module in model.modules()],
            [(parameter, parameter.requires_grad) for parameter in model.parameters()],
        )
        try:
            model.eval().requires_grad_(False)
        except BaseException:
            before.restore()
            raise
        _open.setdefault(model, []).append(before)
    try:
        yield
    finally:
        with _lock:
            blocks = _open.get(model, [before])  # the garbage collector may have forgotten a model before its block
            place = blocks.index(before)
            del blocks[place]
            if place < len(blocks):  # the block that was begun next finds the model as this one did
                blocks[place].modes, blocks[place].flags = before.modes, before.flags
            else:
                before.restore()
