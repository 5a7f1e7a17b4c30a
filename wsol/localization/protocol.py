"""A protocol is data: every rule of scoring on which papers differ is one of its fields."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wsol.errors import UserError
from wsol.io import conf_dir

__all__ = ["Protocol", "load_protocol", "protocol_names"]

CHOICES: dict[str, tuple[object, ...]] = {
    "interpolation": ("bicubic", "bilinear", "nearest"),
    "normalization": ("minmax", "max"),
    "pixel_comparison": (">", ">="),
    "connectivity": (8, 4),
    "component": ("largest", "any"),
    "area": ("contour", "pixels"),
    "tie": ("last", "first"),
    "box_convention": ("inclusive", "half_open", "half_open_clipped"),
    "truth_rounding": ("truncate", "none"),
    "iou_convention": ("inclusive", "continuous"),
    "iou_comparison": (">=", ">"),
    "topk_iou_comparison": (">=", ">"),
    "mask_interpolation": ("nearest",),
}
FLAGS = ("holes", "truth_clipped")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Every rule of scoring. The defaults are those of MaxBoxAcc (Choe et al. 2020).

    Parameters
    ----------
    name : str
        For the tables.
    size : (width, height) or None
        Evaluation size of score maps in pixels; None: that of the original image.
    interpolation : "bicubic", "bilinear" or "nearest"
        How a heatmap is brought to evaluation size (pixel centres, corners not aligned, float64).
    normalization : "minmax" or "max"
        After resizing: `(f - min) / (max - min)`, or clipped at 0 and divided by the maximum.
    levels : int or None
        Quantization to `trunc(f * (levels - 1))`, the cut being `int(tau * maximum)` of those integers;
        None: no quantization, the cut is `tau * maximum`.
    pixel_comparison : ">" or ">="
        How a pixel compares with the cut. A map without a positive value has no component either way.
    connectivity : 8 or 4
        Neighbors of a foreground pixel; the background has the other one.
    component : "largest" or "any"
        Which component's box is scored: the largest one's, or the best one, chosen with the truth.
    area : "contour" or "pixels"
        What "largest" means: area of the outer border's polygon through pixel centres (so holes are filled, and
        a line has area 0), or number of pixels.
    tie : "last" or "first"
        Among equal areas: the component whose first pixel in raster order comes last, or first.
    holes : bool
        Whether the best of "any" may also be the outline of a hole (the box of an enclosed background region,
        grown by one pixel on each side).
    box_convention : "inclusive", "half_open" or "half_open_clipped"
        `x1` is the last column; or the one behind it; or the latter, but never beyond the map's last column.
    empty_box : (x0, y0, x1, y1) or None
        In that convention: the box where no pixel is above the cut. None: no box, IoU 0.
    truth_rounding : "truncate" or "none"
        What becomes of true boxes once scaled to evaluation size.
    truth_clipped : bool
        Whether scaled true boxes are clipped to the map's last column and row.
    iou_convention : "inclusive" or "continuous"
        Sides count `x1 - x0 + 1` with both boxes' numbers as they are; or areas of the plane, where a true box, whose
        corners are inclusive, covers `[x0, x1 + 1)`.
    iou_comparison : ">=" or ">"
        How an IoU compares with an IoU threshold in GT-known localization.
    topk_iou_comparison : ">=" or ">"
        The same in Top-k localization.
    iou_thresholds : tuple of float
        IoU thresholds in (0, 1], increasing.
    thresholds : float, sequence of float, or "levels"
        Grid of tau: a step from 0 to 1 (1 excluded), a list in [0, 1), or every value that a map has.
    threshold : float or None
        Fixed tau in [0, 1); None: swept, the best tau (oracle) unless another run's tau is asked for.
    mask_size : (width, height)
        Size of masks in PxAP.
    mask_interpolation : "nearest"
        How masks are brought to that size: the pixel at the floor of the scaled coordinate.
    pxap_bin : float
        Width of the bins of PxAP's histogram.

    Raises
    ------
    UserError
        Naming the field and the value that is not allowed.

    References
    ----------
    Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020.

    Examples
    --------
    >>> Protocol(name="mine", threshold=0.2).grid()[:3].tolist()
    [0.0, 0.001, 0.002]
    """

    name: str = "custom"
    size: tuple[int, int] | None = (224, 224)
    interpolation: str = "bicubic"
    normalization: str = "minmax"
    levels: int | None = 256
    pixel_comparison: str = ">"
    connectivity: int = 8
    component: str = "largest"
    area: str = "contour"
    tie: str = "last"
    holes: bool = True
    box_convention: str = "half_open_clipped"
    empty_box: tuple[float, float, float, float] | None = (0, 0, 0, 0)
    truth_rounding: str = "truncate"
    truth_clipped: bool = False
    iou_convention: str = "inclusive"
    iou_comparison: str = ">="
    topk_iou_comparison: str = ">="
    iou_thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    thresholds: float | tuple[float, ...] | str = 0.001
    threshold: float | None = None
    mask_size: tuple[int, int] = (224, 224)
    mask_interpolation: str = "nearest"
    pxap_bin: float = 0.001

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise self._wrong("name", "give it a name that is not empty")
        for field, allowed in CHOICES.items():
            if getattr(self, field) not in allowed or isinstance(getattr(self, field), bool):
                raise self._wrong(field, f"choose one of {', '.join(map(str, allowed))}")
        for field in FLAGS:
            if not isinstance(getattr(self, field), bool):
                raise self._wrong(field, "use true or false")
        self._set("size", None if self.size is None else self._size("size"))
        self._set("mask_size", self._size("mask_size"))
        if self.levels is not None and not (_is_integer(self.levels) and 2 <= self.levels <= 65536):
            raise self._wrong("levels", "use an integer from 2 to 65536 (256 for 8 bits), or null")
        if self.empty_box is not None:
            self._set("empty_box", self._numbers("empty_box"))
            if (
                len(self.empty_box) != 4
                or self.empty_box[2] < self.empty_box[0]
                or self.empty_box[3] < self.empty_box[1]
            ):
                raise self._wrong("empty_box", "use four numbers x0 y0 x1 y1 with x0 <= x1 and y0 <= y1, or null")
        self._check_thresholds()

    def _check_thresholds(self) -> None:
        self._set("iou_thresholds", self._numbers("iou_thresholds"))
        ious = self.iou_thresholds
        if not ious or not all(0 < value <= 1 for value in ious) or list(ious) != sorted(set(ious)):
            raise self._wrong("iou_thresholds", "list increasing numbers in (0, 1]")
        if isinstance(self.thresholds, str):
            if self.thresholds != "levels":
                raise self._wrong("thresholds", "use a step, a list, or 'levels'")
        elif _is_number(self.thresholds):
            if not 1e-6 <= float(self.thresholds) < 1:  # type: ignore[arg-type]
                raise self._wrong("thresholds", "a step lies in [0.000001, 1)")
            self._set("thresholds", float(self.thresholds))  # type: ignore[arg-type]
        else:
            self._set("thresholds", self._numbers("thresholds"))
            taus = self.thresholds
            if not taus:
                raise self._wrong("thresholds", "the list is empty: give at least one tau in [0, 1)")
            if not all(0 <= tau < 1 for tau in taus) or list(taus) != sorted(set(taus)):  # type: ignore[operator,union-attr,arg-type]
                raise self._wrong("thresholds", "list increasing numbers in [0, 1)")
        if self.threshold is not None:
            if not _is_number(self.threshold) or not 0 <= float(self.threshold) < 1:
                raise self._wrong("threshold", "use a number in [0, 1), or null for a swept one")
            self._set("threshold", float(self.threshold))
        if not _is_number(self.pxap_bin) or not 1e-6 <= float(self.pxap_bin) <= 1:
            raise self._wrong("pxap_bin", "use a number in [0.000001, 1]")

    def grid(self) -> np.ndarray:
        """Thresholds tau of a sweep, increasing: float64 (T,).

        A fixed `threshold` that is not on the grid is inserted.

        Raises
        ------
        UserError
            If the grid is "levels": every map has its own.

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

        Raises
        ------
        UserError
            If the grid is "levels" and there is no quantization: every map has its own values.

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
        """Where a tau stands on the grid.

        Parameters
        ----------
        threshold : float
            In [0, 1).

        Returns
        -------
        int
            Index into `grid()`.

        Raises
        ------
        UserError
            If no grid point lies within 1e-9 of it.

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
        """Build a protocol from plain data, as it comes from a YAML file.

        Parameters
        ----------
        mapping : mapping from field names to values, optional
            Lists may stand for tuples.
        **values
            More of them; they win.

        Raises
        ------
        UserError
            Naming the unknown field and the nearest known ones, or the value that is not allowed.

        Examples
        --------
        >>> Protocol.from_mapping({"threshold": 0.2}, name="mine").threshold
        0.2
        """
        merged = {**(mapping or {}), **values}
        known = [field.name for field in fields(cls)]
        for key in merged:
            if key not in known:
                where = merged.get("name", "custom")
                raise UserError(f"protocol {where}: no field '{key}'; {_nearest(str(key), known)}")
        return cls(**merged)

    def _wrong(self, field: str, remedy: str) -> UserError:
        return UserError(f"protocol {self.name}: {field} = {getattr(self, field)!r} is not allowed: {remedy}")

    def _set(self, field: str, value: object) -> None:
        object.__setattr__(self, field, value)

    def _size(self, field: str) -> tuple[int, int]:
        value = getattr(self, field)
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise self._wrong(field, "use [width, height] in pixels")
        pair = tuple(value)
        if len(pair) != 2 or not all(_is_integer(side) and 1 <= side <= 32767 for side in pair):
            raise self._wrong(field, "use [width, height] in pixels, each from 1 to 32767")
        return int(pair[0]), int(pair[1])

    def _numbers(self, field: str) -> tuple[float, ...]:
        value = getattr(self, field)
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise self._wrong(field, "use a list of numbers")
        numbers = tuple(value)
        if not all(_is_number(number) for number in numbers):
            raise self._wrong(field, "use a list of numbers")
        return tuple(float(number) for number in numbers)


def protocol_names() -> list[str]:
    """Names of the presets, sorted.

    Examples
    --------
    >>> "zhou2016" in protocol_names()
    True
    """
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
        return Protocol.from_mapping({"name": path.stem, **_read(path, ())})
    return _preset(str(protocol))


@lru_cache(maxsize=64)
def _preset(name: str) -> Protocol:
    path = conf_dir() / "protocol" / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no protocol '{name}'; {_nearest(name, protocol_names())}")
    return Protocol.from_mapping({"name": path.stem, **_read(path, ())})


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise UserError(f"{path}: its defaults lead back to itself")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise UserError(f"no protocol file {path}; {_nearest(path.stem, protocol_names())}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a YAML file: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: a protocol file holds fields and values, not a {type(found).__name__}")
    own = {key: value for key, value in found.items() if key != "defaults"}
    merged: dict[str, Any] = {}
    bases = found.get("defaults", [])
    for entry in [*bases, *(() if "_self_" in bases else ("_self_",))]:
        if entry == "_self_":
            merged.update(own)
            continue
        name, _, package = str(entry).partition("@")
        if package != "_here_":
            raise UserError(f"{path}: defaults entry {entry!r} is not understood: write '{name}@_here_'")
        near = path.parent / f"{name}.yaml"
        base = near if near.is_file() else conf_dir() / "protocol" / f"{name}.yaml"
        merged.update(_read(base, (*seen, path)))
    return merged


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(float(value)))
