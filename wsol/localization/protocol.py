"""A protocol is data: every rule of scoring on which papers differ is one of its fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WrapValidator

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


def _by_dataset(value: Any, validate: Callable[[Any], Any]) -> Any:
    """Validate a value, or each of those by dataset, which are kept as pairs, so that a protocol can be hashed."""
    pairs = isinstance(value, tuple) and bool(value) and all(isinstance(pair, tuple) for pair in value)
    if not isinstance(value, Mapping) and not pairs:
        return validate(value)
    by_name = {str(name).lower(): validate(_tuple(each)) for name, each in dict(value).items()}
    return tuple(sorted(by_name.items()))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _clipping(value: Any) -> Any:
    return {True: "both_last_pixel", False: "none"}[value] if isinstance(value, bool) else value


def _view_of_size(view: str, info: ValidationInfo) -> str:
    size = info.data.get("size", (1, 1))
    if view != "squash" and (size is None or (size == "heatmap" and view != "square_crop")):
        raise ValueError(f"needs a size in pixels: size = {size!r}")
    if view.startswith("short_side") and size[0] != size[1] and not isinstance(size[0], tuple):
        raise ValueError(f"needs a square size: size = {size!r}")
    return view


def _shared_levels(thresholds: Any, info: ValidationInfo) -> Any:
    if thresholds == "levels" and isinstance(info.data.get("cut_of"), float):
        raise ValueError(f"goes with cut_of 'max' or 'absolute' only: cut_of = {info.data['cut_of']:g}")
    return thresholds


PER_DATASET = WrapValidator(_by_dataset)
BY_DATASET = ("size", "truth_origin", "truth_end", "iou_clamped", "thresholds", "threshold")
Side = Annotated[int, Field(ge=1, le=32767)]
Tau = Annotated[float, Field(ge=0, lt=1)]
Step = Annotated[float, Field(ge=1e-6, lt=1)]
Overlap = Annotated[float, Field(gt=0, le=1)]
Box = Annotated[tuple[float, float, float, float], AfterValidator(_ordered)]
Share = Annotated[float, Field(gt=0, le=1)]
Percent = Annotated[float, Field(gt=0, le=100)]
Grid = Step | Annotated[tuple[Tau, ...], AfterValidator(_increasing)] | Literal["levels"]
Clipping = Literal["none", "one_sided", "one_sided_last_pixel", "both", "both_last_pixel"]
WHOLE_MAPS = (224, 224)  # size of a baseline, which has none of its own, where maps are evaluated at their own


@settings
class Protocol:
    """Every rule of scoring on which papers differ; the defaults are those of MaxBoxAcc (Choe et al. 2020).

    Instances are frozen and hashable; `dataclasses.replace` makes another. From a YAML file: `load_protocol`.

    Parameters
    ----------
    name : str
        What the tables call it.
    size : (width, height), "heatmap" or None
        Evaluation size of score maps, in pixels; "heatmap": each heatmap's own, without resizing; None: that of the
        original image.
    view : "squash", "square_crop", "short_side_crop" or "short_side"
        What of the image `size` covers: all of it; the center of the image brought to a square of `size / view_share`;
        the center of the image whose shorter side was brought to that, the aspect kept; or all of the image whose
        shorter side was brought to `size`. Ground truth and heatmaps are cut alike; what lies outside is lost.
    view_share : float
        Share of the square's, or the shorter, side that a crop keeps: 0.875 is 224 of 256.
    interpolation : "bicubic", "bilinear" or "nearest"
        How a heatmap is brought to evaluation size: in float64, pixel centers, corners not aligned, as
        `torch.nn.functional.interpolate` does. Only bicubic (a = -0.75) leaves the range of the heatmap's values.
    normalization : "minmax", "max", "relu_minmax", "percentile" or "none"
        `(f - min f) / (max f - min f)`; or `max(f, 0) / max f`; or the former of `max(f, 0)`; or
        `(f - low) / (high - low)`, clipped to [0, 1]; or `f` as it is, which must lie in [0, 1].
    normalization_percentiles : (low, high)
        Shares p of the n values: the one at index `int(n * p)` of all sorted, the maximum where p is 1.
    normalization_order : "after_resizing" or "before_resizing"
    normalization_epsilon : float
        Added to what normalization divides by.
    levels : int or None
        Quantization of score maps to the integers `trunc(f * (levels - 1))`, the cut being `int(tau * max)` of those;
        256 is what OpenCV's 8 bits do. None: no quantization, the cut is `tau * max f`.
    cut_of : "max", "absolute" or float
        What tau is multiplied with: the map's maximum; the greatest value that a map can have; or this percentile (100
        is the maximum) of the map, once quantized, interpolated linearly as `numpy.percentile` does.
    pixel_comparison : ">" or ">="
        How a pixel of the foreground compares with the cut. A map without a positive value has none either way.
    connectivity : 8 or 4
        Which neighbors hang together in the foreground; in the background it is the other.
    component : "largest", "any" or "union"
        Whose box is scored: the largest component's; or the best of any, chosen with the ground truth, as in
        MaxBoxAccV2; or the one around all of the foreground.
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
    empty_box : (x0, y0, x1, y1), "image" or None
        The box, in that convention, where no pixel is above the cut; "image": the whole map. None: no box, and IoU 0.
    truths : "best", "first" or "last"
        Which of an image's ground-truth boxes, in the order of the dataset, the predicted one is compared with.
    truth_origin : 0 or 1
        The number of the first pixel in annotations: 1 is taken off all corners, or nothing.
    truth_end : "as_annotated" or "last_pixel"
        The latter takes 1 off `x1` and `y1`: annotations that end at x + width then end at x + width - 1.
    truth_integers : "none", "corners" or "sides"
        What is truncated before scaling: nothing; the four corners; or x, y, width and height, each on its own.
    truth_scaling : "multiply_first" or "divide_first"
        `x * new / old` or `x / old * new`: now and then truncation tells them apart.
    truth_rounding : "truncate" or "none"
        What becomes of the corners of ground-truth boxes once they are scaled to evaluation size.
    truth_clipped : "none", "one_sided", "one_sided_last_pixel", "both" or "both_last_pixel"
        What is brought back into the map then: nothing; `x0`, `y0` raised to 0 and `x1`, `y1` lowered to the map's
        width and height, which turns a box outside inside out; or all four to both limits. "last_pixel": the upper
        limit is the last column and row. False means "none", True "both_last_pixel".
    iou_convention : "inclusive", "corners" or "continuous"
        Sides are `x1 - x0 + 1` or `x1 - x0` long, both boxes' numbers taken as they are; or boxes are areas of the
        plane, where a ground-truth box, whose corners are inclusive, covers `[x0, x1 + 1) x [y0, y1 + 1)`.
    iou_clamped : bool
        Whether the intersection's sides are at least 0. False: boxes apart in both axes have a product of two negative
        sides, so that their "IoU" is positive, may exceed 1, and counts as a match.
    iou_comparison, topk_iou_comparison : ">=" or ">"
        How an IoU compares with an IoU threshold: in GT-known localization, and in Top-k localization.
    iou_thresholds : tuple of float
        IoU thresholds in (0, 1], increasing.
    thresholds : float, sequence of float, or "levels"
        Grid of tau in [0, 1), relative to a score map's maximum: a step from 0 on; a list, increasing; or every value
        that a map has.
    threshold : float or None
        One fixed tau in [0, 1). None: the best tau on this very split (an oracle), unless another run's is asked for.
    threshold_of : "gt_known", "each" or "sum"
        What the oracle's tau is the best for: GT-known localization; GT-known, Top-1 and Top-5 localization, each at
        its own; or the sum of GT-known and Top-1. The smallest among equals.
    v2_threshold : "each" or "shared"
        Whether IoU thresholds of MaxBoxAccV2 have each its own best tau, or all that of the summary.
    average : "samples" or "classes"
        What an accuracy is the mean over: all samples, or the accuracies of the classes.
    ready_boxes : bool
        Whether the paper's evaluator is handed boxes. Its rules for heatmaps are then nobody's.
    mask_size : (width, height)
        Size of masks in PxAP, in pixels.
    mask_interpolation : "nearest"
        How masks are brought to it: the pixel at the floor of the scaled coordinate.
    pxap_bin : float
        Width of the bins of PxAP's histogram over a score map's values.

    Notes
    -----
    `size`, `thresholds`, `threshold`, `truth_end`, `truth_origin` and `iou_clamped` may also map names of datasets, in
    any case, to values: `{"cub": 0.15, "ilsvrc": 0.5}`. `for_dataset` chooses; a dataset that is not named takes what
    "default" maps to, or the default that stands here.

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
    wsol.errors.UserError: protocol: size = (0, 64) should be greater than or equal to 1 or should be 'heatmap'
    """

    name: Annotated[str, Field(min_length=1)] = "custom"
    size: Annotated[tuple[Side, Side] | Literal["heatmap"] | None, PER_DATASET] = (224, 224)
    view: Annotated[
        Literal["squash", "square_crop", "short_side_crop", "short_side"], AfterValidator(_view_of_size)
    ] = "squash"
    view_share: Share = 0.875
    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    normalization: Literal["minmax", "max", "relu_minmax", "percentile", "none"] = "minmax"
    normalization_percentiles: Annotated[tuple[Annotated[float, Field(ge=0)], Share], AfterValidator(_increasing)] = (
        0.0,
        1.0,
    )
    normalization_order: Literal["after_resizing", "before_resizing"] = "after_resizing"
    normalization_epsilon: Annotated[float, Field(ge=0, le=1)] = 0.0
    levels: Annotated[int, Field(ge=2, le=65536)] | None = 256
    cut_of: Percent | Literal["max", "absolute"] = "max"
    pixel_comparison: Literal[">", ">="] = ">"
    connectivity: Literal[8, 4] = 8
    component: Literal["largest", "any", "union"] = "largest"
    area: Literal["contour", "pixels"] = "contour"
    tie: Literal["last", "first"] = "last"
    holes: bool = True
    box_convention: Literal["inclusive", "half_open", "half_open_clipped"] = "half_open_clipped"
    empty_box: Box | Literal["image"] | None = (0.0, 0.0, 0.0, 0.0)
    truths: Literal["best", "first", "last"] = "best"
    truth_origin: Annotated[Literal[0, 1], PER_DATASET] = 0
    truth_end: Annotated[Literal["as_annotated", "last_pixel"], PER_DATASET] = "as_annotated"
    truth_integers: Literal["none", "corners", "sides"] = "none"
    truth_scaling: Literal["multiply_first", "divide_first"] = "multiply_first"
    truth_rounding: Literal["truncate", "none"] = "truncate"
    truth_clipped: Annotated[Clipping, BeforeValidator(_clipping)] = "none"
    iou_convention: Literal["inclusive", "corners", "continuous"] = "inclusive"
    iou_clamped: Annotated[bool, PER_DATASET] = True
    iou_comparison: Literal[">=", ">"] = ">="
    topk_iou_comparison: Literal[">=", ">"] = ">="
    iou_thresholds: Annotated[tuple[Overlap, ...], AfterValidator(_increasing)] = (0.3, 0.5, 0.7)
    thresholds: Annotated[Grid, AfterValidator(_shared_levels), PER_DATASET] = 0.001
    threshold: Annotated[Tau | None, PER_DATASET] = None
    threshold_of: Literal["gt_known", "each", "sum"] = "gt_known"
    v2_threshold: Literal["each", "shared"] = "each"
    average: Literal["samples", "classes"] = "samples"
    ready_boxes: bool = False
    mask_size: tuple[Side, Side] = (224, 224)
    mask_interpolation: Literal["nearest"] = "nearest"
    pxap_bin: Annotated[float, Field(ge=1e-6, le=1)] = 0.001

    @property
    def by_dataset(self) -> tuple[str, ...]:
        """Fields that map names of datasets to values; empty once `for_dataset` has chosen."""
        values = ((name, getattr(self, name)) for name in BY_DATASET)
        return tuple(name for name, value in values if isinstance(value, tuple) and isinstance(value[0], tuple))

    def for_dataset(self, name: str = "") -> Protocol:
        """Return the rules for a dataset of that name, compared without regard to case; the same where none differs.

        Examples
        --------
        >>> protocol = Protocol(threshold={"cub": 0.15, "ilsvrc": 0.5})
        >>> protocol.for_dataset("CUB").threshold, protocol.for_dataset("shapes").threshold
        (0.15, None)
        """
        if not self.by_dataset:
            return self
        values: dict[str, dict[str, Any]] = {field: dict(getattr(self, field)) for field in self.by_dataset}
        defaults = {rule.name: rule.default for rule in fields(self)}
        chosen = {field: of.get(name.lower(), of.get("default", defaults[field])) for field, of in values.items()}
        return replace(self, **chosen)

    def fingerprint(self) -> str:
        """Return 8 hex digits of the rules, for citations: `choe2020_v2@53f0a1c2`.

        Of the fields that differ from their defaults, without the name: a field that a later version adds changes
        nothing.

        Examples
        --------
        >>> Protocol(name="one").fingerprint() == Protocol(name="two", threshold=None).fingerprint()
        True
        """
        values = {rule.name: getattr(self, rule.name) for rule in fields(self)}
        changed = {rule.name: values[rule.name] for rule in fields(self) if values[rule.name] != rule.default}
        return sha256(json.dumps(changed | {"name": ""}, sort_keys=True).encode()).hexdigest()[:8]

    def box_rules(self) -> Protocol:
        """Keep what boxes and their IoUs at every threshold depend on; protocols that agree on it share their sweeps.

        Examples
        --------
        >>> load_protocol("choe2020").box_rules() == load_protocol("choe2020_v2").box_rules()
        True
        """
        rules = _only(BOX_RULES, self.for_dataset())
        free = replace(rules, threshold=None)  # a fixed τ that is one of the grid's own changes no sweep
        return free if rules.thresholds != "levels" and len(free.grid()) == len(rules.grid()) else rules

    def outcome_rules(self) -> Protocol:
        """Keep what has a say in outcomes: protocols that agree on it make equal ones, whatever the heatmaps are.

        Examples
        --------
        >>> load_protocol("zhu2022_dawsol").outcome_rules() == load_protocol("zhu2022_bagcams").outcome_rules()
        True
        """
        idle = {"name", "ready_boxes"} | ({"area", "tie"} if self.component != "largest" else set())
        idle |= {"holes"} if self.component != "any" else set()
        idle |= {"normalization_percentiles"} if self.normalization != "percentile" else set()
        idle |= {"threshold_of"} if self.threshold is not None else set()
        return _only(tuple(rule.name for rule in fields(self) if rule.name not in idle), self)

    def component_rules(self) -> Protocol:
        """Keep what the largest component's box at every threshold depends on, whatever the ground truth."""
        return _only(COMPONENT_RULES, self.box_rules())

    def map_rules(self) -> Protocol:
        """Keep what score maps depend on."""
        return _only(MAP_RULES, self.for_dataset())

    def pixel_rules(self) -> Protocol:
        """Keep what PxAP depends on, whose maps have the size of masks and cover the whole image."""
        return replace(_only(PIXEL_RULES, self), size=self.mask_size)

    def evaluation_size(
        self, image_size: tuple[int, int] | None = None, heatmap_size: tuple[int, int] | None = None
    ) -> tuple[int, int]:
        """Width and height of score maps, in pixels, of an image and a heatmap of these sizes.

        Examples
        --------
        >>> Protocol(view="short_side").evaluation_size((500, 375))
        (298, 224)
        """
        if "size" in self.by_dataset:
            return self.for_dataset().evaluation_size(image_size, heatmap_size)
        if self.size == "heatmap":
            return heatmap_size or WHOLE_MAPS
        if self.size is not None and self.view != "short_side":
            return self.size
        if image_size is None:
            raise UserError(f"protocol {self.name} evaluates at a size that depends on the image's: pass image_size")
        if self.size is None:
            return image_size
        short = min(image_size)
        return image_size[0] * self.size[0] // short, image_size[1] * self.size[1] // short

    def grid(self) -> np.ndarray:
        """Thresholds tau of a sweep, increasing: float64 (T,); a fixed `threshold` that is not among them is inserted.

        A UserError if the grid is "levels": every map has its own.

        Examples
        --------
        >>> bool((Protocol().grid() == np.arange(0, 1, 0.001)).all())
        True
        """
        if self.by_dataset:
            return self.for_dataset().grid()
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


READ_LATER = (
    "name", "component", "iou_comparison", "topk_iou_comparison", "iou_thresholds", "threshold_of", "v2_threshold",
    "average", "ready_boxes",
)  # fmt: skip
NORMALIZATION = ("interpolation", *(rule.name for rule in fields(Protocol) if rule.name.startswith("normalization")))
MAP_RULES = ("size", "view", "view_share", *NORMALIZATION)
PIXEL_RULES = (*NORMALIZATION, "mask_size", "mask_interpolation", "pxap_bin")
BOX_RULES = tuple(
    rule.name for rule in fields(Protocol) if rule.name in NORMALIZATION or rule.name not in (*READ_LATER, *PIXEL_RULES)
)
IOU_RULES = ("holes", "component", "box_convention", "empty_box", "iou_convention", "iou_clamped")
COMPONENT_RULES = tuple(name for name in BOX_RULES if name not in IOU_RULES and not name.startswith("truth"))


@lru_cache(maxsize=1024)
def _only(names: tuple[str, ...], protocol: Protocol) -> Protocol:
    """Keep these rules, all others at their defaults."""
    return Protocol(**{name: getattr(protocol, name) for name in names})


def protocol_names() -> list[str]:
    """Names of the presets, sorted."""
    return sorted(path.stem for path in (conf_dir() / "protocol").glob("*.yaml") if path.stem != "all")


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
