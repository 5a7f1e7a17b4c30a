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
from wsol.commands.report import export_boxes
from wsol.datasets import Shapes
from wsol.datasets.sample import Dataset, Sample
from wsol.report import gallery as gallery_module
from wsol.report import page as page_module
from wsol.report import templating
from wsol.report.charts import KINDS, error_costs
from wsol.report.compare import compare
from wsol.report.compare_page import write_comparison
from wsol.report.latex import TableOptions
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
        self.all_tables: list[list[list[str]]] = []
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
            self.all_tables.append(self.tables[self._table])
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


@pytest.mark.parametrize("number", range(len(PROTOCOLS)))
def test_the_summary_has_a_row_per_method(run: wsol.Results, folder: Path, parsed: Parsed, number: int) -> None:
    head, *rows = parsed.tables[f"summary-{number}"]
    assert head[0] == "method" and "protocol" not in head
    assert [row[0].partition("at ")[0] for row in rows] == ["CAM", "Grad-CAM", "center baseline"]
    assert all(any(row[column] for row in rows) for column in range(len(head)))
    column = head.index("GT-known")
    drawn = Run.open(folder).intervals.set_index(["method", "protocol", "metric"])
    summary = run.summary[run.summary["protocol"] == PROTOCOLS[number]]
    for cells, (_, row) in zip(rows, summary.iterrows(), strict=True):
        interval = drawn.loc[row["method"], row["protocol"], "gt_known_loc"]
        oracle = "*" if row["threshold_source"] == "oracle" else ""
        assert cells[column] == f"{row['gt_known_loc']:.1f}{interval['low']:.1f}–{interval['high']:.1f}{oracle}"
        assert cells[head.index("τ")] == f"{row['threshold']:.3f}" + {"oracle": "oracle*"}.get(
            row["threshold_source"], "fixed"
        )
    assert any("optimistic" in words for words in parsed.words)
    assert not any("found nothing" in words for words in parsed.words)


def test_sentences_say_what_the_table_means(run: wsol.Results, parsed: Parsed) -> None:
    rows = run.summary[run.summary["protocol"] == PROTOCOLS[0]].set_index("method")["gt_known_loc"]
    best = {"cam": "CAM", "gradcam": "Grad-CAM"}[rows[["cam", "gradcam"]].idxmax()]
    words = " ".join(parsed.words)
    assert f"{best} localizes {rows[['cam', 'gradcam']].max():.1f} % of {COUNT} images at IoU 0.5" in words
    assert f"{abs(rows[['cam', 'gradcam']].max() - rows['center']):.1f} points" in words
    where = f"{COUNT} images of the data set {HostileShapes.name} (test)"
    assert f"CAM and Grad-CAM of the network small on {where}" in words


def test_costs_are_what_fixing_one_kind_would_gain(run: wsol.Results) -> None:
    rows = run.per_image.query("method == 'cam' and protocol == 'choe2020'")
    costs = error_costs(rows)
    for label, kind in ((kind.label, kind.key) for kind in KINDS if kind.key != "right"):
        fixed = rows["top1_loc"].copy()
        of_kind = rows["error_kind"] == kind
        fixed[of_kind] = rows["gt_known_loc"][of_kind] if kind == "wrong_class" else True
        assert costs[label] == pytest.approx(100 * (fixed.mean() - rows["top1_loc"].mean()))


@pytest.mark.usefixtures("no_figures")
def test_sections_register_themselves(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templating, "SECTIONS", templating.SECTIONS)
    for key in ("mine", "none"):
        monkeypatch.setitem(templating.SECTIONS, key, (0, lambda page: None))
    frame = pd.DataFrame({"method": ["<b>a</b>"], "gain": [1.25], "other": [np.nan]})

    @templating.section("mine", 25)
    def mine(page: page_module.Page) -> templating.Section:
        return templating.Section("My numbers", templating.html_table(frame), {"methods": page.run.methods})

    page = write_report(copy, HostileShapes()).read_text(encoding="utf-8")
    parsed = Parsed(page)
    assert [["method", "gain", "other"], ["<b>a</b>", "1.2", ""]] in parsed.all_tables
    assert json.loads(parsed.data["report-data"])["mine"] == {"methods": list(METHODS)}
    keys = [attributes["id"] for tag, attributes in parsed.tags if tag == "section"]
    assert keys.index("mine") == keys.index("accuracy") + 1 and "none" not in keys


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
        summary = run.summary[run.summary["protocol"] == protocol].set_index("method")
        sizes = chart["sizes"]
        assert sum(sizes["counts"]) == COUNT and chart["instances"] is None  # one object each
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
    head, *rows = Parsed(write_report(copy).read_text(encoding="utf-8")).tables["summary-1"]
    published = [row for row in rows if "published" in row[0]]
    cam = next(row for row in published if row[0].startswith("CAM") and row[head.index("Top-1 loc")] == "40.5")
    assert "Choe, Park" in cam[0]
    assert len(rows) - len(published) == len(METHODS)


@pytest.mark.usefixtures("no_figures")
def test_masks_alone_make_a_page_without_boxes(tmp_path: Path) -> None:
    shapes = Shapes("test", length=4, size=40, classes=3, object_size=(0.5, 0.9))
    samples = [Sample(sample_id=s.sample_id, label=s.label, image=s.read_image(), mask=s.read_mask()) for s in shapes]
    words = {"protocols": ["choe2020"], "run_dir": tmp_path, "progress": False}
    wsol.score(Listed(samples), methods=["center", "full"], **words)
    parsed = Parsed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert len(parsed.gallery()["samples"]) == 4
    assert {"curves", "kinds"}.isdisjoint(attributes.get("id") for _, attributes in parsed.tags)


@pytest.mark.usefixtures("no_figures")
def test_methods_that_would_be_called_alike_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "CAM" / "test").mkdir(parents=True)
    shapes = Shapes(length=6, size=40)
    for sample in shapes:
        np.save(tmp_path / "CAM" / f"{sample.sample_id}.npy", np.eye(4))
    rows = [(sample.sample_id, *sample.boxes[0]) for sample in shapes]
    pd.DataFrame(rows, columns=["sample_id", "x0", "y0", "x1", "y1"]).to_csv(tmp_path / "cam.csv", index=False)
    words = {"box_corners": "inclusive", "box_units": "pixels", "progress": False, "run_dir": tmp_path / "run"}
    results = wsol.score(shapes, tmp_path / "CAM", ["exact"], boxes=tmp_path / "cam.csv", **words)
    table = Parsed((tmp_path / "run" / "report.html").read_text(encoding="utf-8")).tables["summary-0"]
    names = [row[0] for row in table[1:]]
    assert len(set(names)) == 2
    compared = compare([tmp_path / "run"], resamples=50)
    assert len(set(compared.summary["title"])) == 2 and not compared.intervals.duplicated(["method", "metric"]).any()
    values = results.summary.set_index("method")["gt_known_loc"]
    row = compared.pairs.set_index("metric").loc["gt_known_loc"]
    assert values["cam"] == 100 > values["CAM"]
    assert {row["first_method"]: row["first_value"], row["second_method"]: row["second_value"]} == values.to_dict()
    columns = re.search(r"toprule\n(.*) \\\\", results.to_latex(columns=["method"]))[1].split(" & ")
    assert len(columns) == len(set(columns)) == 3, "a table whose columns are methods"
    two = compare([tmp_path / "run", shutil.copytree(tmp_path / "run", tmp_path / "other")], resamples=50)
    write_comparison(two, tmp_path / "out", options=TableOptions(names={"cam": "Boxes"}))
    assert "\nBoxes (other) & " in (tmp_path / "out" / "compare.tex").read_text(encoding="utf-8")
    titles = [axis.get_title().split("\n")[0] for axis in results.plot_examples(shapes)[0]]
    assert len(titles) == len(set(titles)) == 3, "columns of example pictures"


def test_scored_heatmaps_and_rebuilding_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["dataset.length=6", "dataset.size=40", "protocol=[choe2020]", "progress=false", "pictures=0"]
    assert main(["method=[cam,center]", "run_dir=run", "report=false", *words]) == 0
    assert not (tmp_path / "run" / "report.html").exists()
    with monkeypatch.context() as context:
        context.setattr(page_module, "draw_figures", lambda *_: [])
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


@pytest.mark.long
@pytest.mark.usefixtures("no_figures")
@pytest.mark.skipif(not BENCH.is_file(), reason="no scripts/ beside the tests")
def test_twelve_methods_with_large_maps_stay_under_ten_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCH.parent))
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


def test_boxes_are_exported_for_coco_and_fiftyone(run: wsol.Results, folder: Path, copy: Path) -> None:
    loaded = Run.open(folder)
    for form in ("coco", "fiftyone"):
        export_boxes(loaded, form, copy / "export")
    assert len(list((copy / "export").iterdir())) == 2 * (1 + len(METHODS) * len(PROTOCOLS))

    def read(name: str) -> Any:
        return json.loads((copy / "export" / f"{name}.json").read_text(encoding="utf-8"))

    truth, results, labels = (
        read("coco_ground_truth"),
        read("coco_cam_choe2020"),
        read("fiftyone_cam_choe2020")["labels"],
    )
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    rows = run.per_image.query("method == 'cam' and protocol == 'choe2020'").set_index("sample_id")
    assert len(results) == len(labels) == COUNT == len(truth["annotations"])
    for result in results:
        row, (x, y, width, height) = rows.loc[names[result["image_id"]]], result["bbox"]
        assert [x, y, x + width - 1, y + height - 1] == row[["x0", "y0", "x1", "y1"]].tolist()
        assert truth["categories"][result["category_id"] - 1]["name"] == row["class"] and 0 <= result["score"] <= 1
        (detection,) = labels[names[result["image_id"]].removesuffix(".png")]
        assert np.allclose(40 * np.array(detection["bounding_box"]), result["bbox"])
    assert main(["report", f"run={copy}", "export=voc"]) == 2
