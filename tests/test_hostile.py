"""Input that is damaged, absurd or meant to do harm: refused by name, and what was already written stays whole."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import wsol
from tests.conftest import small
from wsol import cli
from wsol.commands.check import print_check
from wsol.datasets import CIFAR10, COCO, VOC, ImageFolder, TinyImageNet
from wsol.datasets.check import check_dataset
from wsol.datasets.images import read_image
from wsol.engine import score
from wsol.errors import UserError
from wsol.heatmaps.method import make_method
from wsol.models.checkpoint import read_checkpoint
from wsol.models.zoo import torchvision_classifier
from wsol.report.run import Run
from wsol.report.summary import print_summary
from wsol.shards import is_whole
from wsol.training.train import TrainingState

QUIET = {"pictures": 0, "report": False, "progress": False, "workers": 0}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def refused(folder: Path, *messages: str) -> Iterator[None]:
    """The block raises a `UserError` with these texts, and no file below the folder is changed, added or removed."""
    before = contents(folder)
    assert before
    with pytest.raises(UserError) as error:
        yield
    assert all(message in str(error.value) for message in messages), str(error.value)
    assert contents(folder) == before


class Boom:
    """Unpickled, it makes a folder named boom."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("boom",)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, in which nothing may explode."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert not (folder / "boom").exists()


@pytest.fixture(scope="module")
def made(shapes: wsol.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on `shapes`, whole."""
    folder = tmp_path_factory.mktemp("made")
    wsol.evaluate(shapes, small(shapes), ["cam"], ["choe2020"], run_dir=folder, **QUIET)
    return folder


@pytest.fixture
def run(made: Path, place: Path) -> Path:
    """A copy of that run, to do bad things to."""
    return Path(shutil.copytree(made, place / "run"))


# ---------------------------------------------------------------- names that lead out of the dataset's folder


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def voc(root: Path, name: str) -> wsol.Dataset:
    write(root, {"VOCdevkit/VOC2007/ImageSets/Main/test.txt": f"{name}\n"})
    (root / "VOCdevkit/VOC2007/JPEGImages").mkdir()
    return VOC(root)


def coco(root: Path, name: str) -> wsol.Dataset:
    about = {"id": 1, "file_name": name, "width": 9, "height": 9}
    content = {"images": [about], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    return COCO(write(root, {"annotations/instances_val.json": json.dumps(content), "val/x": ""}), "val")


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "", ".", "..", ".hidden"])
def test_methods_name_files_of_the_run_and_nothing_else(run: Path, shapes: wsol.Dataset, name: str) -> None:
    methods = {name: make_method("cam")}
    with refused(run.parent, repr(name)):
        wsol.evaluate(shapes, small(shapes), methods, ["choe2020"], run_dir=run, **QUIET)


def test_ids_never_become_names_of_files_that_are_written(place: Path) -> None:
    class Hostile(wsol.Dataset):
        name, split, classes = "../../hostile", "/test", ("../a", "/b")

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> wsol.Sample:
            image = np.full((32, 32, 3), 40 * index, np.uint8)
            image[8:20, 8:20] = 200
            return wsol.Sample(sample_id="../../" * index + "/etc/x", label=index, image=image, boxes=[[8, 8, 19, 19]])

    data, deep = Hostile(), place / "a" / "b" / "c"
    wsol.evaluate(data, small(data), ["cam"], ["choe2020"], run_dir=deep, **QUIET | {"pictures": 2})
    assert {path.name for path in place.iterdir()} == {"a"}
    assert {path.name for path in (place / "a" / "b").iterdir()} == {"c"}
    assert sorted(path.name for path in (deep / "figures").glob("example_*")) == ["example_00.png", "example_01.png"]
    score(data, deep / "heatmaps", ["exact"], run_dir=deep / "again", **QUIET)
    assert pd.read_parquet(deep / "again" / "samples.parquet")["sample_id"].tolist() == ["/etc/x", "../..//etc/x"]


# ---------------------------------------------------------------- pictures


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(path: Path) -> None:
    """A PNG of 100 bytes that claims 60,000 x 60,000 pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b""))


def text_bomb(path: Path) -> None:
    """A PNG whose comment unpacks to ten megabytes."""
    packed = zlib.compress(bytes(10_000_000))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"zTXt", b"a\0\0" + packed) + chunk(b"IEND", b""))


def truncated(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-200])


def postscript(path: Path) -> None:
    """Pillow would run Ghostscript on it."""
    Image.new("RGB", (8, 8)).save(path, "EPS")


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Boom()))


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


PICTURES: dict[str, Callable[[Path], object]] = {
    "decompression bomb": bomb, "decompression bomb in a comment": text_bomb,
    "0 bytes": lambda path: path.write_bytes(b""), "text": lambda path: path.write_text("<html>404</html>"),
    "truncated": truncated, "PostScript": postscript, "pickle": pickled, "link to itself": loop,
    "folder": folder_instead, "gone": Path.unlink,
}  # fmt: skip


@pytest.mark.parametrize("case", PICTURES)
def test_bad_picture_stops_the_run_which_is_not_whole(run: Path, tiny_imagenet: Path, case: str) -> None:
    path = tiny_imagenet / "val" / "images" / "val_3.JPEG"
    PICTURES[case](path)
    data = TinyImageNet(tiny_imagenet)
    kept = {name: content for name, content in contents(run).items() if name.startswith(("heatmaps/", "samples."))}
    with pytest.raises(UserError) as error:
        wsol.evaluate(data, small(data), ["cam"], ["choe2020"], run_dir=run, **QUIET)
    assert str(path) in str(error.value) and "val/images/val_3.JPEG" in str(error.value)
    assert kept and not is_whole(run)
    assert "report.html" not in contents(run)
    assert {name: contents(run)[name] for name in kept} == kept


def test_name_of_a_picture_that_no_disk_takes() -> None:
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(UserError, match="sample 'a'"):
            read_image(Path(name), "a")


# ---------------------------------------------------------------- weights


def save_pickle(path: Path) -> None:
    torch.save({"state_dict": Boom()}, path)


def tensors(header: dict[str, object], size: int = 16) -> Callable[[Path], None]:
    """A safetensors file with this header."""

    def save(path: Path) -> None:
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))

    return save


def claims(length: int) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(struct.pack("<Q", length) + b"{" + bytes(50))


WEIGHTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "pickle by torch": ("a.pt", save_pickle),
    "plain pickle": ("a.pt", pickled),
    "whole network": ("a.pth", lambda path: torch.save(torch.nn.Linear(2, 2), path)),
    "pickle named safetensors": ("a.safetensors", pickled),
    "torch's file named safetensors": ("a.safetensors", save_pickle),
    "header too long": ("a.safetensors", claims(2**63)),
    "header longer than the file": ("a.safetensors", claims(10**6)),
    "header too long, other name": ("a.bin", claims(2**63)),
    "tensor beyond the end": (
        "a.safetensors",
        tensors({"w": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}),
    ),
    "tensors that overlap": (
        "a.safetensors",
        tensors({name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for name in "ab"}),
    ),
    "metadata that are no text": (
        "a.safetensors",
        tensors({"__metadata__": {"classes": [1, 2]}, "w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
    ),
    "0 bytes": ("a.pt", lambda path: path.write_bytes(b"")),
    "text": ("a.pt", lambda path: path.write_text("weights")),
    "text named safetensors": ("a.safetensors", lambda path: path.write_text("hello, these are no weights")),
    "one tensor": ("a.pt", lambda path: torch.save(torch.zeros(3), path)),
    "no tensor": ("a.pt", lambda path: torch.save({"epoch": 3}, path)),
    "half a file": (
        "a.pt",
        lambda path: (torch.save(torch.zeros(999), path), os.truncate(path, 900)),
    ),
    "folder": ("a.pt", Path.mkdir),
    "nothing": ("a.pt", lambda path: None),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_files_that_are_no_weights(run: Path, place: Path, case: str) -> None:
    name, make = WEIGHTS[case]
    make(place / name)
    with refused(run, name):
        read_checkpoint(name)


def test_ready_weights_that_somebody_put_into_the_cache(run: Path, place: Path, monkeypatch) -> None:
    """Only what torchvision downloads has its hash checked; what lies there it would unpickle."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(place))
    (place / "checkpoints").mkdir()
    save_pickle(place / "checkpoints" / "resnet18-f37072fd.pth")
    with refused(run, "resnet18-f37072fd.pth"):
        torchvision_classifier("resnet18", weights="IMAGENET1K_V1")


def test_pickled_images_with_another_hash(run: Path, place: Path) -> None:
    """CIFAR-10 is handed out as pickles, of which torchvision knows the hashes."""
    write(place / "data", {"cifar-10-batches-py/batches.meta": ""})
    for name in ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        pickled(place / "data" / "cifar-10-batches-py" / name)
    with refused(run, str(place / "data")):
        CIFAR10(place / "data")


@pytest.mark.parametrize("content", [pickle.dumps(Boom()), b"", b"no state"], ids=["pickle", "0 bytes", "text"])
def test_training_that_is_resumed_from_no_training(place: Path, content: bytes) -> None:
    (place / "resume.pt").write_bytes(content)
    with refused(place, "resume.pt"):
        TrainingState.load(place, torch.nn.Linear(2, 2), torch.device("cpu"))


# ---------------------------------------------------------------- heatmaps


def replace_json(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        about = json.loads((folder / "heatmaps.json").read_text())
        (folder / "heatmaps.json").write_text(json.dumps(about | changes))

    return change


def giant(folder: Path) -> None:
    with (folder / "cam.npy").open("wb") as file:
        about = {"descr": "<f2", "fortran_order": False, "shape": (10, 10**9, 10**9)}
        np.lib.format.write_array_header_1_0(file, about)


def put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def other_sample(folder: Path) -> None:
    index = pd.read_parquet(folder / "index.parquet")
    index.loc[3, "sample_id"] = "../../../etc/passwd"
    index.to_parquet(folder / "index.parquet")


STORES: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickle as array": (put("cam.npy", pickle.dumps(Boom())), "cam.npy"),
    "pickle as scales": (put("cam.scale.npy", pickle.dumps(Boom())), "cam.scale.npy"),
    "array larger than its file": (giant, "cam.npy"),
    "pickle as index": (put("index.parquet", pickle.dumps(Boom())), "index.parquet"),
    "JSON of another kind": (put("heatmaps.json", b"[1, 2]"), "heatmaps.json"),
    "JSON that is nested deeply": (put("heatmaps.json", b"[" * 100_000), "heatmaps.json"),
    "JSON in Latin-1": (put("heatmaps.json", '{"name": "é"}'.encode("latin-1")), "heatmaps.json"),
    "method elsewhere": (replace_json(methods={"../../cam": {"function": "cam", "layer": ""}}), "../../cam"),
    "method that isn't there": (replace_json(methods={"x": {"function": "cam", "layer": ""}}), "x.npy"),
    "an id that leads out, which is no sample's": (other_sample, "test/00003"),
    "predictions": (put("../samples.parquet", b"PAR1" + bytes(100) + b"PAR1"), "samples.parquet"),
}


@pytest.mark.parametrize("case", STORES)
def test_heatmaps_of_a_run_that_was_tampered_with(run: Path, shapes: wsol.Dataset, case: str) -> None:
    change, message = STORES[case]
    change(run / "heatmaps")
    with refused(run, message):
        score(shapes, run / "heatmaps", ["exact"], run_dir=run, **QUIET)


RUNS = ("summary.csv", "metrics.csv", "samples.parquet", "curves.parquet", "per_image.parquet", "config.yaml")


@pytest.mark.parametrize("name", [*RUNS, "environment.json"])
@pytest.mark.parametrize("content", [b"PAR1\xff\x00PAR1", pickle.dumps(Boom()), b""], ids=["garbage", "pickle", "0"])
def test_tables_of_a_run_that_are_garbage(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    (run / "run.json").unlink()  # or it would say that this is not what the run wrote
    per_image = {"per_image": lambda opened: opened.per_image("cam", "choe2020", ["sample_id"])}
    opened = Run.open(run)
    if name == "config.yaml" and not content:
        assert opened.config == {}  # an empty YAML file says nothing, which is no damage
        return
    with refused(run, f"{run / name}"):
        per_image.get(Path(name).stem, attrgetter(Path(name).stem))(opened)


# ---------------------------------------------------------------- annotations as text


def tiny_with(root: Path, annotations: bytes, wnids: bytes = b"n01443537\n", words: bytes = b"") -> Path:
    write(root, {"val/images/x": ""})
    for name, content in {"wnids.txt": wnids, "words.txt": words, "val/val_annotations.txt": annotations}.items():
        (root / name).write_bytes(content)
    return root


GOOD = b"a.JPEG\tn01443537\t1\t2\t3\t4\n"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"annotations": GOOD, "words": "n01443537\tdoré\n".encode("latin-1")}, "words.txt"),
        ({"annotations": GOOD.decode().encode("utf-16")}, "val_annotations.txt"),
        ({"annotations": bytes(1000)}, "val_annotations.txt, line 1"),
        ({"annotations": GOOD.replace(b"\t4", b"\t0x10")}, "line 1: 'a.JPEG n01443537 1 2 3 0x10'"),
        ({"annotations": GOOD.replace(b"\t4", b"\t4\t5")}, "val_annotations.txt, line 1"),
        ({"annotations": b"a" * 10**6}, "val_annotations.txt, line 1"),
        ({"annotations": GOOD, "wnids": b"n99999999\n"}, "n01443537"),
        ({"annotations": b""}, "val"),
    ],
)  # fmt: skip
def test_annotations_that_are_no_text_or_absurd(run: Path, place: Path, texts: dict[str, bytes], message: str) -> None:
    root = tiny_with(place / "data", **texts)
    with refused(run, message, str(root)):
        TinyImageNet(root)


@pytest.mark.parametrize("encode", [lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\n", b"\r\n")])
def test_byte_order_mark_and_carriage_returns_change_nothing(place: Path, encode: Callable[[bytes], bytes]) -> None:
    data = TinyImageNet(tiny_with(place, encode(GOOD), encode(b"n01443537\n"), encode(b"n01443537\tgoldfish\n")))
    (sample,) = data
    assert (data.class_ids, data.classes, sample.sample_id) == (("n01443537",), ("goldfish",), "val/images/a.JPEG")
    assert sample.boxes is not None and sample.boxes.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"width": 9', '"width": 1e400', "images[0]"),
        ('"width": 9', '"width": 99999999999', "99999999999"),
        ('{"images"', "[" * 10**5, "instances_val.json"),
    ],
)
def test_absurd_numbers_in_json(run: Path, place: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UserError):  # without any annotation
        coco(place / "data", "a.jpg")
    path = place / "data" / "annotations" / "instances_val.json"
    path.write_text(path.read_text().replace(old, new))
    with refused(run, message):
        COCO(place / "data", "val")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_that_would_fill_the_memory_are_not_expanded(run: Path, place: Path, encoding: str) -> None:
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    text = f'<!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]><annotation><filename>&l9;</filename></annotation>'
    name = "VOCdevkit/VOC2007/Annotations/a.xml"
    (write(place / "data", {name: ""}) / name).write_bytes(text.encode(encoding))
    with refused(run, "a.xml"):
        voc(place / "data", "a")


def test_names_of_files_that_are_no_text(run: Path, place: Path) -> None:
    folder = os.fsencode(place / "data")
    os.makedirs(folder + b"/cat")
    Image.new("RGB", (32, 32)).save(place / "data" / "cat" / "a.png")
    os.rename(folder + b"/cat/a.png", folder + b"/cat/\xff.png")
    with refused(run, r"cat/\udcff.png"):
        ImageFolder(place / "data")[0]
    os.rename(folder + b"/cat", folder + b"/\xff")
    with refused(run, r"\udcff/"):
        ImageFolder(place / "data")[0]


# ---------------------------------------------------------------- names through the tables

NAMES = (
    '"quoted", with commas', "line\nbreak\ttab", "<script>alert('x')</script> &amp;", r"50 % of \ _x_ & $y$ ^ ~ # {z}",
    "[bold red]x[/bold red] [/]", "שלום مرحبا", "ネコ 🐈 ελληνικά", "NA", "nan", " spaces ", "=1+1", "a|b",
)  # fmt: skip


class Named(wsol.Dataset):
    """One picture of each class."""

    name, split, classes = "data [/] & <b>", "100 %", NAMES

    def __len__(self) -> int:
        return len(NAMES)

    def __getitem__(self, index: int) -> wsol.Sample:
        image = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        return wsol.Sample(sample_id=f"{NAMES[index]}/{index}", label=index, image=image, boxes=[[4, 4, 27, 27]])


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> wsol.Results:
    """A run on them, with a method that is called like nothing else."""
    methods = {METHOD: make_method("cam")}
    folder = tmp_path_factory.mktemp("named")
    return wsol.evaluate(Named(), small(Named()), methods, ["choe2020"], run_dir=folder, **QUIET | {"report": True})


METHOD = r"[red]cam[bold] & 50 % {a_b} $x$ #1 ^~ \o ネコ"


def test_names_come_back_from_csv_and_parquet_as_they_are(named: wsol.Results) -> None:
    assert named.run_dir is not None
    metrics = pd.read_csv(named.run_dir / "metrics.csv", keep_default_na=False)
    assert [name for name in dict.fromkeys(metrics["class"]) if name] == list(NAMES)
    assert set(metrics["method"]) == {METHOD}
    with (named.run_dir / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(metrics["class"])
    for table in ("samples", "per_image"):
        found = pd.read_parquet(named.run_dir / f"{table}.parquet")
        assert found["class"].tolist() == list(NAMES)
        assert found["sample_id"].tolist() == [f"{name}/{i}" for i, name in enumerate(NAMES)]
    assert Run.open(named.run_dir).metrics["class"].tolist() == list(metrics["class"])


def test_names_score_again_to_the_same_tables(named: wsol.Results, place: Path) -> None:
    assert named.run_dir is not None
    again = score(Named(), named.run_dir / "heatmaps", ["choe2020"], run_dir=place / "again", **QUIET)
    pd.testing.assert_frame_equal(again.metrics, named.metrics)


def test_names_on_the_terminal_are_no_markup(named: wsol.Results, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(named)
    said = capsys.readouterr().out
    assert f"{Named.name} ({Named.split}, {len(NAMES)} samples)" in said and METHOD in said


def cells(line: str, mark: str) -> list[str]:
    return re.split(rf"(?<!\\){mark}", line)


def test_names_in_latex_and_markdown_stay_in_their_cells(named: wsol.Results) -> None:
    assert named.run_dir is not None
    tex = (named.run_dir / "summary.tex").read_text(encoding="utf-8")
    (row,) = (line for line in tex.splitlines() if "choe2020" in line)
    (head,) = (line for line in tex.splitlines() if "GT-known" in line)
    assert len(cells(row, "&")) == len(cells(head, "&")) > 5
    assert not re.search(r"(?<!\\)[%#$_]", row)
    assert row.count("{") - row.count(r"\{") == row.count("}") - row.count(r"\}")
    assert "ネコ" in row and r"50 \% " in row
    markdown = (named.run_dir / "summary.md").read_text(encoding="utf-8").splitlines()
    assert len({len(cells(line, r"\|")) for line in markdown[:3]}) == 1


def test_names_in_the_page_are_no_html(named: wsol.Results) -> None:
    assert named.run_dir is not None
    page = (named.run_dir / "report.html").read_text(encoding="utf-8")
    assert "<script>alert('x')" not in page and "<b>" not in page.split("</title>")[0]


def test_names_in_a_check_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    class Empty(Named):
        classes = (*NAMES, "[/] <b>")

    checked = check_dataset(Empty(), show_progress=False)
    print_check(Empty(), checked)
    (detail,) = checked.faults["detail"]
    assert "[/] <b>" in detail and detail in capsys.readouterr().out


# ---------------------------------------------------------------- values of options, and where a run goes


@pytest.mark.parametrize("where", ["file", "file/inside", "loop", "x" * 300])
def test_no_place_for_a_run(place: Path, capsys: pytest.CaptureFixture[str], where: str) -> None:
    (place / "file").write_text("mine")
    (place / "loop").symlink_to(place / "loop")
    assert cli.main(["check", "dataset.length=2", f"run_dir={where}"]) == 2
    said = capsys.readouterr().err
    assert where in said and said.count("\n") == 1
    assert (place / "file").read_text() == "mine"
