from . import datasets, heatmaps, localization, metrics, models
from .datasets import Dataset, Sample
from .engine import Options, ScoreOptions, evaluate, score
from .errors import UserError
from .heatmaps import HeatmapExtractor
from .localization import Protocol, Sweep, load_protocol, score_map, sweep_thresholds
from .memory import keep_memory
from .models import Classifier
from .tables import Results
from .training import train

__version__: str
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
