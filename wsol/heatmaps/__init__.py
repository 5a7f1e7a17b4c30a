"""From a network and an image to heatmaps: one pass, every method."""

from wsol.heatmaps.extractor import Found, HeatmapExtractor
from wsol.heatmaps.method import Method, make_method
from wsol.heatmaps.recording import Recording

__all__ = ["Found", "HeatmapExtractor", "Method", "Recording", "make_method"]
