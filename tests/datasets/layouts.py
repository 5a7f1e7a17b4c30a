"""Small copies of every layout as it is handed out: `LAYOUTS[name](root)` writes one and reads it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from pycocotools.mask import encode

from wsol import datasets

TENCH, GOLDFISH, SNAKE = "n01440764", "n01443537", "n01751748"
ALBATROSS, AUKLET = "001.Black_footed_Albatross", "002.Crested_Auklet"
BIRDS = (f"{ALBATROSS}/Bird_0046_18.jpg", f"{ALBATROSS}/Bird_0009_34.jpg", f"{AUKLET}/Bird_0002_55.jpg")
PHOTOS = ("cat/a.jpg", "cat/deep/b.png", "dog/c.jpg")  # 40 x 30
BOXES = [("cat/a.jpg", 2, 3, 10, 20), ("cat/deep/b.png", 0, 0, 39, 29), ("dog/c.jpg", 1, 1, 5, 5),
         ("cat/a.jpg", 20, 3, 30, 8)]  # fmt: skip
STATED = {"box_corners": "inclusive", "box_units": "pixels"}
VAL = {
    "ILSVRC2012_val_00000001": [(SNAKE, 11, 8, 30, 19)],
    "ILSVRC2012_val_00000002": [(TENCH, 0, 0, 31, 23), (TENCH, 4, 4, 9, 9)],
    "ILSVRC2012_val_00000003": [(SNAKE, 1, 2, 3, 4)],
}
VOC_IMAGES = {  # name, xmin, ymin, xmax, ymax, difficult
    "000001": [("dog", 48, 40, 95, 71, 0), ("person", 8, 12, 92, 98, 0)],
    "000004": [("car", 13, 11, 84, 62, 0), ("car", 36, 30, 90, 89, 1), ("car", 23, 28, 34, 75, 0)],
    "000006": [("chair", 1, 1, 20, 30, 1)],
    "000008": [("sofa", 1, 1, 100, 100, 0), ("dog", 19, 16, 36, 49, 0), ("person", 10, 10, 20, 30, 1)],
}
PETS = [("Abyssinian_201", 1, 1, 1), ("american_bulldog_203", 2, 2, 1), ("american_bulldog_204", 2, 2, 1),
        ("Egyptian_Mau_14", 6, 1, 5)]  # fmt: skip


def write_text(path: Path, lines: Sequence[str] | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines if isinstance(lines, str) else "\n".join(lines) + "\n")
    return path


def write_image(path: Path, values: np.ndarray | tuple[int, int]) -> Path:
    """Write an array, or noise of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(values, tuple):
        values = np.random.default_rng(0).integers(0, 256, (*values[::-1], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def write_voc_xml(path: Path, objects: Sequence[tuple], size: tuple[int, int]) -> Path:
    """One annotation as the archives have it, with a body part in each person."""
    head = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>\n"
    parts = [
        f"<object>\n\t<name>{name}</name>\n\t<pose>Left</pose>\n\t<difficult>{''.join(map(str, hard))}</difficult>\n"
        f"\t<bndbox>\n\t\t<xmin>{x0}</xmin>\n\t\t<ymin>{y0}</ymin>\n\t\t<xmax>{x1}</xmax>\n\t\t<ymax>{y1}</ymax>\n"
        f"\t</bndbox>\n{head if name == 'person' else ''}</object>\n"
        for name, x0, y0, x1, y1, *hard in objects
    ]
    size_node = f"<size>\n\t<width>{size[0]}</width>\n\t<height>{size[1]}</height>\n</size>\n"
    return write_text(path, f"<annotation>\n{size_node}{''.join(parts)}</annotation>\n")


def write_cub(root: Path, segmentations: bool = True) -> Path:
    """Three birds of 32 × 24 in two classes; the third one's box ends two pixels late."""
    home = root / "CUB_200_2011"
    levels = np.zeros((24, 32), np.uint8)
    levels[:, :6] = (0, 51, 102, 153, 204, 255)
    for bird in BIRDS:
        write_image(home / "images" / bird, (32, 24))
        if segmentations:
            write_image((home / "segmentations" / bird).with_suffix(".png"), levels)
    write_text(home / "images.txt", [f"{number} {bird}" for number, bird in enumerate(BIRDS, start=1)])
    write_text(home / "bounding_boxes.txt", ["1 2.0 3.0 10.0 20.0", "2 0.0 0.0 30.0 24.0", "3 20.0 1.0 13.0 5.0"])
    write_text(home / "image_class_labels.txt", ["1 1", "2 1", "3 2"])
    write_text(home / "train_test_split.txt", ["1 0", "2 1", "3 0"])
    write_text(home / "classes.txt", [f"1 {ALBATROSS}", f"2 {AUKLET}"])
    return home


def write_kaggle(root: Path) -> Path:
    """ILSVRC as Kaggle's archive unpacks: `ILSVRC/Data`, `ILSVRC/Annotations` and the files beside `ILSVRC/`."""
    for wnid, numbers in {TENCH: (18, 36), SNAKE: (5,), GOLDFISH: (2,)}.items():
        for number in numbers:
            write_image(root / "ILSVRC/Data/CLS-LOC/train" / wnid / f"{wnid}_{number}.JPEG", (32, 24))
    for name, objects in VAL.items():
        write_image(root / "ILSVRC/Data/CLS-LOC/val" / f"{name}.JPEG", (32, 24))
        write_voc_xml(root / "ILSVRC/Annotations/CLS-LOC/val" / f"{name}.xml", objects, (32, 24))
    rows = [f"{name},{' '.join(' '.join(map(str, box)) for box in VAL[name])} " for name in reversed(VAL)]
    write_text(root / "LOC_val_solution.csv", ["ImageId,PredictionString", *rows])
    write_text(root / "LOC_train_solution.csv", ["ImageId,PredictionString", f"{TENCH}_36,{TENCH} 1 2 3 4 "])
    synsets = [f"{TENCH} tench, Tinca tinca", f"{GOLDFISH} goldfish, Carassius auratus", f"{SNAKE} sea snake"]
    write_text(root / "LOC_synset_mapping.txt", synsets)
    return root


def write_archives(root: Path) -> Path:
    """ILSVRC as image-net.org's archives unpack: `val/` flat, with the boxes' archive over it, and nothing else."""
    for name, objects in VAL.items():
        write_image(root / "val" / f"{name}.JPEG", (32, 24))
        write_voc_xml(root / "val" / f"{name}.xml", objects, (32, 24))
    return root


def write_devkit(root: Path) -> Path:
    """The devkit numbers classes in an order of its own: here the snake is 1, the goldfish 2, the tench 3."""
    folder = root / "ILSVRC2012_devkit_t12" / "data"
    write_text(folder / "ILSVRC2012_validation_ground_truth.txt", ["1", "3", "1"])
    write_text(folder / "map_clsloc.txt", [f"{SNAKE} 1 sea_snake", f"{GOLDFISH} 2 goldfish", f"{TENCH} 3 tench"])
    for name in VAL:
        write_image(root / "val" / f"{name}.JPEG", (32, 24))
    return folder


def write_split(
    root: Path, name: str, split: str, rows: Sequence[tuple[str, int]], truth: Sequence[str] = (), size: str = "32,24"
) -> Path:
    """The four files of wsolevaluation's splits: without a newline at the end, empty without ground truth."""
    folder = root / "metadata" / name / split
    folder.mkdir(parents=True)
    (folder / "image_ids.txt").write_text("\n".join(image for image, _ in rows))
    (folder / "class_labels.txt").write_text("\n".join(f"{image},{label}" for image, label in rows))
    (folder / "image_sizes.txt").write_text("\n".join(f"{image},{size}" for image, _ in rows if size))
    (folder / "localization.txt").write_text("\n".join(truth))
    return folder


def write_cubv2(root: Path) -> Path:
    """CUB's val: the first bird has two boxes, which do not follow each other."""
    for bird in BIRDS:
        write_image(root / "dataset" / "CUB" / bird, (32, 24))
    truth = [f"{BIRDS[0]},2,3,20,21", f"{BIRDS[1]},0,0,31,23", f"{BIRDS[0]},5,5,9,9", f"{BIRDS[2]},4,4,4,4"]
    folder = write_split(root, "CUB", "val", list(zip(BIRDS, (0, 0, 1), strict=True)), truth)
    write_text(folder / "image_ids_proxy.txt", [BIRDS[2], BIRDS[0]])
    return folder


def write_openimages(root: Path) -> Path:
    """Two images: one with two masks and pixels to ignore, twice as large as the image; one with a mask alone."""
    masks = {name: np.zeros((24, 32), bool) for name in ("0bt_c3/1cd9_a", "0bt_c3/1cd9_b", "0bt_c3/no", "0by6g/4903_a")}
    masks["0bt_c3/1cd9_a"][:4, :4] = masks["0bt_c3/1cd9_b"][20:, 20:] = True
    masks["0bt_c3/no"][:8] = masks["0by6g/4903_a"][5:9] = True
    folder = root / "dataset" / "OpenImages"
    for name, mask in masks.items():
        write_image(folder / "val" / f"{name}.png", mask)
    first, second = "val/0bt_c3/1cd9", "val/0by6g/4903"
    for name in (first, second):
        write_image(folder / f"{name}.jpg", (16, 12))
    truth = [f"{first}.jpg,{first}_a.png,val/0bt_c3/no.png"]
    truth += [f"{first}.jpg,{first}_b.png,", f"{second}.jpg,{second}_a.png,"]
    return write_split(root, "OpenImages", "val", [(f"{first}.jpg", 0), (f"{second}.jpg", 1)], truth, size="")


def write_voc(root: Path, split: str = "test", base: str = "VOCdevkit/VOC2007", images: Mapping = VOC_IMAGES) -> Path:
    home = root / base
    for image_id, objects in images.items():
        write_image(home / "JPEGImages" / f"{image_id}.jpg", (100, 100))
        write_voc_xml(home / "Annotations" / f"{image_id}.xml", objects, (100, 100))
    write_text(home / "ImageSets/Main" / f"{split}.txt", list(images))
    return home


def crowd() -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[5:20, 30:60] = True
    mask[8:10, 40:45] = False
    return mask


def runs_of(mask: np.ndarray) -> list[int]:
    """Lengths of runs down the columns, background first."""
    flat = np.concatenate([[0], mask.T.reshape(-1).astype(int), [2]])
    return np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat))])).tolist()


def coco_content() -> dict[str, Any]:
    """Three images; polygons, runs and packed runs; a crowd; ids of categories with gaps, as the original has them."""

    def thing(image: int, category: int, bbox: list[float], region: Any, iscrowd: int = 0) -> dict[str, Any]:
        return {"image_id": image, "category_id": category, "bbox": bbox, "iscrowd": iscrowd, "segmentation": region}

    square = [[10.0, 5.0, 20.0, 5.0, 20.0, 15.0, 10.0, 15.0]]
    two = [[30.25, 10.0, 45.25, 10.0, 30.25, 25.0], [50.0, 30.0, 52.0, 30.0, 52.0, 32.0, 50.0, 32.0]]
    packed = encode(np.asfortranarray(np.eye(30, 20, dtype=np.uint8)))
    packed["counts"] = packed["counts"].decode()
    images = {139: (60, 40), 285: (20, 30), 632: (10, 10)}
    return {
        "images": [
            {"id": key, "file_name": f"{key:012d}.jpg", "width": size[0], "height": size[1]}
            for key, size in images.items()
        ],
        "annotations": [
            thing(139, 64, [10.0, 5.0, 10.0, 10.0], square),
            thing(285, 1, [0, 0, 20, 20], packed),
            thing(139, 1, [30.25, 10.0, 21.75, 22.0], two),
            thing(139, 1, [30, 5, 30, 15], {"size": [40, 60], "counts": runs_of(crowd())}, 1),
            thing(285, 64, [0, 0, 20, 30], {"size": [30, 20], "counts": [0, 600]}, 1),
        ],
        "categories": [{"id": 64, "name": "potted plant"}, {"id": 1, "name": "person"}],
    }


def write_coco(root: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    """The standard layout; returns its JSON file."""
    for entry in coco_content()["images"]:
        write_image(root / "val2017" / entry["file_name"], (entry["width"], entry["height"]))
    content = coco_content()
    change(content)
    return write_text(root / "annotations" / "instances_val2017.json", json.dumps(content))


def trimap() -> np.ndarray:
    """A body with a border around it, a tail that is border only, and a second piece of the pet."""
    values = np.full((50, 60), 2, np.uint8)
    values[10:40, 10:35] = 3
    values[12:38, 12:33] = 1
    values[20:22, 35:45] = 3
    values[42:44, 12:15] = 1
    return values


def write_pets(root: Path, split: str = "test") -> Path:
    home = root / "oxford-iiit-pet"
    for name, *_ in PETS:
        write_image(home / f"images/{name}.jpg", (60, 50))
        write_image(home / f"annotations/trimaps/{name}.png", trimap())
    write_text(home / f"annotations/{split}.txt", [" ".join(map(str, row)) for row in PETS])
    return home


def write_photos(root: Path) -> Path:
    for name in PHOTOS:
        write_image(root / name, (40, 30))
    write_text(root / "cat" / "notes.txt", "not a picture")
    return root


def write_boxes(path: Path, rows: Sequence[tuple] = BOXES, columns: str = "image,x0,y0,x1,y1") -> Path:
    table = pd.DataFrame(rows, columns=columns.split(","))
    table.to_parquet(path, index=False) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return path


def photo_mask() -> np.ndarray:
    values = np.zeros((30, 40), np.uint8)
    values[5:10, 6:12], values[20:25, 30:38] = 255, 7
    return values


def write_masks(folder: Path, suffix: str = ".png") -> Path:
    for name in PHOTOS:
        write_image((folder / name).with_suffix(suffix), photo_mask())
    return folder


def write_cifar(root: Path) -> np.ndarray:
    """Two pictures in each batch of `cifar-10-batches-py`; returns them all: (6, 2, 32, 32, 3)."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    pictures = np.random.default_rng(0).integers(0, 256, (6, 2, 32, 32, 3), dtype=np.uint8)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for label, (name, pair) in enumerate(zip(names, pictures, strict=True)):
        rows = pair.transpose(0, 3, 1, 2).reshape(2, 3072)  # red plane, green plane, blue plane
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": [label, 9]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"kind {i}" for i in range(10)]}))
    return pictures


def write_stl(root: Path) -> dict[str, np.ndarray]:
    """Three pictures each in `stl10_binary`; returns them by split: (3, 96, 96, 3)."""
    folder, random = root / "stl10_binary", np.random.default_rng(0)
    folder.mkdir(parents=True)
    pictures = {}
    for split in ("train", "test", "unlabeled"):
        pictures[split] = random.integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
        pictures[split].transpose(0, 3, 2, 1).tofile(folder / f"{split}_X.bin")  # column by column
    np.array([1, 10, 4], np.uint8).tofile(folder / "train_y.bin")
    np.array([2, 2, 10], np.uint8).tofile(folder / "test_y.bin")
    write_text(folder / "class_names.txt", [f"kind {i}" for i in range(10)])
    return pictures


def _folder(root: Path, rows: Sequence[tuple] = BOXES, suffix: str = ".csv", **options: Any) -> Any:
    boxes = write_boxes(root.with_name(f"boxes{suffix}"), rows)
    return datasets.AnnotatedFolder(write_photos(root), boxes_file=boxes, **STATED | options)


RELATIVE = [(name, 0.1, 0.2, 0.5, 0.5) for name in PHOTOS]

# What writes a layout below a folder, and what reads it from there.
LAYOUTS: dict[str, Callable[[Path], Any]] = {
    "CUB": lambda root: datasets.CUB(write_cub(root)),
    "CUB train, no masks": lambda root: datasets.CUB(write_cub(root, segmentations=False).parent, "train"),
    "ILSVRC Kaggle": lambda root: datasets.ILSVRC(write_kaggle(root)),
    "ILSVRC train": lambda root: datasets.ILSVRC(write_kaggle(root), "train"),
    "ILSVRC train boxes": lambda root: datasets.ILSVRC(
        write_kaggle(root), "train", annotations=root / "LOC_train_solution.csv"
    ),
    "ILSVRC archives": lambda root: datasets.ILSVRC(write_archives(root)),
    "ILSVRC devkit": lambda root: datasets.ILSVRC(write_devkit(root).parents[1]),
    "WSOLEvaluation boxes": lambda root: datasets.WSOLEvaluation(write_cubv2(root).parents[2], "CUB", "val"),
    "WSOLEvaluation proxy": lambda root: datasets.WSOLEvaluation(
        write_cubv2(root).parents[2], "CUB", "val", proxy=True
    ),
    "WSOLEvaluation draw": lambda root: datasets.WSOLEvaluation(
        write_cubv2(root).parents[2], "CUB", "val", num_val_sample_per_class=1, seed=3
    ),
    "WSOLEvaluation masks": lambda root: datasets.WSOLEvaluation(
        write_openimages(root).parents[2], "OpenImages", "val"
    ),
    "VOC": lambda root: datasets.VOC(write_voc(root).parents[1]),
    "VOC 2011, some classes": lambda root: datasets.VOC(
        write_voc(root, "val", "TrainVal/VOCdevkit/VOC2011").parents[2], "val", 2011, classes=["sofa", "dog"]
    ),
    "COCO": lambda root: datasets.COCO(write_coco(root).parents[1]),
    "COCO boxes": lambda root: datasets.COCO(write_coco(root).parents[1], masks=False, classes=["potted plant"]),
    "OxfordPet": lambda root: datasets.OxfordPet(write_pets(root).parent),
    "AnnotatedFolder csv": lambda root: _folder(root),
    "AnnotatedFolder parquet": lambda root: _folder(root, suffix=".parquet"),
    "AnnotatedFolder shares": lambda root: _folder(root, RELATIVE, box_corners="exclusive", box_units="relative"),
    "AnnotatedFolder masks": lambda root: datasets.AnnotatedFolder(
        write_photos(root), masks=write_masks(root.with_name("masks")), mask_ignore=7
    ),
    "ImageFolder": lambda root: datasets.ImageFolder(write_photos(root)),
    "CIFAR10": lambda root: datasets.CIFAR10(root) if write_cifar(root).any() else None,
    "STL10": lambda root: datasets.STL10(root) if write_stl(root) else None,
}
