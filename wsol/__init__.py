"""Weakly supervised object localization: measures how well a classifier's heatmaps say where the object is."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsol import datasets, heatmaps, localization, metrics, models
    from wsol.datasets import Dataset, Sample
    from wsol.engine import Options, ScoreOptions, evaluate, score
    from wsol.errors import UserError
    from wsol.heatmaps import HeatmapExtractor
    from wsol.localization import Protocol, Sweep, load_protocol, score_map, sweep_thresholds
    from wsol.memory import keep_memory
    from wsol.models import Classifier
    from wsol.tables import Results
    from wsol.training import train

__version__ = "0.1.0"

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
    "datasets",
    "evaluate",
    "heatmaps",
    "keep_memory",
    "load_protocol",
    "localization",
    "metrics",
    "models",
    "score",
    "score_map",
    "sweep_thresholds",
    "train",
]

HOMES = {
    "datasets": ("Dataset", "Sample"),
    "engine": ("Options", "ScoreOptions", "evaluate", "score"),
    "errors": ("UserError",),
    "heatmaps": ("HeatmapExtractor",),
    "localization": ("Protocol", "Sweep", "load_protocol", "score_map", "sweep_thresholds"),
    "memory": ("keep_memory",),
    "metrics": (),
    "models": ("Classifier",),
    "tables": ("Results",),
    "training": ("train",),
}


def __getattr__(name: str) -> Any:
    """Fetch a name when it is used: `wsol --help` and completion must not wait seconds for torch."""
    for home, names in HOMES.items():
        if name == home or name in names:
            module = import_module(f"wsol.{home}")
            globals()[name] = module if name == home else getattr(module, name)
            return globals()[name]
    raise AttributeError(f"module 'wsol' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
