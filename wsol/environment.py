"""What a run was made with: versions, device, times, the command."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from wsol.files import write_text

__all__ = ["describe_environment", "read_environment", "write_config", "write_environment"]

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


def write_environment(environment: Mapping[str, Any], folder: Path) -> None:
    """Write `environment.json`."""
    text = json.dumps(environment, indent=1, ensure_ascii=False, default=str)
    write_text(folder / "environment.json", text + "\n")


def read_environment(folder: Path) -> dict[str, Any]:
    """Read the `environment.json` of a run; empty where there is none or it is damaged."""
    try:
        found = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_config(config: Mapping[str, Any], folder: Path) -> None:
    """Write `config.yaml`."""
    write_text(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
