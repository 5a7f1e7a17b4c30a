"""What a run was made with: versions, device, times, the command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

__all__ = ["describe_environment"]

PACKAGES = ("wsol", "torch", "torchvision", "numpy", "numba", "pandas", "scikit-image", "hydra-core", "pillow")


def describe_environment(
    began: float, device: torch.device, source: Mapping[str, Any], notes: Sequence[str]
) -> dict[str, Any]:
    """Collect what a reader needs to trust a run, years later.

    Parameters
    ----------
    began : float
        `time.time()` at the start.
    device : torch.device
    source : mapping
        What the heatmaps were made from: dataset, split and its role, model, weights, view, class map.
    notes : sequence of str
        What the user was warned of.
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    return {
        "role": source.get("role", ""),
        "source": dict(source),
        "notes": list(notes),
        "command": os.environ.get("WSOL_COMMAND", shlex.join(sys.argv)),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(began)),
        "seconds": round(time.time() - began, 1),
        "device": f"{device} ({name})",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
    }
