from . import datasets, heatmaps, localization, metrics, models
from . import memory as memory
from .datasets import Dataset, Sample
from .engine import Options, ScoreOptions, evaluate, score
from .errors import UserError
from .explanation import Explanation, explain
from .heatmaps import HeatmapExtractor
from .localization import Protocol, Sweep, load_protocol, score_map, sweep_thresholds
from .memory import keep_memory
from .models import Classifier
from .report.pictures import overlay
from .tables import Results
from .training import train

__version__: str
__all__ = [
    "Classifier",
    "Dataset",
    "Explanation",
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
    "explain",
    "heatmaps",
    "keep_memory",
    "load_protocol",
    "localization",
    "metrics",
    "models",
    "overlay",
    "score",
    "score_map",
    "sweep_thresholds",
    "train",
]
