"""The page of a run: complete, self-contained, bounded, and right about what it says; without a browser."""

from __future__ import annotations

import base64
import json
import re
import runpy
import shutil
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import wsol
from tests.report.conftest import COUNT, HOSTILE, METHODS, PROTOCOLS, HostileShapes
from wsol.cli import main
from wsol.datasets import Shapes
from wsol.datasets.sample import Dataset, Sample
from wsol.report import gallery as gallery_module
from wsol.report import page as page_module
from wsol.report.page import write_report
from wsol.report.run import Run
from wsol.report.templating import as_json

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench_report.py"


class Listed(Dataset):
    """Samples of three classes."""

    name, split, classes = "listed", "val", ("one", "two", "three")

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


class Parsed(HTMLParser):
    """Tags with their attributes, scripts by id, and tables as rows of text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.words: list[str] = []
        self._script = self._table = ""
        self._row: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = dict(attrs).get("id") or "" if tag == "script" else self._script
        if tag == "table":
            self._table = dict(attrs).get("id") or ""
            self.tables[self._table] = []
        if tag == "tr":
            self.tables[self._table].append([])
        if tag in ("td", "th"):
            self.tables[self._table][-1].append("")
            self._row = self.tables[self._table][-1]

    def handle_endtag(self, tag: str) -> None:
        self._row = None if tag in ("td", "th") else self._row
        self._script = "" if tag == "script" else self._script

    def handle_data(self, data: str) -> None:
        if self._script:
            self.data[self._script] = self.data.get(self._script, "") + data
        elif self._row is not None:
            self._row[-1] += data
        self.words.append(data)

    def gallery(self) -> dict[str, Any]:
        return dict(json.loads(zlib.decompress(base64.b64decode(self.data["gallery-data"]))))


@pytest.fixture(scope="module")
def folder(run: wsol.Results) -> Path:
    return Path(str(run.run_dir))


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parsed(text: str) -> Parsed:
    return Parsed(text)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """The run again, to write into: the other has the page that a browser opens."""
    return shutil.copytree(folder, tmp_path / "run")


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing figures takes most of the time that a page takes; test_figures.py has them."""
    monkeypatch.setattr(page_module, "draw_figures", lambda *_: [])


def test_the_page_needs_nothing_but_itself(text: str, parsed: Parsed) -> None:
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            address = attributes.get(name)
            assert address is None or address.startswith(("#", "data:")), (tag, attributes)
        assert tag not in ("link", "iframe", "object", "img")
    assert "default-src 'none'" in text
    assert not re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)


def test_nothing_hostile_becomes_markup(parsed: Parsed) -> None:
    assert not any("onerror" in attributes for _, attributes in parsed.tags)
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"img", "b"})
    classes = json.loads(parsed.data["report-data"])["charts"]["choe2020"]["classes"]["gt_known_loc"]
    assert set(classes["names"]) == set(HOSTILE)
    assert {sample["class"] for sample in parsed.gallery()["samples"]} == set(HOSTILE)


def test_json_can_stand_in_a_script_and_keeps_what_it_holds() -> None:
    value = {"</script>": ["<!--", "&amp;", "'\"\\", "\u2028", "\udcff", float("nan"), np.float32(0.5), True, None]}
    text = str(as_json(value))
    assert not set(text) & set("<>&'\u2028\udcff")
    back = json.loads(text)["</script>"]
    assert back == ["<!--", "&amp;", "'\"\\", "\u2028", "\udcff", None, 0.5, True, None]


def test_the_summary_has_every_number_with_its_interval(run: wsol.Results, folder: Path, parsed: Parsed) -> None:
    head, *rows = parsed.tables["summary-table"]
    assert len(rows) == len(METHODS) * len(PROTOCOLS)
    column = head.index("GT-known")
    drawn = Run.open(folder).intervals.set_index(["method", "protocol", "metric"])
    for cells, (_, row) in zip(rows, run.summary.iterrows(), strict=True):
        interval = drawn.loc[row["method"], row["protocol"], "gt_known_loc"]
        oracle = "*" if row["threshold_source"] == "oracle" else ""
        assert cells[column] == f"{row['gt_known_loc']:.1f}{interval['low']:.1f}–{interval['high']:.1f}{oracle}"
        assert cells[head.index("τ")] == f"{row['threshold']:.3f}" + {"oracle": "oracle*"}.get(
            row["threshold_source"], "fixed"
        )
    assert any("optimistic" in words for words in parsed.words)
    assert any("never looks at the image" in words for words in parsed.words)


def test_charts_hold_the_curves_as_counts(run: wsol.Results, parsed: Parsed) -> None:
    for protocol, chart in json.loads(parsed.data["report-data"])["charts"].items():
        assert chart["count"] == COUNT
        assert chart["grid"] == wsol.load_protocol(protocol).grid().tolist()
        for delta, methods in chart["curves"].items():
            at_delta = run.curves[run.curves["iou_threshold"] == float(delta)].set_index(["method", "protocol"])
            for method, counts in methods.items():
                own = at_delta.loc[(method, protocol)]
                assert np.allclose(100 * np.array(counts) / COUNT, own["gt_known_loc"])
        for method, kinds in chart["errors"].items():
            assert sum(kinds) == pytest.approx(100), method
        sizes = chart["sizes"]
        assert sum(sizes["counts"]) == COUNT
        summary = run.summary[run.summary["protocol"] == protocol].set_index("method")
        for method, values in sizes["values"].items():
            mean = np.average(values, weights=sizes["counts"])
            assert mean == pytest.approx(summary["gt_known_loc"][method])


def test_what_was_run_is_said(run: wsol.Results, text: str, parsed: Parsed) -> None:
    facts = dict(parsed.tables[""])
    assert facts["model"] == "small"
    assert f"torch {run.environment['versions']['torch']}" in facts["versions"]
    assert facts["device"].startswith("cpu")
    assert "pixel_comparison" in text  # the configuration


@pytest.mark.usefixtures("no_figures")
def test_the_same_twice(folder: Path, copy: Path, text: str) -> None:
    again = write_report(copy, HostileShapes()).read_text(encoding="utf-8")
    assert again.replace(str(copy), str(folder)) == text


@pytest.mark.usefixtures("no_figures")
def test_the_gallery_says_how_it_draws(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for most, told in ((10_000, False), (100, True)):  # score maps are of 224 pixels
        monkeypatch.setattr(gallery_module, "DRAWN", most)
        parsed = Parsed(write_report(copy).read_text(encoding="utf-8"))
        assert parsed.gallery()["drawn"] == most
        words = " ".join(parsed.words)
        assert ("Score maps of more than 100 pixels a side are drawn at 100." in words) == told
        assert "Error kinds are those at the summary's τ" in words


@pytest.mark.usefixtures("no_figures")
def test_without_images_the_gallery_says_so(copy: Path) -> None:
    page = write_report(copy, None, why_no_images="the disk <is> gone")
    parsed = Parsed(page.read_text(encoding="utf-8"))
    assert all(sample["image"] is None and sample["maps"] for sample in parsed.gallery()["samples"])
    assert any("gray where there is no image: the disk <is> gone" in words for words in parsed.words)
    shutil.rmtree(copy / "heatmaps")
    parsed = Parsed(write_report(copy, HostileShapes()).read_text(encoding="utf-8"))
    assert all(sample["image"] and not sample["maps"] for sample in parsed.gallery()["samples"])
    assert any("heatmaps are gone" in words for words in parsed.words)


@pytest.mark.usefixtures("no_figures")
def test_published_numbers_stand_beside_with_their_source(copy: Path) -> None:
    summary = pd.read_csv(copy / "summary.csv", keep_default_na=False, dtype=str)
    summary.assign(dataset="Tiny-ImageNet", split="val", n_images=10_000).to_csv(copy / "summary.csv", index=False)
    head, *rows = Parsed(write_report(copy).read_text(encoding="utf-8")).tables["summary-table"]
    published = [row for row in rows if "published" in row[0]]
    cam = next(row for row in published if row[0].startswith("CAM") and row[head.index("Top-1 loc")] == "40.5")
    assert "Choe, Park" in cam[0]
    assert len(rows) - len(published) == len(METHODS) * len(PROTOCOLS)


@pytest.mark.usefixtures("no_figures")
def test_masks_alone_make_a_page_without_boxes(tmp_path: Path) -> None:
    shapes = Shapes("test", length=4, size=40, classes=3, object_size=(0.5, 0.9))
    samples = [Sample(sample_id=s.sample_id, label=s.label, image=s.read_image(), mask=s.read_mask()) for s in shapes]
    words = {"protocols": ["choe2020"], "run_dir": tmp_path, "progress": False}
    wsol.score(Listed(samples), methods=["center", "full"], **words)
    parsed = Parsed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert len(parsed.gallery()["samples"]) == 4
    assert {"curves", "kinds"}.isdisjoint(attributes.get("id") for _, attributes in parsed.tags)


def test_scored_heatmaps_and_rebuilding_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["dataset.length=6", "dataset.size=40", "protocol=[choe2020]", "progress=false", "pictures=0"]
    assert main(["method=[cam,center]", "run_dir=run", "report=false", *words]) == 0
    assert not (tmp_path / "run" / "report.html").exists()
    assert main(["score", "heatmaps=run/heatmaps", "run_dir=scored", *words]) == 0
    first = (tmp_path / "scored" / "report.html").read_text(encoding="utf-8")
    assert all(sample["maps"] and sample["image"] for sample in Parsed(first).gallery()["samples"])
    (tmp_path / "scored" / "report.html").unlink()
    for name in ("scored", "run"):
        assert main(["report", f"run={name}"]) == 0
        page = Parsed((tmp_path / name / "report.html").read_text(encoding="utf-8"))
        assert all(sample["maps"] and sample["image"] for sample in page.gallery()["samples"]), name
        assert (tmp_path / name / "figures" / "accuracy_choe2020.svg").is_file()
    assert (tmp_path / "scored" / "report.html").read_text(encoding="utf-8") == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "scored"]
    (tmp_path / "run" / "sweeps.parquet").unlink()
    (tmp_path / "run" / "summary.csv").unlink()
    capsys.readouterr()
    assert main(["report", "run=run"]) == 2
    said = capsys.readouterr().err
    assert "sweeps.parquet, summary.csv missing" in said
    assert main(["report", "run=nowhere"]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


@pytest.mark.usefixtures("no_figures")
@pytest.mark.skipif(not BENCH.is_file(), reason="no scripts/ beside the tests")
def test_twelve_methods_with_large_maps_stay_under_ten_megabytes(tmp_path: Path) -> None:
    write_run = runpy.run_path(str(BENCH))["write_run"]
    write_run(tmp_path, 90, [f"method{number}" for number in range(12)], classes=30, map_size=112)
    random = np.random.default_rng(0)
    images = (random.integers(0, 256, (375, 500, 3), np.uint8) for _ in range(90))
    samples = [Sample(sample_id=f"val/{index:06d}", label=0, image=image) for index, image in enumerate(images)]
    page = write_report(tmp_path, Listed(samples))
    assert page.stat().st_size < 10_000_000
    parsed = Parsed(page.read_text(encoding="utf-8"))
    shown = parsed.gallery()["samples"]
    assert 6 <= len(shown) < gallery_module.MOST
    assert {sample["reason"] for sample in shown} == {0, 1, 2}
    assert {len(sample["runs"]) for sample in shown} == {12}
    assert any("more would have made the page too large" in words for words in parsed.words)
