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
from tests.report.conftest import COUNT, HOSTILE, METHODS
from wsol.heatmaps.store import HeatmapStore

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
def opened(browser: Any, run: wsol.Results, width: int = 1200, scheme: str = "light") -> Iterator[Any]:
    """The run's page in a window of its own; what its console says and what it asks for from outside are faults."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, faults = context.new_page(), []
    page.on("console", lambda said: faults.append(f"{said.type}: {said.text}"))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("request", lambda request: faults.append(request.url) if outside(request.url) else None)
    try:
        page.goto((Path(str(run.run_dir)) / "report.html").as_uri())
        page.wait_for_selector("#gallery[data-ready]")
        yield page
    finally:
        context.close()
    assert faults == []


def outside(address: str) -> bool:
    return not address.startswith(("file:", "data:"))


def move_to(page: Any, tau: float) -> None:
    """Drag the slider to a τ of the grid of 1,000, and draw every card, seen or not, with its picture."""
    page.evaluate(
        """async (step) => {
            await Promise.all(wsol.gallery.cards.map((card) => card.sample.ready));
            const slider = document.querySelector('[data-control="threshold"]');
            slider.value = step;
            slider.dispatchEvent(new Event("input"));
            wsol.gallery.redraw();
            for (const card of wsol.gallery.cards) wsol.gallery.draw(card);
        }""",
        round(1000 * tau),
    )


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
        move_to(page, tau)
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


def test_tables_sort(page: Any, run: wsol.Results) -> None:
    column = texts(page, "#summary-table th").index(
        next(t for t in texts(page, "#summary-table th") if "GT-known" in t)
    )
    head = page.locator("#summary-table th").nth(column)
    for order, descending in (("descending", True), ("ascending", False)):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == order
        cells = page.locator(f"#summary-table tbody tr td:nth-child({column + 1})")
        values = cells.evaluate_all("(cells) => cells.map((cell) => Number(cell.dataset.value))")
        assert values == sorted(run.summary["gt_known_loc"], reverse=descending)
    page.fill("#class-filter", "script")
    assert page.locator("#class-table tbody tr").count() == 1


def test_charts_follow_the_protocol_and_answer_the_pointer(page: Any, run: wsol.Results) -> None:
    figures = page.locator("#curves figure")
    assert figures.count() == 3
    assert figures.nth(1).locator("path").count() == len(METHODS)
    before = figures.nth(1).inner_html()
    page.select_option("#protocol", "zhou2016")
    assert page.locator("#curves figure").nth(1).inner_html() != before
    page.locator("#curves svg").nth(1).hover(position={"x": 150, "y": 80})
    said = page.locator("#curves .readout").nth(1).inner_text()
    assert re.match(r"τ 0\.\d{3}: cam \d+\.\d, gradcam \d+\.\d, center \d+\.\d", said)
    shares = run.metrics.query("metric.str.startswith('error_') and `class` == '' and method == 'cam'")
    wanted = shares[(shares["protocol"] == "zhou2016") & (shares["value"] > 20)]["value"]
    assert {f"{value:.1f}" for value in wanted} <= set(page.locator("#kinds text").all_text_contents())


def test_hostile_names_are_text(page: Any) -> None:
    assert page.evaluate("window.hacked") is None
    assert page.locator("#classes img, #gallery img, #gallery i:not([style]), h1 b").count() == 0
    assert set(texts(page, "#class-table td.name")) == set(HOSTILE)
    assert set(texts(page, ".card header strong")) == set(HOSTILE)
    assert "<i>00</i>.png" in page.inner_text(".card header span")
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


def test_a_phone_shows_everything_without_scrolling_sideways(browser: Any, run: wsol.Results) -> None:
    with opened(browser, run, width=390) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        wide = page.evaluate(
            """[...document.querySelectorAll("main *")]
                .filter((element) => !element.closest(".scroll, .hidden, pre, option") && element.checkVisibility())
                .filter((element) => element.getBoundingClientRect().right > 390.5)
                .map((element) => element.outerHTML.slice(0, 80))"""
        )
        assert wide == []
        assert page.locator('[data-control="threshold"]').bounding_box()["width"] > 150
