"""From heatmaps to numbers: everything after the sweeps is a query of them; counts are whole, so that parts add up."""

from wsol.metrics.localization import ERROR_KINDS, METRICS, OUTCOMES, ErrorKind, Sweeps, error_kind, outcomes_of
from wsol.metrics.pixels import PxAP, pixel_histograms, point_and_energy

__all__ = [
    "ERROR_KINDS",
    "METRICS",
    "OUTCOMES",
    "ErrorKind",
    "PxAP",
    "Sweeps",
    "error_kind",
    "outcomes_of",
    "pixel_histograms",
    "point_and_energy",
]
