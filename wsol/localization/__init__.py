"""From a heatmap to boxes, at every threshold, under any paper's rules."""

from wsol.localization.boxes import box_iou, checked_boxes, from_inclusive, to_inclusive, truth_boxes
from wsol.localization.protocol import Protocol, load_protocol, protocol_names
from wsol.localization.score_map import score_map, score_maps
from wsol.localization.sweep import Runs, Sweep, sweep_thresholds

__all__ = [
    "Protocol",
    "Runs",
    "Sweep",
    "box_iou",
    "checked_boxes",
    "from_inclusive",
    "load_protocol",
    "protocol_names",
    "score_map",
    "score_maps",
    "sweep_thresholds",
    "to_inclusive",
    "truth_boxes",
]
