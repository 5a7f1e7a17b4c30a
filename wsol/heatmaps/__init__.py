"""From a network and an image to heatmaps: one pass, every method."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsol.heatmaps.extractor import Found, HeatmapExtractor, Heatmaps
    from wsol.heatmaps.method import Method, make_method
    from wsol.heatmaps.recording import Recording

__all__ = ["Found", "HeatmapExtractor", "Heatmaps", "Method", "Recording", "make_method"]

_HOMES = {"Method": "method", "make_method": "method", "Recording": "recording"}


def __getattr__(name: str) -> Any:
    """Fetch a public name when it is used: scoring needs no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'extractor')}"), name)
