"""Anybody's answers, read from files: where the true class stands among guesses; boxes or masks in place of heatmaps.

A box that somebody gave is scored as a box, never painted into a map: it goes the way of the ground truth (crop, scale,
rounding, clipping), then the protocol's IoU is taken. No threshold has a say in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsol.datasets.annotations import CORNERS, Rows, read_table
from wsol.datasets.classes import rank_of_true, top_classes
from wsol.datasets.folder import SUFFIXES, BoxRules
from wsol.datasets.images import mask_fits, read_mask
from wsol.datasets.sample import Dataset, boxes_of_mask
from wsol.errors import UserError, closest, composed_otherwise, first_names
from wsol.heatmaps.store import HeatmapStore, names_of, samples_table
from wsol.io import check_declared, read_environment, reading
from wsol.localization import Protocol, box_iou, checked_boxes, sweep_thresholds, truth_boxes
from wsol.localization.boxes import to_image
from wsol.metrics.localization import ScoredBoxes
from wsol.metrics.pixels import ResampledPxAP, mask_histograms, resize_mask
from wsol.metrics.scoring import MethodScores, fitting_masks
from wsol.metrics.statistics import draws_of

logger = logging.getLogger("wsol")

LARGEST = 1 << 32  # bytes that a file of predictions unpacks to
NAMINGS = ("id", "name", "position")
RUN_COLUMNS = {"image_id", "class", "rank", "top5", "top5_probability"}
FORMATS = (
    "pass a .csv or .parquet table with a column sample_id and either top1, top2, … (best first) or one column of "
    "logits for each class, or an .npz with sample_id (N,) and either top5 (N, k) or logits (N, C) and classes (C,)"
)


def read_samples(dataset: Dataset, store: HeatmapStore, part: bool = False) -> pd.DataFrame:
    """Samples of a dataset with the predictions of the run that made the heatmaps; without a run there are none yet.

    `part` says that the dataset may be a part of what the run had; otherwise both must have the same samples, and in
    any case the same classes.
    """
    if store.folder is None:
        return samples_table(dataset, store)
    ids, stored = list(dataset.table["sample_id"]), set(store.sample_ids)
    extra = set() if part else stored - set(ids)
    for what, names in (("no heatmap for", set(ids) - stored), ("heatmaps of unknown samples:", extra)):
        if names:
            raise UserError(
                f"{store.folder}: {what} {first_names(sorted(names))} ({len(names)} of {len(ids)} samples); "
                f"is this the dataset, split and limit that the heatmaps were made on "
                f"({store.source.get('dataset')}, {store.source.get('split')})?"
            )
    path = store.folder.parent / "samples.parquet"
    if not path.is_file():
        logger.warning("no %s: without predictions the Top-k columns stay empty", path)
        return samples_table(dataset, store)
    with reading(path):
        samples = pd.read_parquet(check_declared(path)).set_index("sample_id").loc[ids].reset_index()
    _require_same_classes(path, ids, samples["class"], [dataset.classes[label] for label in dataset.labels])
    return samples.assign(label=dataset.labels)


def _require_same_classes(path: Path, ids: Iterable[str], theirs: Iterable[str], ours: Iterable[str]) -> None:
    for sample_id, their, our in zip(ids, theirs, ours, strict=True):
        if their != our:
            raise UserError(
                f"sample {sample_id} is of class {their!r} in {path} and {our!r} in the dataset: "
                "pass the same dataset.classes that the run had"
            )


def read_predictions(
    path: Path, dataset: Dataset, samples: pd.DataFrame, naming: str | None = None, on_error: str = "stop"
) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """Fill in the ranks of true classes from a file that some classifier's predictions were written to.

    Parameters
    ----------
    path : Path
        One of

        - a CSV or Parquet table with a column `sample_id` and columns `top1`, `top2`, … up to `top5` or more: classes,
          best first; other columns are not read;
        - the same with one column for each class of the dataset instead, holding its logit (or probability), and no
          other column;
        - an .npz file with `sample_id` (N,) and `top5` (N, k), best first, or with `logits` (N, C) and `classes` (C,),
          what the columns stand for (by default their positions);
        - `samples.parquet` of a run on the same samples.
    dataset : Dataset
    samples : DataFrame
        From `samples_table`.
    naming : "id", "name" or "position", optional
        What the file calls classes by: the dataset's `ids`, its `classes`, or their index counted from 0. By default
        ids; where those are numbers that differ from positions, it has to be said.
    on_error : "stop" or "skip"
        Whether a sample without a prediction raises, or is said and counts as wrong.

    Returns
    -------
    samples : DataFrame
        With rank (where the true class is not among the k that are listed: k), top5 (positions of classes, -1 for
        one that the dataset lacks) and, from logits, top5_probability.
    about : dict
        For the run's source: predictions, class_map, predict_over, competing (how many classes), and listed (how many
        are known per sample) where not all are.
    notes : list of str
        What counts as wrong for want of a prediction, or of the class that was predicted.
    """
    if naming not in (None, *NAMINGS):
        raise UserError(f"predictions_classes={naming}: pass {', '.join(NAMINGS)}")
    try:
        return _fill(path, dataset, samples, naming, on_error)
    except UserError as error:
        raise UserError(f"predictions={path}: {error}") from error


def _fill(
    path: Path, dataset: Dataset, samples: pd.DataFrame, naming: str | None, on_error: str
) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    table = _read_table(path)
    has_row, notes = _match_samples(path, table.index, samples, on_error)
    rows, predicted = table.loc[samples["sample_id"][has_row]], samples[has_row]
    if set(rows.columns) >= RUN_COLUMNS:
        columns, source = _from_run(path, rows, predicted, dataset)
    else:
        naming = naming or _safe_naming(dataset)
        names = _class_names(dataset, naming)
        source = {"class_map": naming, "predict_over": "all", "competing": len(names)}
        best = rows.filter(regex=r"^top\d+$")
        if best.shape[1]:
            columns, unknown = _from_list(best, predicted, naming, names)
            source |= {"competing": len(names) + len(unknown), "listed": best.shape[1]}
            lacking = f"{len(unknown)} classes that the dataset lacks ({first_names(unknown)})"
            notes += [f"predictions={path} names {lacking}: never right"] if unknown else []
        else:
            columns = _from_logits(rows, predicted, naming, names)
    filled = pd.concat([predicted.assign(**columns), samples[~has_row]]).loc[samples.index]
    return filled, {"predictions": str(path)} | source, notes


def _read_table(path: Path) -> pd.DataFrame:
    """What a file says of each sample id; ids and names of columns are text, arrays are spread out to columns."""
    readers: dict[str, Callable[[Path], pd.DataFrame]]
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz}
    try:
        table = readers[path.suffix.lower()](path).rename(columns=str).astype({"sample_id": str})
        return table.set_index("sample_id")
    except Exception as error:  # of a damaged file readers make whatever it happens to be
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"can't be read: {reason}; {FORMATS}") from error


def _read_csv(path: Path) -> pd.DataFrame:
    """Read everything as text, so that an id such as 001 stays what it is."""
    table = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    columns = table.iloc[0]
    if columns.duplicated().any():
        raise ValueError(f"column {columns[columns.duplicated()].iloc[0]!r} comes twice")
    return table[1:].set_axis(columns, axis=1).reset_index(drop=True)


def _read_parquet(path: Path) -> pd.DataFrame:
    return pd.read_parquet(check_declared(path))


def _read_npz(path: Path) -> pd.DataFrame:
    with np.load(path, allow_pickle=False) as file:
        if (size := sum(member.file_size for member in file.zip.infolist())) > LARGEST:
            raise ValueError(f"it declares to unpack to {size:,} bytes, more than {LARGEST:,}")
        arrays = {name: file[name] for name in ("sample_id", "top5", "logits", "classes") if name in file}
    values = arrays["top5"] if "top5" in arrays else arrays["logits"]
    columns = [f"top{place + 1}" for place in range(values.shape[1])]
    if "top5" not in arrays:
        columns = arrays.get("classes", np.arange(values.shape[1])).tolist()
    return pd.DataFrame(values, pd.Index(arrays["sample_id"], name="sample_id"), columns).reset_index()


def _match_samples(path: Path, ids: pd.Index, samples: pd.DataFrame, on_error: str) -> tuple[np.ndarray, list[str]]:
    """Which samples have a row: bool (N,); and a note of those that have none."""
    if ids.has_duplicates:
        raise UserError(f"{first_names(ids[ids.duplicated()])} come more than once; keep one row for each sample")
    has_row = samples["sample_id"].isin(ids).to_numpy()
    missing = samples["sample_id"][~has_row]
    message = f"no row for {first_names(missing)} ({len(missing)} of {len(samples)} samples)"
    if len(missing) and (on_error == "stop" or not has_row.any()):
        raise UserError(
            f"{message}; its column sample_id holds {first_names(ids)}: add rows by the dataset's sample ids, or pass "
            f"on_error=skip, which counts some that are missing as wrong{composed_otherwise(missing.iloc[0], ids)}"
        )
    return has_row, [f"predictions={path}: {message}; they count as wrong"] if len(missing) else []


def _safe_naming(dataset: Dataset) -> str:
    """Take ids, unless they could be mistaken for positions."""
    for position, name in enumerate(dataset.ids):
        if name.isdecimal() and int(name) != position:
            raise UserError(
                f"the ids of {dataset.name}'s classes are numbers that differ from positions (id {name} stands at "
                f"{position}), so say which the file has: predictions_classes=id, name or position"
            )
    return "id"


def _class_names(dataset: Dataset, naming: str) -> list[str]:
    """What a file calls each class."""
    positions = [str(position) for position in range(len(dataset.classes))]
    return {"id": list(dataset.ids), "name": list(dataset.classes), "position": positions}[naming]


def _from_run(
    path: Path, rows: pd.DataFrame, samples: pd.DataFrame, dataset: Dataset
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take what a run wrote down; its top5 are places among its own classifier's logits."""
    _require_same_classes(path, rows.index, rows["class"], samples["class"])
    about = {"class_map": "a run's own", "predict_over": "as in that run", "competing": len(dataset.classes)}
    source = read_environment(path.parent).get("source", {})
    about |= {key: source[key] for key in about if key in source}
    return {column: rows[column].to_numpy() for column in ("rank", "top5", "top5_probability")}, about


def _from_list(
    rows: pd.DataFrame, samples: pd.DataFrame, naming: str, names: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Rank the true classes among the best few that are listed; and which of these the dataset lacks."""
    count = rows.shape[1]
    columns = [f"top{place + 1}" for place in range(count)]
    if not set(columns) <= set(rows.columns):
        raise UserError(f"its columns are {', '.join(rows.columns)}; name them {', '.join(columns)}")
    listed = rows[columns].map(_class_text).to_numpy(object)  # (N, k)
    for sample_id, classes in zip(rows.index, listed, strict=True):
        if len(set(classes)) < count or "" in classes:
            raise UserError(f"sample {sample_id} has {', '.join(map(repr, classes))}: list {count} different classes")
    positions = {name: position for position, name in enumerate(names)}
    unknown = list(dict.fromkeys(name for name in listed.flat if name not in positions))
    best = np.array([[positions.get(name, -1) for name in classes] for classes in listed], np.int32)  # (N, k)
    if unknown and (naming == "position" or not (best >= 0).any()):
        others = ", ".join(other for other in NAMINGS if other != naming)
        raise UserError(
            f"{first_names(unknown)} are no {naming}s of the dataset's classes, which are {first_names(names)}; if "
            f"the file names classes in another way, say it: predictions_classes={others}"
        )
    hits = best == samples["label"].to_numpy()[:, None]  # (N, k)
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1), count)
    return {"rank": ranks, "top5": [row[:5] for row in best]}, unknown


def _class_text(value: object) -> str:
    """Write a class as it is compared: what a table made floating is whole again, and nothing is empty."""
    if pd.isna(value):  # type: ignore[call-overload]
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _from_logits(rows: pd.DataFrame, samples: pd.DataFrame, naming: str, names: list[str]) -> dict[str, Any]:
    """Rank the true classes among the logits of all."""
    twice = pd.Index(names)[pd.Index(names).duplicated()]
    if len(twice):
        raise UserError(f"two classes of the dataset are called {twice[0]!r}: use predictions_classes=id or position")
    if sorted(rows.columns) != sorted(names):
        missing, surplus = sorted(set(names) - set(rows.columns)), sorted(set(rows.columns) - set(names))
        raise UserError(
            f"its columns must be sample_id and the {len(names)} classes of the dataset by {naming}; missing are "
            f"{first_names(missing) or 'none'}, surplus are {first_names(surplus) or 'none'}. Other names are said "
            f"with predictions_classes={', '.join(NAMINGS)}; a classifier with other classes gives top1, top2, …"
        )
    logits = rows[names].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)  # (N, C)
    bad = rows.index[~np.isfinite(logits).all(axis=1)]
    if len(bad):
        raise UserError(f"logits are NaN, infinite or no numbers for {first_names(bad)} ({len(bad)} samples)")
    best, shares = top_classes(logits)
    ranks = rank_of_true(logits, samples["label"].to_numpy())
    return {"rank": ranks, "top5": list(best.astype(np.int32)), "top5_probability": list(shares.astype(np.float32))}


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


def read_given(
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

    Parameters
    ----------
    dataset : Dataset
    samples : DataFrame
        From `samples_table`: it has the images' sizes.
    boxes : path, optional
        A `.csv` or `.parquet` table with `sample_id, x0, y0, x1, y1`, one or several rows for each sample; with
        `score` the highest comes first, else the first row; with `class` only rows of the sample's own class, or of
        none, count.
    masks : path, optional
        A folder of `<sample id>.png` or the like, the image's suffix or not; what is not 0 is the object.
    rules : mapping
        `corners` and `units` of the table, as of a dataset's `boxes_file`.
    taken : iterable of str
        Names that methods have already; these here are called as their file or folder.
    naming : "id", "name" or "position", optional
        What the table calls classes by; by default the dataset's ids.
    on_error, part : str, bool
        "skip" counts samples without a box as misses; of a part of a dataset, rows of other samples are passed over.
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
    first = f"{several} samples have several boxes and no scores: the first counts, but where any may"
    notes = [first] if several and "score" not in rows.columns else []
    return GivenBoxes(path.stem, "boxes", np.split(pixels, counts.cumsum()[:-1])), notes


def _of_own_class(rows: Rows, owner: np.ndarray, dataset: Dataset, naming: str | None) -> np.ndarray:
    """Whether each row's class is that of its sample, or none is said: bool (rows,)."""
    if "class" not in rows.columns:
        return np.ones(len(rows), bool)
    names = _class_names(dataset, naming or _safe_naming(dataset))
    classes = [_class_text(name) for name in rows["class"]]
    unknown = sorted({name for name in classes if name} - set(names))
    if unknown and len(unknown) == len({*classes} - {""}):
        raise UserError(f"{rows.path}: {first_names(unknown)} are no classes of the dataset, {first_names(names)}; "
                        f"say what they are: predictions_classes={', '.join(NAMINGS)}")  # fmt: skip
    labels = dataset.labels
    return np.array([name in ("", names[labels[at]]) for name, at in zip(classes, owner, strict=True)])


def _find_masks(folder: Path, samples: pd.DataFrame) -> list[Path | None]:
    """Mask of each sample, by its id or the id without its image's suffix; None where there is none."""
    if not folder.is_dir():
        raise UserError(f"masks={folder}: no such folder; pass one with a mask for each sample: <sample id>.png")
    paths = {path.relative_to(folder).with_suffix("").as_posix(): path
             for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES}  # fmt: skip
    names = map(names_of, samples["sample_id"], samples["image_id"])
    return [next((paths[name] for name in several if name in paths), None) for several in names]


def score_given(
    given: GivenBoxes, dataset: Dataset, samples: pd.DataFrame, protocols: Mapping[str, Protocol]
) -> MethodScores:
    """Score somebody's boxes or masks under each protocol; of masks also the pixels, where the dataset has masks."""
    table, count = dataset.table, len(samples)
    boxed, masked = table["boxes"].notna().all(), bool(given.masks) and table["mask"].notna().any()
    if not boxed and not masked:
        raise UserError(f"{given.kind}: dataset {dataset.name} ({dataset.split}) has masks only: pass masks=FOLDER")
    best = {name: ScoredBoxes(np.zeros(count), np.tile([0.0, 0, -1, -1], (count, 1))) for name in protocols}
    draws = draws_of(table) if masked else ()
    pixels = {name: ResampledPxAP(protocol.pxap_bin, len(dataset.classes), *draws)
              for name, protocol in protocols.items() if masked}  # fmt: skip
    for index, size in enumerate(zip(samples["width"].tolist(), samples["height"].tolist(), strict=True)):
        sample_id = samples["sample_id"].iloc[index]
        try:
            mask = _fitting_mask(given.masks[index], sample_id, size) if given.masks else None
            for name, protocol in protocols.items() if boxed else ():
                boxes = given.boxes[index] if mask is None else _boxes_of_mask(mask, protocol, size)
                chosen = _best_box(boxes, table["boxes"].iloc[index], protocol, size)
                best[name].iou[index], best[name].boxes[index] = chosen
            if mask is not None and table["mask"].iloc[index] is not None:
                _count_pixels(pixels, mask, dataset, index, protocols)
        except UserError as error:
            raise UserError(f"sample {sample_id}, {given.kind} of {given.name}: {error}") from error
    numbers = pd.DataFrame({f"missing_{given.kind}": given.missing})
    return MethodScores(given.name, "", {}, pixels, numbers, best if boxed else {})


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
    rules = _rules_of_given(protocol)
    view = rules.evaluation_size(size)
    predicted, truth = truth_boxes(boxes, rules, size, view), truth_boxes(gt_boxes, protocol, size, view)
    ious = box_iou(predicted, truth, rules.iou_convention, bool(rules.iou_clamped))
    best = int(ious.max(axis=1).argmax())
    return float(ious[best].max()), boxes[best]


@lru_cache(maxsize=64)
def _rules_of_given(protocol: Protocol) -> Protocol:
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
