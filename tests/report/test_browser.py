"""The report in a real browser: no network, the slider moves boxes, masks and accuracies, nothing hostile runs."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import wsol
from tests.report.conftest import COUNT, HOSTILE, METHODS, PROTOCOLS, HostileShapes
from wsol.heatmaps.store import HeatmapStore
from wsol.report.compare import compare
from wsol.report.compare_page import write_comparison

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install 'wsol[dev]'")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as engines:
        options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        started = engines.chromium.launch(executable_path=CHROMIUM, args=options)
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, run: wsol.Results) -> Iterator[Any]:
    with opened(browser, run) as found:
        yield found


@contextmanager
def opened(
    browser: Any, run: wsol.Results, width: int = 1200, scheme: str = "light", fragment: str = ""
) -> Iterator[Any]:
    """The run's page in a window of its own; what its console says and what it asks for from outside are faults."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, faults = context.new_page(), []
    page.on("console", lambda said: faults.append(f"{said.type}: {said.text}"))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("request", lambda request: faults.append(request.url) if outside(request.url) else None)
    try:
        page.goto((Path(str(run.run_dir)) / "report.html").as_uri() + (f"#{fragment}" if fragment else ""))
        page.wait_for_selector("#gallery[data-ready]")
        yield page
    finally:
        context.close()
    assert faults == []


def outside(address: str) -> bool:
    return not address.startswith(("file:", "data:"))


def slide(page: Any, tau: float) -> None:
    """Drag the slider to a τ of the grid of 1,000."""
    page.evaluate(
        """(step) => {
            const slider = document.querySelector('[data-control="threshold"]');
            slider.value = step;
            slider.dispatchEvent(new Event("input"));
            wsol.gallery.redraw();
        }""",
        round(1000 * tau),
    )


def move_to(page: Any, tau: float) -> None:
    """Drag the slider, and draw every card, seen or not, with its picture."""
    page.evaluate("Promise.all(wsol.gallery.cards.map((card) => card.sample.ready)).then(() => 0)")
    slide(page, tau)
    page.evaluate("for (const card of wsol.gallery.cards) wsol.gallery.draw(card)")


def panels(page: Any) -> pd.DataFrame:
    found = page.evaluate(
        """[...document.querySelectorAll(".card")].flatMap((card) => [...card.querySelectorAll("figure")]
            .filter((figure) => figure.dataset.method)
            .map((figure) => ({ sample_id: card.dataset.sample, text: figure.querySelector("figcaption").textContent,
                                hidden: card.hidden, ...figure.dataset })))"""
    )
    return pd.DataFrame(found)


def texts(page: Any, selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()


@pytest.mark.parametrize("protocol", ["choe2020", "choe2020_v2", "zhou2016"])
def test_the_slider_moves_the_accuracies_with_the_curves(page: Any, run: wsol.Results, protocol: str) -> None:
    page.select_option("#protocol", protocol)
    curves = run.curves[run.curves["protocol"] == protocol]
    for tau in (0.0, 0.2, 0.437, 0.999):
        slide(page, tau)
        assert page.inner_text('[data-control="threshold-value"]') == f"{tau:.3f}"
        for delta in (0.3, 0.5, 0.7):
            page.select_option('[data-control="delta"]', f"{delta:g}")
            page.evaluate("wsol.gallery.redraw()")
            rows = curves[np.isclose(curves["threshold"], tau) & (curves["iou_threshold"] == delta)]
            wanted = [f"{rows.set_index('method')['gt_known_loc'][method]:.1f} %" for method in METHODS]
            assert texts(page, ".chips output") == wanted


@pytest.mark.parametrize("protocol", ["choe2020", "choe2020_v2", "zhou2016"])
def test_the_slider_moves_boxes_and_masks(page: Any, run: wsol.Results, protocol: str) -> None:
    page.select_option("#protocol", protocol)
    rules, store = wsol.load_protocol(protocol), HeatmapStore.open(Path(str(run.run_dir)) / "heatmaps")
    sweeps = run.sweeps[run.sweeps["protocol"] == protocol].sort_values("threshold", kind="stable")
    before = None
    for tau in (0.1, 0.6):
        move_to(page, tau)
        shown = panels(page)
        assert len(shown) == COUNT * len(METHODS)
        at_tau = sweeps[sweeps["threshold"] <= tau + 1e-9].groupby(["sample_id", "method"]).last()
        own = at_tau.loc[pd.MultiIndex.from_frame(shown[["sample_id", "method"]])]
        assert np.allclose(shown["iou"].astype(float), own["iou"], atol=1.1e-4)
        assert [text.endswith("✓") for text in shown["text"]] == [
            iou > 0.5 if rules.iou_comparison == ">" else iou >= 0.5 for iou in own["iou"]
        ]
        boxes = np.array([[float(edge) for edge in box.split()] or [np.nan] * 4 for box in shown["box"]])
        late = rules.box_convention == "inclusive"
        wanted = own[["x0", "y0", "x1", "y1"]].to_numpy() + np.array([0, 0, late, late])
        assert (boxes[:, 2:] == np.maximum(wanted[:, 2:], wanted[:, :2] + 1)).all()
        assert (boxes[:, :2] == wanted[:, :2]).all()
        cam = shown[shown["method"] == "cam"]
        for sample_id, above in zip(cam["sample_id"], cam["above"], strict=True):
            position = store.sample_ids.index(sample_id)
            scores = wsol.score_map(store.heatmap("cam", position).values, rules, store.image_size(position))
            if rules.levels is not None:
                scores = np.trunc(scores * (rules.levels - 1))
                assert int(above) == (scores > int(tau * scores.max())).sum()
            else:
                assert int(above) == (scores > tau).sum()
        pixels = page.evaluate("document.querySelector('figure[data-method=cam] canvas').toDataURL()")
        assert pixels != before
        before = pixels


def test_the_best_of_several_boxes_is_said_to_be_chosen_with_the_truth(page: Any) -> None:
    note = page.locator("#gallery .any")
    assert note.is_hidden()
    page.select_option("#protocol", "choe2020_v2")
    assert note.is_visible()
    assert "chosen with the ground truth" in note.inner_text()


def test_the_slider_takes_keys_and_the_thresholds_of_methods(page: Any, run: wsol.Results) -> None:
    page.focus('[data-control="threshold"]')
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    # Not by wait_for_function: when it has to ask twice it evaluates text, which the page's own policy forbids.
    shown = playwright.expect(page.locator("[data-control=threshold-value]"))
    shown.to_have_text("0.001")
    row = run.summary[(run.summary["protocol"] == "choe2020") & (run.summary["method"] == "gradcam")].iloc[0]
    page.click("li[data-method=gradcam] button")
    shown.to_have_text(f"{row['threshold']:.3f}")
    assert f"{row['gt_known_loc']:.1f} %" in page.inner_text("li[data-method=gradcam]")


def test_methods_are_first_shown_each_at_its_own_threshold(page: Any, run: wsol.Results) -> None:
    rows = run.per_image[run.per_image["protocol"] == PROTOCOLS[0]].set_index(["sample_id", "method"])
    page.evaluate("for (const card of wsol.gallery.cards) wsol.gallery.draw(card)")
    shown = panels(page)
    wanted = rows.loc[pd.MultiIndex.from_frame(shown[["sample_id", "method"]]), "iou"]
    assert np.allclose(shown["iou"].astype(float), wanted, atol=1.1e-4)
    own = run.summary[run.summary["protocol"] == PROTOCOLS[0]].set_index("method")["gt_known_loc"]
    assert texts(page, ".chips output") == [f"{own[method]:.1f} %" for method in METHODS]
    move_to(page, 0.2)
    assert not page.is_checked('[data-control="own"]')
    page.check('[data-control="own"]')
    playwright.expect(page.locator('[data-control="threshold-value"]')).to_have_text("its own")


def test_a_picture_is_enlarged_by_a_click_keys_and_its_address(browser: Any, page: Any, run: wsol.Results) -> None:
    page.locator(".card canvas").first.click()
    large = page.locator("dialog.large")
    assert large.is_visible() and large.locator("canvas:visible").count() == 1 + len(METHODS)
    first = large.locator(".about").inner_text()
    page.keyboard.press("ArrowRight")
    assert "<i>01</i>.png" in large.locator(".about").inner_text() != first
    before = large.locator("canvas").first.bounding_box()["width"]
    page.keyboard.press("+")
    assert large.locator("canvas").first.bounding_box()["width"] > before
    large.locator("figure[data-method=cam]").click()
    assert large.locator("canvas:visible").count() == 1
    address = page.url
    page.keyboard.press("Escape")
    assert large.is_hidden()
    with opened(browser, run, fragment=address.partition("#")[2]) as other:
        assert "<i>01</i>.png" in other.locator("dialog.large[open] .about").inner_text()


def test_the_predicted_class_is_named(page: Any, run: wsol.Results) -> None:
    for (_, row), said in zip(run.samples.iterrows(), texts(page, ".card .predicted"), strict=True):
        right = row["rank"] == 0
        assert said.startswith("predicted: ") and ("ranked" in said) == (not right)
        assert (row["class"] in said) == right


def test_all_cards_are_painted_for_screenshots_and_print(page: Any) -> None:
    page.wait_for_selector("#gallery[data-painted=true]")
    blank = page.evaluate(
        """[...document.querySelectorAll(".card canvas")].map((canvas) => canvas.getContext("2d")
            .getImageData(0, 0, canvas.width, canvas.height).data).filter((all) => all.every((one) => !one)).length"""
    )
    assert blank == 0


def test_the_gallery_sorts_and_filters(page: Any, run: wsol.Results) -> None:
    move_to(page, 0.3)

    def order(column: str = "iou") -> pd.Series:
        page.evaluate("for (const card of wsol.gallery.cards) wsol.gallery.draw(card)")
        shown = panels(page)
        return shown[~shown["hidden"]].set_index(["sample_id", "method"])[column]

    page.select_option('[data-control="sort"]', "low")
    low = order().astype(float).xs("cam", level="method")
    assert low.is_monotonic_increasing
    assert low.nunique() > 3
    page.select_option('[data-control="sort"]', "high")
    assert order().astype(float).xs("cam", level="method").is_monotonic_decreasing
    page.select_option('[data-control="sort"]', "disagreement")
    page.select_option('[data-control="second"]', "center")
    ious = order().astype(float).unstack(sort=False)
    assert ((ious["cam"] - ious["center"]).abs().diff().dropna() <= 1e-9).all()
    page.select_option('[data-control="sort"]', "class")
    heads = texts(page, ".card header strong")
    assert heads == sorted(heads, key=heads.index)
    assert len({*heads}) == 3
    page.fill('[data-control="class"]', "ONERROR")
    count = int((run.samples["class"] == HOSTILE[1]).sum())
    assert page.inner_text(".count") == f"{count} of {COUNT} shown"
    page.fill('[data-control="class"]', "")
    kinds = run.per_image.query("method == 'cam' and protocol == 'choe2020'").set_index("sample_id")["error_kind"]
    kind = kinds.iloc[0]
    page.select_option('[data-control="kind"]', kind)
    assert sorted(order().index.get_level_values("sample_id").unique()) == sorted(kinds[kinds == kind].index)


def test_methods_can_be_hidden_and_views_changed(page: Any) -> None:
    def picture() -> str:
        page.evaluate("wsol.gallery.redraw(); wsol.gallery.draw(wsol.gallery.cards[0])")
        return str(page.evaluate("document.querySelector('figure[data-method=cam] canvas').toDataURL()"))

    seen = {picture()}
    for control, value in (("view", "heatmap"), ("colors", "jet"), ("view", "image")):
        page.select_option(f'[data-control="{control}"]', value)
        seen.add(picture())
    page.uncheck('[data-control="mask"]')
    seen.add(picture())
    page.uncheck('[data-control="boxes"]')
    seen.add(picture())
    assert len(seen) == 6
    assert page.locator("figure[data-method=gradcam] canvas").first.is_visible()
    page.uncheck("li[data-method=gradcam] input")
    assert page.locator("figure[data-method=gradcam] canvas").first.is_hidden()


def test_boxes_alone_have_no_thresholds(browser: Any, tmp_path: Path) -> None:
    shares = np.linspace(0.3, 1, COUNT)
    rows = [(sample.sample_id, *sample.boxes[0][:2], sample.boxes[0][0] + share * np.ptp(sample.boxes[0][::2]),
             sample.boxes[0][3]) for sample, share in zip(HostileShapes(), shares, strict=True)]  # fmt: skip
    pd.DataFrame(rows, columns=["sample_id", "x0", "y0", "x1", "y1"]).to_csv(tmp_path / "cut.csv", index=False)
    stated = {"box_corners": "inclusive", "box_units": "pixels", "progress": False}
    results = wsol.score(HostileShapes(), boxes=tmp_path / "cut.csv", protocols=["exact"], run_dir=tmp_path, **stated)
    with opened(browser, results) as page:
        assert page.locator("#curves").count() == 0 and page.locator("#shares svg").is_visible()
        for control in ("threshold", "own", "mask"):
            assert page.locator(f'[data-control="{control}"]').is_hidden()
        page.evaluate("for (const card of wsol.gallery.cards) wsol.gallery.draw(card)")
        shown = panels(page).set_index("sample_id")
        right = results.per_image.set_index("sample_id")["gt_known_loc"]
        assert (shown["text"].str.contains("✓") == right[shown.index]).all() and 0 < right.mean() < 1


def test_tables_sort(page: Any, run: wsol.Results) -> None:
    heads = texts(page, "#summary-0 th")
    column = heads.index(next(head for head in heads if "GT-known" in head))
    head = page.locator("#summary-0 th").nth(column)
    for order, descending in (("descending", True), ("ascending", False)):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == order
        cells = page.locator(f"#summary-0 tbody tr td:nth-child({column + 1})")
        values = cells.evaluate_all("(cells) => cells.map((cell) => Number(cell.dataset.value))")
        own = run.summary.loc[run.summary["protocol"] == PROTOCOLS[0], "gt_known_loc"]
        assert values == sorted(own, reverse=descending)
    page.fill("#class-filter", "script")
    assert page.locator("#class-table tbody tr").count() == 1


def test_charts_follow_the_protocol_and_answer_the_pointer(page: Any, run: wsol.Results) -> None:
    figures = page.locator("#curves figure")
    assert figures.count() == 3
    figures.nth(1).locator("path").first.wait_for()  # it is drawn when its width is known
    assert figures.nth(1).locator("path").count() == len(METHODS)
    before = figures.nth(1).inner_html()
    page.select_option("#protocol", "zhou2016")
    assert page.locator("#curves figure").nth(1).inner_html() != before
    page.locator("#curves svg").nth(1).hover(position={"x": 150, "y": 80})
    said = page.locator("#curves .readout").nth(1).inner_text()
    line = r"τ 0\.\d{3}: CAM \d+\.\d, Grad-CAM \d+\.\d, center baseline \d+\.\d"
    assert re.fullmatch(line, said)
    page.locator("#curves svg").nth(1).focus()
    readout = page.locator("#curves .readout").nth(1)
    page.keyboard.press("Home")
    assert readout.inner_text().startswith("τ 0.000: ")
    page.keyboard.press("ArrowRight")
    assert readout.inner_text().startswith("τ 0.001: ") and re.fullmatch(line, readout.inner_text())
    page.locator("#kinds svg").focus()
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#kinds .readout").startswith("Grad-CAM: ")
    shares = run.metrics.query("metric.str.startswith('error_') and `class` == '' and method == 'cam'")
    wanted = shares[(shares["protocol"] == "zhou2016") & (shares["value"] > 20)]["value"]
    assert {f"{value:.1f}" for value in wanted} <= set(page.locator("#kinds text").all_text_contents())


def test_hostile_names_are_text(page: Any) -> None:
    assert page.evaluate("window.hacked") is None
    assert page.locator("#classes img, #gallery img, #gallery i:not([style]), h1 b").count() == 0
    assert set(texts(page, "#class-table td.name")) == set(HOSTILE)
    assert set(texts(page, ".card header strong")) == set(HOSTILE)
    assert "<i>00</i>.png" in page.inner_text(".card header")
    assert "shapes & <b>co</b>" in page.inner_text("h1")


CONTRAST = """() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const light = (color) => {
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = getComputedStyle(at).backgroundColor;
            if (!color.endsWith(", 0)") && color !== "transparent") return color;
        }
        return "white";
    };
    return [...document.querySelectorAll("h1, h2, p, td, td small, th, label, a, button, figcaption, pre, .chart text")]
        .filter((element) => element.textContent.trim() && element.checkVisibility())
        .map((element) => {
            const style = getComputedStyle(element), ink = element.closest("svg") ? style.fill : style.color;
            const paper = element.closest("#kinds") && element.style.fill
                ? element.previousElementSibling.style.fill : behind(element);
            const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
            return [(a + 0.05) / (b + 0.05), element.tagName, element.textContent.trim().slice(0, 30)];
        });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_in_light_and_dark(browser: Any, run: wsol.Results, scheme: str) -> None:
    with opened(browser, run, scheme=scheme) as page:
        contrasts = page.evaluate(CONTRAST)
        assert len(contrasts) > 50
        assert [one for one in contrasts if one[0] < 4.5] == []


def test_dark_follows_the_system_and_the_button(browser: Any, run: wsol.Results) -> None:
    def paper(page: Any) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    with opened(browser, run, scheme="dark") as page:
        dark = paper(page)
        page.click("#theme")
        assert paper(page) == "rgb(255, 255, 255)" != dark
        page.click("#theme")
        assert paper(page) == dark
        page.emulate_media(media="print")
        assert paper(page) == "rgb(255, 255, 255)"
        assert page.locator(".bar").is_hidden()


@pytest.mark.parametrize("width", [1400, 1024, 390])
@pytest.mark.parametrize("name", ["report.html", "compare.html"])
def test_nothing_is_wider_than_its_place(
    browser: Any, run: wsol.Results, tmp_path: Path, name: str, width: int
) -> None:
    folder = Path(str(run.run_dir))
    if name == "compare.html":
        write_comparison(compare([folder], resamples=50), tmp_path)
        folder = tmp_path
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto((folder / name).as_uri())
    page.wait_for_selector(".chart svg")
    page.check(".show-intervals >> visible=true") if name == "report.html" else None
    wide = page.evaluate(
        """[...document.querySelectorAll("*")].filter((element) => !element.closest("head, option"))
            .filter((element) => element.checkVisibility() && element.clientWidth)
            .filter((element) => element.scrollWidth > element.clientWidth)
            .map((element) => element.outerHTML.slice(0, 80))"""
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes_of(page, "nav a"))
    assert all(box["x"] + box["width"] <= width for box in boxes_of(page, "#summary-0 tbody tr:first-child td.number"))
    if name == "report.html" and width == 390:  # four pictures in two rows
        x, y = (len({round(box[side]) for box in boxes_of(page, ".card:first-child figure")}) for side in "xy")
        assert (x, y) == (2, 2)
    context.close()


def boxes_of(page: Any, selector: str) -> list[dict[str, float]]:
    return [element.bounding_box() for element in page.locator(selector).all()]
