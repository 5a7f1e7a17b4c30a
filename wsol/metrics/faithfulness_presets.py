"""What faithfulness means: a preset, a YAML in `conf/faithfulness/`, says everything on which implementations differ.

s is the score of the class whose heatmap it is, s(·) that of a changed image, n the number of its pixels.

    deletion       area under s(the most relevant k pixels hidden) over k / n        Petsiuk et al., BMVC 2018
    insertion      area under s(all but these hidden) over k / n                     the same
    average_drop   max(0, s - s(image ∘ heatmap)) / s, or without the division       Chattopadhay et al., WACV 2018
    increase       [s(image ∘ heatmap) > s]                                          the same
    gain           max(0, s(image ∘ heatmap) - s) / (1 - s)                          Zhang et al. (Opti-CAM), CVIU 2024
    road_most      mean over shares of s(most relevant imputed) - s                  Rong et al., ICML 2022
    road_least     the same of the least relevant
    road           (road_least - road_most) / 2

High is good for insertion, increase, gain, road_least and road, low for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field

from wsol.errors import UserError, suggest
from wsol.io import conf_dir, read_text
from wsol.settings import settings

Metric = Literal["deletion", "insertion", "average_drop", "increase", "gain", "road_most", "road_least", "road"]
FAITHFULNESS_METRICS: tuple[str, ...] = get_args(Metric)
Baseline = Literal["black", "mean", "blur"]
CURVES, MASKED, ROAD = ("deletion", "insertion"), ("average_drop", "increase", "gain"), ("road_most", "road_least")
LOW_IS_GOOD = frozenset({"deletion", "average_drop", "road_most"})


@settings
class Faithfulness:
    """How faithfulness is measured: everything on which implementations of one name differ.

    A constant map hides nothing if it is positive. ROAD takes away shares of the pixels; among equals the first in
    raster order is the most relevant ("raster"), or all pixels below a percentile of the map stay ("percentile").
    """

    name: Annotated[str, Field(min_length=1)] = "custom"  # in the tables
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1)]  # of those that this module's text lists
    target: Literal["label", "predicted"] = "label"  # whose heatmap and score: the sample's class or the network's best
    score: Literal["prob", "logit"] = "prob"  # softmax over all logits, or the logit itself
    relative: bool = True  # drop and gain are divided, by s and by 1 - s
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"  # of a heatmap, to the input's size
    normalization: Literal["before", "after"] = "after"  # of a heatmap to [0, 1], before or after that
    space: Literal["pixels", "normalized"] = "pixels"  # what a map is multiplied with; 0 is black, or the mean color
    deletion_baseline: Baseline = "mean"  # what hides a pixel
    insertion_baseline: Baseline = "blur"
    blur_kernel: Annotated[int, Field(ge=1)] = 11  # side of the Gaussian, odd; outside is the mean color
    blur_sigma: Annotated[float, Field(gt=0)] = 5.0  # pixels of the input
    pixels_per_step: Annotated[int, Field(ge=1)] | None = None  # how many more each step hides; or else
    steps: Annotated[int, Field(ge=1)] | None = None  # into how many a curve is cut
    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    ties: Literal["raster", "percentile"] = "raster"
    noise: Annotated[float, Field(ge=0)] = 0.01  # standard deviation of what ROAD adds to imputed values

    def __post_init__(self) -> None:
        if (self.pixels_per_step is None) == (self.steps is None) and self.measures(CURVES):
            raise UserError("pass one of pixels_per_step and steps")
        if not self.shares or len(set(self.shares)) < len(self.shares):
            raise UserError(f"shares={list(self.shares)}: pass at least one, and each only once")
        if self.blur_kernel % 2 == 0:
            raise UserError(f"blur_kernel={self.blur_kernel} has no middle: pass an odd one")
        if self.relative and self.score == "logit" and self.measures(MASKED):
            raise UserError("relative=true divides by a probability: pass score=prob")

    def measures(self, metrics: Sequence[str]) -> bool:
        """Whether any of these is asked for."""
        return any(metric in self.metrics for metric in metrics)

    def counts(self, pixels: int) -> list[int]:
        """How many pixels are hidden at each step of a curve, from 0 to all: [0, 4, 8, 10] in 3 steps."""
        step = self.pixels_per_step or -(-pixels // (self.steps or 1))
        return [*range(0, pixels, step), pixels]


def faithfulness_names() -> list[str]:
    """Names of the presets, sorted."""
    return sorted(path.stem for path in (conf_dir() / "faithfulness").glob("*.yaml"))


def load_faithfulness(preset: Faithfulness | str | Path) -> Faithfulness:
    """Read a preset by its name, or from a YAML file of `Faithfulness`'s fields; one that is there comes back."""
    if isinstance(preset, Faithfulness):
        return preset
    path = Path(preset).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        if str(preset) not in faithfulness_names():
            raise UserError(f"no faithfulness preset '{preset}'{suggest(str(preset), faithfulness_names())}")
        path = conf_dir() / "faithfulness" / f"{preset}.yaml"
    fields: dict[str, Any] = {"name": path.stem} | dict(yaml.safe_load(read_text(path)) or {})
    return Faithfulness(**fields)
