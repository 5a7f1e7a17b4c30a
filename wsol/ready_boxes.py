"""Boxes and masks that somebody's method made in place of heatmaps: read, matched with samples, scored as boxes.

A box is never painted into a map: it goes the way of the ground truth (crop, scale, rounding, clipping), then the
protocol's IoU is taken. No threshold has a say in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsol.datasets.annotations import CORNERS, Rows, read_table
from wsol.datasets.folder import SUFFIXES, BoxRules
from wsol.datasets.images import mask_fits, read_mask
from wsol.datasets.sample import Dataset, boxes_of_mask
from wsol.errors import UserError, closest, first_names, quantity
from wsol.heatmaps.store import names_of
from wsol.localization import Protocol, box_iou, checked_boxes, sweep_thresholds, truth_boxes
from wsol.localization.boxes import to_image
from wsol.metrics.localization import ScoredBoxes
from wsol.metrics.pixels import ResampledPxAP, mask_histograms, resize_mask
from wsol.metrics.scoring import MethodScores, fitting_masks
from wsol.metrics.statistics import draws_of
from wsol.predictions import NAMINGS, class_names, class_text, safe_naming

NO_BOXES = np.zeros((0, 4))
Size = tuple[int, int]  # width, height


@dataclass(frozen=True, eq=False)
class GivenBoxes:
    """Boxes or masks of a dataset's samples that somebody's method gave in place of heatmaps."""

    name: str  # of the method
    kind: str  # "boxes" or "masks", which is also the summary's `threshold_source`
    boxes: list[np.ndarray] = field(default_factory=list)  # (N,) of (P, 4): inclusive, original pixels, best first
    masks: list[Path | None] = field(default_factory=list)  # (N,); None where there is none

    @property
    def missing(self) -> np.ndarray:
        """Samples without a box or mask: bool (N,)."""
        return np.array([mask is None for mask in self.masks] or [not len(boxes) for boxes in self.boxes])


def read_ready_boxes(
    dataset: Dataset,
    samples: pd.DataFrame,
    boxes: Path | str | None,
    masks: Path | str | None,
    rules: Mapping[str, str | None],
    taken: Iterable[str] = (),
    naming: str | None = None,
    on_error: str = "stop",
    part: bool = False,
) -> tuple[list[GivenBoxes], list[str]]:
    """Read boxes from a table, masks from a folder, or both; the notes say what counts as a miss, and what was chosen.

    The table has `sample_id, x0, y0, x1, y1`, one or several rows for each sample; with `score` the highest comes
    first, else the first row; with `class` only rows of the sample's own class, or of none, count, by the names of
    `naming` (the dataset's ids by default). `rules` are its corners and units, as of a dataset's `boxes_file`. A folder
    has masks `<sample id>.png` or the like, the image's suffix or not; what is not 0 is the object. `samples` know
    their images' sizes. Methods have the `taken` names already; these here are called as their file or folder. With
    on_error="skip" samples without a box are misses; of a `part` of a dataset rows of other samples are passed over.
    """
    sources = []
    if boxes is not None:
        path = Path(boxes).expanduser()
        sources.append((path, *_read_boxes(path, BoxRules(**rules, where="box_"), dataset, samples, naming, part)))
    if masks is not None:
        folder = Path(masks).expanduser()
        sources.append((folder, GivenBoxes(folder.resolve().name, "masks", masks=_find_masks(folder, samples)), []))
    notes, names_taken = list[str](), set(taken)
    for path, source, remarks in sources:
        if source.name in names_taken:
            raise UserError(f"{source.kind}={path}: there is a method {source.name} already; call the file otherwise")
        names_taken.add(source.name)
        names, where = samples["sample_id"][source.missing], f"{source.kind}={path}"
        text = f"{where}: nothing for {first_names(names)} ({len(names)} of {len(samples)} samples)"
        if len(names) and (on_error == "stop" or len(names) == len(samples)):
            raise UserError(f"{text}: add what is missing, or pass on_error=skip, which counts some as misses")
        notes += [f"{where}: {remark}" for remark in remarks] + (
            [f"{text}; they count as misses"] if len(names) else []
        )
    return [source for _, source, _ in sources], notes


def _read_boxes(
    path: Path, rules: BoxRules, dataset: Dataset, samples: pd.DataFrame, naming: str | None, part: bool
) -> tuple[GivenBoxes, list[str]]:
    rows = read_table(path, ("sample_id", *CORNERS), optional=("score", "class"))
    position = {name: index for index, name in enumerate(samples["sample_id"])}
    owner = np.array([position.get(str(name), -1) for name in rows["sample_id"]])
    if not part and (owner < 0).any():
        row = int(owner.argmin())
        near = ", ".join(closest(rows["sample_id"][row], position) or list(position)[:1])
        rows.refuse(row, f"is a box of none of the samples, such as {near}; fix or remove the row")
    corners = rows.numbers(CORNERS)
    scores = rows.numbers(["score"])[:, 0] if "score" in rows.columns else np.zeros(len(rows))
    # A method's boxes may reach outside, but not be of another unit: that would be a miss each time.
    sane = np.isfinite(corners).all(axis=1) & np.isfinite(scores) & (corners[:, :2] <= corners[:, 2:]).all(axis=1)
    sane &= (np.abs(corners) <= 10).all(axis=1) | (rules.units == "pixels")
    wrong = rows.first_wrong(sane, f"has a box that is none with {rules.corners} corners in {rules.units}; fix it")
    if wrong or (rules.units == "pixels" and (np.abs(corners) <= 1).all()):
        raise UserError(wrong or f"{path}: all corners lie within [0, 1]: pass box_units=relative")
    kept = np.flatnonzero((owner >= 0) & _of_own_class(rows, owner, dataset, naming))
    kept = kept[np.lexsort((-scores[kept], owner[kept]))]
    pixels = rules.to_pixels(corners[kept], (1, 1))
    if rules.units == "relative":
        pixels = rules.to_pixels(corners[kept], samples[["width", "height"]].to_numpy()[owner[kept]].T)
    counts = np.bincount(owner[kept], minlength=len(samples))
    several = int((counts > 1).sum())
    first = f"{quantity(several, 'sample')} with several boxes and no scores: the first counts, but where any may"
    notes = [first] if several and "score" not in rows.columns else []
    return GivenBoxes(path.stem, "boxes", np.split(pixels, counts.cumsum()[:-1])), notes


def _of_own_class(rows: Rows, owner: np.ndarray, dataset: Dataset, naming: str | None) -> np.ndarray:
    """Whether each row's class is that of its sample, or none is said: bool (rows,)."""
    if "class" not in rows.columns:
        return np.ones(len(rows), bool)
    names = class_names(dataset, naming or safe_naming(dataset))
    classes = [class_text(name) for name in rows["class"]]
    unknown = sorted({name for name in classes if name} - set(names))
    if unknown and len(unknown) == len({*classes} - {""}):
        raise UserError(f"{rows.path}: {first_names(unknown)} are no classes of the dataset, {first_names(names)}; "
                        f"say what they are: predictions_classes={', '.join(NAMINGS)}")  # fmt: skip
    labels = dataset.labels
    return np.array([name in ("", names[labels[at]]) for name, at in zip(classes, owner, strict=True)])


def _find_masks(folder: Path, samples: pd.DataFrame) -> list[Path | None]:
    """Mask of each sample, by its id or the id without its image's suffix; None where there is none."""
    paths = {path.relative_to(folder).with_suffix("").as_posix(): path
             for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES}  # fmt: skip
    names = map(names_of, samples["sample_id"], samples["image_id"])
    return [next((paths[name] for name in several if name in paths), None) for several in names]


def score_ready_boxes(
    source: GivenBoxes, dataset: Dataset, samples: pd.DataFrame, protocols: Mapping[str, Protocol]
) -> MethodScores:
    """Score somebody's boxes or masks under each protocol; of masks also the pixels, where the dataset has masks."""
    table, count = dataset.table, len(samples)
    boxed, masked = table["boxes"].notna().all(), bool(source.masks) and table["mask"].notna().any()
    if not boxed and not masked:
        raise UserError(f"{source.kind}: dataset {dataset.name} ({dataset.split}) has masks only: pass masks=FOLDER")
    best = {name: ScoredBoxes(np.zeros(count), np.tile([0.0, 0, -1, -1], (count, 1))) for name in protocols}
    draws = draws_of(table) if masked else ()
    pixels = {name: ResampledPxAP(protocol.pxap_bin, len(dataset.classes), *draws)
              for name, protocol in protocols.items() if masked}  # fmt: skip
    for index, size in enumerate(zip(samples["width"].tolist(), samples["height"].tolist(), strict=True)):
        sample_id = samples["sample_id"].iloc[index]
        try:
            mask = _fitting_mask(source.masks[index], sample_id, size) if source.masks else None
            for name, protocol in protocols.items() if boxed else ():
                boxes = source.boxes[index] if mask is None else _boxes_of_mask(mask, protocol, size)
                chosen = _best_box(boxes, table["boxes"].iloc[index], protocol, size)
                best[name].iou[index], best[name].boxes[index] = chosen
            if mask is not None and table["mask"].iloc[index] is not None:
                _count_pixels(pixels, mask, dataset, index, protocols)
        except UserError as error:
            raise UserError(f"sample {sample_id}, {source.kind} of {source.name}: {error}") from error
    numbers = pd.DataFrame({f"missing_{source.kind}": source.missing})
    return MethodScores(source.name, "", {}, pixels, numbers, best if boxed else {})


def _fitting_mask(path: Path | None, sample_id: str, size: Size) -> np.ndarray:
    mask = np.zeros(size[::-1], bool) if path is None else read_mask(path, sample_id)
    if not mask_fits(mask.shape[::-1], size):
        raise UserError(f"{path} has {mask.shape[1]} x {mask.shape[0]} pixels, the image {size[0]} x {size[1]}")
    return mask


def _boxes_of_mask(mask: np.ndarray, protocol: Protocol, size: Size) -> np.ndarray:
    """Boxes (P, 4) of a mask (H, W), inclusive, in pixels of an image of that size: of the component that counts.

    Of all 8-connected ones where any may count; none of an empty mask.
    """
    if not mask.any():
        return NO_BOXES
    height, width = mask.shape
    if protocol.component == "largest":
        names = ("connectivity", "area", "tie")
        rules = Protocol(thresholds=(0.0,), levels=None, **{name: getattr(protocol, name) for name in names})
        boxes = sweep_thresholds(mask, [0, 0, width - 1, height - 1], rules).to_inclusive().at(0, "largest")[0][None]
    else:
        boxes = boxes_of_mask(mask)
    if protocol.component == "union":
        boxes = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])[None]
    return to_image(boxes, (width, height), size)


def _best_box(boxes: np.ndarray, gt_boxes: np.ndarray, protocol: Protocol, size: Size) -> tuple[float, np.ndarray]:
    """IoU and the box that counts, of boxes (P, 4) that come best first: the first one, or of any the best."""
    gt_boxes = checked_boxes(gt_boxes, size)
    if not len(boxes):
        return 0.0, np.array([0.0, 0, -1, -1])
    boxes = boxes if protocol.component == "any" else boxes[:1]
    rules = _rules_of_ready_boxes(protocol)
    view = rules.evaluation_size(size)
    predicted, truth = truth_boxes(boxes, rules, size, view), truth_boxes(gt_boxes, protocol, size, view)
    ious = box_iou(predicted, truth, rules.iou_convention, bool(rules.iou_clamped))
    best = int(ious.max(axis=1).argmax())
    return float(ious[best].max()), boxes[best]


@lru_cache(maxsize=64)
def _rules_of_ready_boxes(protocol: Protocol) -> Protocol:
    """Rules by which a box that was given goes the way of the ground truth: without what concerns annotations alone.

    Papers whose evaluator is handed boxes (PSOL, CREAM, TokenCut) neither round nor clip these.
    """
    ready: dict[str, Any] = {"truth_rounding": "none", "truth_clipped": "none"} if protocol.ready_boxes else {}
    return replace(protocol, truths="best", truth_origin=0, truth_end="as_annotated", truth_integers="none", **ready)


def _count_pixels(
    pixels: Mapping[str, ResampledPxAP], mask: np.ndarray, dataset: Dataset, index: int,
    protocols: Mapping[str, Protocol],
) -> None:  # fmt: skip
    """Count a sample's pixels in its mask and outside, as those of a score map of ones and zeros."""
    sample = dataset[index]
    gt_mask, ignore = fitting_masks(sample, None)
    for name, counts in pixels.items():
        scores = resize_mask(mask, protocols[name].mask_size).astype(np.float64)
        histogram = np.array(mask_histograms(scores, gt_mask, ignore, protocols[name]))
        counts.add(np.array([index]), histogram[None], np.array([sample.label]))
