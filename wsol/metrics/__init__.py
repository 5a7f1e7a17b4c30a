"""Metrics whose states are integer counts, so that shards merge exactly."""

from wsol.metrics.accumulators import OUTCOMES, LocalizationAccuracy
from wsol.metrics.errors import ERROR_KINDS, error_kind
from wsol.metrics.outcomes import OutcomeCounts
from wsol.metrics.pixels import Pointing, PxAP, point_and_energy

__all__ = [
    "ERROR_KINDS",
    "OUTCOMES",
    "LocalizationAccuracy",
    "OutcomeCounts",
    "Pointing",
    "PxAP",
    "error_kind",
    "point_and_energy",
]
