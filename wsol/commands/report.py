"""`wsol report`: the page and the figures of an old run, made again from its folder; boxes for other programs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from wsol.commands.sweep import collect, print_and_write
from wsol.commands.task import RECORD, Job
from wsol.config import build_dataset, build_methods, refuse_foreign, to_dict
from wsol.console import print_line
from wsol.datasets import Dataset
from wsol.errors import UserError, suggest
from wsol.heatmaps.store import HeatmapStore, add_baselines, open_heatmaps
from wsol.io import expand_path, own_folder, write_json, write_text
from wsol.report.faithfulness import write_faithfulness
from wsol.report.latex import table_options
from wsol.report.page import write_report
from wsol.report.pictures import draw_examples
from wsol.report.run import Run
from wsol.report.summary import latex_summary, summary_for_people
from wsol.tables import BOX, read_results

RECORDED = ("dataset", "heatmaps", "heatmaps_kind", "heatmaps_name", "methods", "seed")


def run(cfg: DictConfig, job: Job) -> Mapping[str, object]:
    """A run's folder → `report.html`, `summary.tex` and `figures/` in it; a sweep's → `sweep.html`, tables and figure.

    Pictures come from a dataset that is chosen now, else from the one that the run names, if it is wsol's own.
    """
    settings = to_dict(cfg)
    folder = Path(str(settings["run"])).expanduser()
    forms = [settings["export"]] if isinstance(settings["export"], str) else settings["export"] or []
    if unknown := [form for form in forms if form not in FORMS]:
        raise UserError(f"export={unknown[0]}: no such form{suggest(unknown[0], FORMS)}")
    if any(folder.glob(f"*/{RECORD}")) and not (folder / "summary.csv").is_file():
        print_and_write(collect(folder), folder, table_options(settings))
        return {}
    old_run, chosen = Run.open(folder), {key: settings[key] for key in ("dataset", "heatmaps") if settings.get(key)}
    dataset, heatmaps, why = None, None, "config.yaml doesn't say which dataset the run was made on"
    try:
        config = {key: old_run.config[key] for key in RECORDED if old_run.config.get(key)} | chosen
        refuse_foreign(config, chosen)
        if "dataset" in config:
            dataset = build_dataset(config["dataset"])
            heatmaps = _external_heatmaps(old_run, dataset, config, followed="heatmaps" in chosen)
    except Exception as error:  # images or heatmaps were moved, or are others now, or whatever a folder may say
        if chosen:
            raise
        why = str(error)
    if heatmaps is None and old_run.heatmaps is not None:
        heatmaps = HeatmapStore.open(old_run.heatmaps)
    page = write_report(folder, dataset, heatmaps, why)
    if chosen := settings["figures"]["examples"]:
        if dataset is None:
            raise UserError(f"figures.examples={chosen}: there are no images: {why}")
        draw_examples(read_results(folder), dataset, heatmaps, 0, folder / "figures", chosen)
    write_text(folder / "summary.tex", latex_summary(summary_for_people(old_run), table_options(settings)))
    write_faithfulness(old_run, folder, table_options(settings))
    if job.verbose:
        print_line(f"Page and figures: {page}, {folder / 'figures'}")
    for form in forms:
        export_boxes(old_run, form, folder / "export")
        if job.verbose:
            print_line(f"Boxes ({form}): {folder / 'export'}")
    return {}


def export_boxes(run: Run, form: str, folder: Path) -> None:
    """Write the ground truth, and the boxes of every method and protocol at the summary's τ, as JSON.

    A box is of its sample's class; its score is that class's probability, 0 where it is not among the best five, 1
    where nothing was predicted.
    """
    own_folder(folder)
    samples = run.samples.drop(columns=list(BOX), errors="ignore").assign(score=_scores(run.samples))
    true_boxes = [np.reshape(corners, (-1, 4)) for corners in samples.get("true_boxes", [()] * len(samples))]
    truth = samples.loc[samples.index.repeat([len(boxes) for boxes in true_boxes])].drop(columns="score")
    truth[list(BOX)] = np.concatenate(true_boxes)
    write_json(folder / f"{form}_ground_truth.json", FORMS[form](samples, truth))
    for method, protocol in run.summary[["method", "protocol"]].to_numpy().tolist() if run.boxed else ():
        boxes = samples.merge(run.per_image(method, protocol, ["sample_id", *BOX]), on="sample_id")
        boxes = boxes[(boxes["x1"] >= boxes["x0"]) & (boxes["y1"] >= boxes["y0"])]  # where there is one
        name = re.sub(r"[^\w.@+-]+", "_", f"{form}_{method}_{protocol}")
        write_json(folder / f"{name}.json", FORMS[form](samples, boxes))


def _scores(samples: pd.DataFrame) -> list[float]:
    """Probability of each sample's class."""
    best = samples.get("top5_probability", pd.Series([None] * len(samples)))
    return [
        1.0 if rank < 0 or shares is None or not len(shares) else float(shares[rank]) if rank < len(shares) else 0.0
        for rank, shares in zip(samples["rank"], best, strict=True)
    ]


def _coco(samples: pd.DataFrame, boxes: pd.DataFrame) -> Any:
    """Results as COCO's evaluation takes them; boxes without a score are a ground truth, and say what ids mean."""
    images = {name: number for number, name in enumerate(dict.fromkeys(samples["image_id"]), 1)}
    rows: list[dict[str, Any]] = []
    for number, box in enumerate(boxes.to_dict("records"), 1):
        width, height = box["x1"] - box["x0"] + 1, box["y1"] - box["y0"] + 1
        row = {"image_id": images[box["image_id"]], "category_id": int(box["label"]) + 1}
        more = {"score": box["score"]} if "score" in box else {"id": number, "area": width * height, "iscrowd": 0}
        rows.append(row | {"bbox": [box["x0"], box["y0"], width, height]} | more)
    if "score" in boxes:
        return rows
    names = samples.drop_duplicates("image_id")[["image_id", "width", "height"]].to_dict("records")
    classes = samples.drop_duplicates("label").sort_values("label")[["label", "class"]].to_dict("records")
    return {
        "images": [{"id": images[row["image_id"]], "file_name": row.pop("image_id"), **row} for row in names],
        "annotations": rows,
        "categories": [{"id": int(row["label"]) + 1, "name": str(row["class"])} for row in classes],
    }


def _fiftyone(samples: pd.DataFrame, boxes: pd.DataFrame) -> Any:
    """Labels of FiftyOne's image detection datasets: by image, boxes as shares of its sides."""
    labels: dict[str, list[dict[str, Any]]] = {}
    for box in boxes.to_dict("records"):
        corners = box["x0"], box["y0"], box["x1"] - box["x0"] + 1, box["y1"] - box["y0"] + 1
        sides = (box["width"], box["height"]) * 2
        detection = {"label": str(box["class"]), "bounding_box": [a / b for a, b in zip(corners, sides, strict=True)]}
        more = {"confidence": box["score"]} if "score" in box else {}
        labels.setdefault(str(Path(box["image_id"]).with_suffix("")), []).append(detection | more)
    return {"labels": labels}


FORMS = {"coco": _coco, "fiftyone": _fiftyone}


def _external_heatmaps(run: Run, dataset: Dataset, config: Mapping[str, Any], followed: bool) -> HeatmapStore | None:
    """Find the heatmaps that `wsol score` read from elsewhere; a run that made its own has them in its folder.

    A folder of files is searched only where the user names it now: the run's may be any, and the whole disk.
    """
    path = expand_path(config.get("heatmaps"))
    readable = path is None or (path / "heatmaps.json").is_file() or path.suffix == ".npz"
    if run.heatmaps is not None or not (readable or followed):
        return None
    names: dict[str, Any] = {"kind": config.get("heatmaps_kind"), "name": config.get("heatmaps_name")}
    store, _ = open_heatmaps(dataset, path, **names, on_error="skip", part=True, show_progress=False)
    if config.get("methods"):
        add_baselines(store, build_methods(config["methods"]), int(config.get("seed", 0)))
    return store if set(run.methods) <= set(store.methods) else None
