"""A protocol is data: every rule of scoring on which papers differ is one of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import AfterValidator, Field

from wsol.errors import UserError, suggest
from wsol.io import conf_dir, read_text
from wsol.settings import settings


def _increasing(numbers: tuple[float, ...]) -> tuple[float, ...]:
    if not numbers or list(numbers) != sorted(set(numbers)):
        raise ValueError("should be increasing, and at least one number")
    return numbers


def _ordered(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    if box[0] > box[2] or box[1] > box[3]:
        raise ValueError("should have x0 <= x1 and y0 <= y1")
    return box


Side = Annotated[int, Field(ge=1, le=32767)]
Tau = Annotated[float, Field(ge=0, lt=1)]
Step = Annotated[float, Field(ge=1e-6, lt=1)]
Overlap = Annotated[float, Field(gt=0, le=1)]
Box = Annotated[tuple[float, float, float, float], AfterValidator(_ordered)]


@settings
class Protocol:
    """Every rule of scoring on which papers differ; the defaults are those of MaxBoxAcc (Choe et al. 2020).

    Instances are frozen and hashable; `dataclasses.replace` makes another. From a YAML file: `load_protocol`.

    Parameters
    ----------
    name : str
        What the tables call it.
    size : (width, height) or None
        Evaluation size of score maps, in pixels; None: that of the original image.
    interpolation : "bicubic", "bilinear" or "nearest"
        How a heatmap is brought to evaluation size: in float64, pixel centers, corners not aligned, as
        `torch.nn.functional.interpolate` does. Only bicubic (a = -0.75) leaves the range of the heatmap's values.
    normalization : "minmax" or "max"
        After resizing, `(f - min f) / (max f - min f)`; or `max(f, 0) / max f`.
    levels : int or None
        Quantization of score maps to the integers `trunc(f * (levels - 1))`, the cut being `int(tau * max)` of those;
        256 is what OpenCV's 8 bits do. None: no quantization, the cut is `tau * max f`.
    pixel_comparison : ">" or ">="
        How a pixel of the foreground compares with the cut. A map without a positive value has none either way.
    connectivity : 8 or 4
        Which neighbors hang together in the foreground; in the background it is the other.
    component : "largest" or "any"
        Whose box is scored: the largest component's; or the best of any, chosen with the ground truth, as in
        MaxBoxAccV2.
    area : "contour" or "pixels"
        What "largest" means: the area of the polygon through the centers of the outer border's pixels, as OpenCV's
        `contourArea` counts (holes are filled, and a line has area 0); or the number of pixels.
    tie : "last" or "first"
        Among components of equal area: the one whose first pixel in raster order comes last, or first.
    holes : bool
        Whether outlines of holes compete in "any": the box of an enclosed region of background, one pixel larger on
        each side, as OpenCV's `RETR_TREE` returns it.
    box_convention : "inclusive", "half_open" or "half_open_clipped"
        What the numbers of a predicted box mean: `x1` is its last column; or the one behind it; or the latter, but
        never beyond the map's last column.
    empty_box : (x0, y0, x1, y1) or None
        The box, in that convention, where no pixel is above the cut. None: no box, and IoU 0.
    truth_rounding : "truncate" or "none"
        What becomes of the corners of ground-truth boxes once they are scaled to evaluation size.
    truth_clipped : bool
        Whether they are clipped to the map's last column and row then.
    iou_convention : "inclusive" or "continuous"
        Sides are `x1 - x0 + 1` long, both boxes' numbers taken as they are; or boxes are areas of the plane, where a
        ground-truth box, whose corners are inclusive, covers `[x0, x1 + 1) x [y0, y1 + 1)`.
    iou_comparison, topk_iou_comparison : ">=" or ">"
        How an IoU compares with an IoU threshold: in GT-known localization, and in Top-k localization.
    iou_thresholds : tuple of float
        IoU thresholds in (0, 1], increasing.
    thresholds : float, sequence of float, or "levels"
        Grid of tau in [0, 1), relative to a score map's maximum: a step from 0 on; a list, increasing; or every value
        that a map has.
    threshold : float or None
        One fixed tau in [0, 1). None: the best tau on this very split (an oracle), unless another run's is asked for.
    mask_size : (width, height)
        Size of masks in PxAP, in pixels.
    mask_interpolation : "nearest"
        How masks are brought to it: the pixel at the floor of the scaled coordinate.
    pxap_bin : float
        Width of the bins of PxAP's histogram over a score map's values.

    Raises
    ------
    UserError
        Naming the field and the value that is not allowed.

    References
    ----------
    Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020.

    Examples
    --------
    >>> mine = Protocol(name="mine", size=(64, 64), threshold=0.2)
    >>> mine.grid()[:3].tolist()
    [0.0, 0.001, 0.002]
    >>> Protocol(size=(0, 64))
    Traceback (most recent call last):
    ...
    wsol.errors.UserError: protocol: size = (0, 64) should be greater than or equal to 1
    """

    name: Annotated[str, Field(min_length=1)] = "custom"
    size: tuple[Side, Side] | None = (224, 224)
    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    normalization: Literal["minmax", "max"] = "minmax"
    levels: Annotated[int, Field(ge=2, le=65536)] | None = 256
    pixel_comparison: Literal[">", ">="] = ">"
    connectivity: Literal[8, 4] = 8
    component: Literal["largest", "any"] = "largest"
    area: Literal["contour", "pixels"] = "contour"
    tie: Literal["last", "first"] = "last"
    holes: bool = True
    box_convention: Literal["inclusive", "half_open", "half_open_clipped"] = "half_open_clipped"
    empty_box: Box | None = (0.0, 0.0, 0.0, 0.0)
    truth_rounding: Literal["truncate", "none"] = "truncate"
    truth_clipped: bool = False
    iou_convention: Literal["inclusive", "continuous"] = "inclusive"
    iou_comparison: Literal[">=", ">"] = ">="
    topk_iou_comparison: Literal[">=", ">"] = ">="
    iou_thresholds: Annotated[tuple[Overlap, ...], AfterValidator(_increasing)] = (0.3, 0.5, 0.7)
    thresholds: Step | Annotated[tuple[Tau, ...], AfterValidator(_increasing)] | Literal["levels"] = 0.001
    threshold: Tau | None = None
    mask_size: tuple[Side, Side] = (224, 224)
    mask_interpolation: Literal["nearest"] = "nearest"
    pxap_bin: Annotated[float, Field(ge=1e-6, le=1)] = 0.001

    def grid(self) -> np.ndarray:
        """Thresholds tau of a sweep, increasing: float64 (T,); a fixed `threshold` that is not among them is inserted.

        A UserError if the grid is "levels": every map has its own.

        Examples
        --------
        >>> bool((Protocol().grid() == np.arange(0, 1, 0.001)).all())
        True
        """
        if isinstance(self.thresholds, str):
            raise UserError(
                f"protocol {self.name}: thresholds = 'levels' differs from map to map, so there is no common grid; "
                "use a step or a list where accuracies over many maps are asked for"
            )
        if isinstance(self.thresholds, float):
            taus = np.arange(0, 1, self.thresholds)
            taus = taus[taus < 1]
        else:
            taus = np.array(self.thresholds, np.float64)
        if self.threshold is not None and not (taus == self.threshold).any():
            taus = np.sort(np.append(taus, self.threshold))
        return taus  # (T,)

    def for_many_maps(self) -> Protocol:
        """Return the same rules with a grid that all maps share: every level of quantized maps becomes a list.

        A normalized map's maximum is the highest level, so a tau half way between two levels cuts every map there.
        Without quantization that is impossible: a UserError.

        Examples
        --------
        >>> Protocol(thresholds="levels", levels=5).for_many_maps().thresholds
        (0.125, 0.375, 0.625, 0.875)
        """
        if self.thresholds != "levels" or self.levels is None:
            self.grid()
            return self
        top = self.levels - 1
        return replace(self, thresholds=tuple((level + 0.5) / top for level in range(top)))

    def threshold_index(self, threshold: float) -> int:
        """Index on the grid of a tau, which must lie within 1e-9 of a grid point.

        Examples
        --------
        >>> Protocol().threshold_index(0.15)
        150
        """
        taus = self.grid()
        nearest = int(np.abs(taus - threshold).argmin())
        if not abs(taus[nearest] - threshold) <= 1e-9:
            raise UserError(
                f"protocol {self.name}: tau = {threshold} is not on its grid (nearest: {taus[nearest]:g}); "
                "set the field 'threshold' to it, which adds it"
            )
        return nearest

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any] | None = None, /, **values: Any) -> Protocol:
        """Build a protocol from plain data, as it comes from a YAML file; what is given by name wins.

        Examples
        --------
        >>> Protocol.from_mapping({"threshold": 0.2}, name="mine").threshold
        0.2
        """
        return cls(**{str(name): value for name, value in {**(mapping or {}), **values}.items()})


def protocol_names() -> list[str]:
    """Names of the presets, sorted."""
    return sorted(path.stem for path in (conf_dir() / "protocol").glob("*.yaml"))


def load_protocol(protocol: Protocol | str | Path) -> Protocol:
    """Read a protocol from its YAML file; a `Protocol` comes back as it is.

    Parameters
    ----------
    protocol : Protocol, str or path
        A preset's name, or a YAML file: fields of `Protocol`, and optionally `defaults: [other@_here_]` with what
        it builds upon. The file's stem is the protocol's name unless it says otherwise.

    Raises
    ------
    UserError
        If there is no such preset or file, or if something in it is not allowed.

    Examples
    --------
    >>> load_protocol("selvaraju2017").threshold
    0.15
    """
    if isinstance(protocol, Protocol):
        return protocol
    path = Path(protocol).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return Protocol.from_mapping({"name": path.stem, **_fields(path)})
    return _read_preset(str(protocol))


@lru_cache(maxsize=64)
def _read_preset(name: str) -> Protocol:
    if name not in protocol_names():
        raise UserError(f"no protocol '{name}'{suggest(name, protocol_names())}")
    return load_protocol(conf_dir() / "protocol" / f"{name}.yaml")


def _fields(path: Path) -> dict[str, Any]:
    """Fields of a file, over those of the files that its `defaults` name."""
    text = read_text(path)
    try:
        fields = dict(yaml.safe_load(text) or {})
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a YAML file of fields and values: {error}") from None
    merged: dict[str, Any] = {}
    defaults = fields.pop("defaults", [])
    for entry in defaults if "_self_" in defaults else [*defaults, "_self_"]:
        name, _, package = str(entry).partition("@")
        if entry != "_self_" and package != "_here_":
            raise UserError(f"{path}: defaults entry {entry!r} is not understood: write '{name}@_here_'")
        base = path.with_name(f"{name}.yaml")
        base = base if base.is_file() else conf_dir() / "protocol" / base.name
        merged |= fields if entry == "_self_" else _fields(base)
    return merged
