"""Weakly supervised object localization: measures how well a classifier's heatmaps say where the object is."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsol.datasets import Dataset, Sample
    from wsol.engine import Options, ScoreOptions, evaluate, score
    from wsol.errors import UserError
    from wsol.heatmaps import HeatmapExtractor
    from wsol.localization import Protocol, Sweep, load_protocol, score_map, sweep_thresholds
    from wsol.memory import keep_memory
    from wsol.models import Classifier
    from wsol.tables import Results
    from wsol.training import train

__all__ = [
    "Classifier",
    "Dataset",
    "HeatmapExtractor",
    "Options",
    "Protocol",
    "Results",
    "Sample",
    "ScoreOptions",
    "Sweep",
    "UserError",
    "evaluate",
    "keep_memory",
    "load_protocol",
    "score",
    "score_map",
    "sweep_thresholds",
    "train",
]

__version__ = "0.1.0"

_HOMES = {
    "datasets": ("Dataset", "Sample"),
    "errors": ("UserError",),
    "engine": ("Options", "ScoreOptions", "evaluate", "score"),
    "heatmaps": ("HeatmapExtractor",),
    "localization": ("Protocol", "Sweep", "load_protocol", "score_map", "sweep_thresholds"),
    "memory": ("keep_memory",),
    "models": ("Classifier",),
    "tables": ("Results",),
    "training": ("train",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


class _Package(ModuleType):
    """Names are fetched when they are used: `wsol --help` and completion must not wait seconds for torch."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{self.__name__}.{_HOME[name]}"), name)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
