"""The report in a browser: nothing is loaded, nothing complains, nothing is wider than the screen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import reports

from peftune.experiments.compare.executors import Failure
from peftune.reporting import write_reports

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PHONE, DESKTOP = 375, 1280
_SCROLLS = "boxes => boxes.filter(one => one.scrollWidth > one.clientWidth + 1).length"

_OUTSIDE = """() => [...document.querySelectorAll("body *")]
    .filter(one => !one.closest("pre, .scroll, .unseen, .skip")
        && one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map(one => one.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give a headless browser of this machine."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright, which drives the browser, is not installed"
    )
    with playwright.sync_playwright() as driver:
        # Without its sandbox Chromium also starts as root, as in containers; the page is our own.
        opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the page of a comparison."""
    failures = [Failure("lora", 2, "Out of memory: 2 GiB asked for.")]
    return write_reports(*reports.comparison(), failures, tmp_path_factory.mktemp("report")).page


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the page of a comparison with 77 labels, and of a strategy with a long name."""
    found = reports.comparison(reports.label_names(77))
    summary, evidence = reports.renamed(found, {"lora": "lora-r64-all-layers-with-kl-to-base"})
    return write_reports(summary, evidence, [], tmp_path_factory.mktemp("many")).page


@pytest.fixture(scope="module")
def dozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the page of a run with as many labels as a matrix takes."""
    run = reports.evidence("lora", 0, reports.label_names(12))
    return write_reports(None, [run], [], tmp_path_factory.mktemp("dozen")).page


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the page of one run."""
    place = tmp_path_factory.mktemp("single")
    return write_reports(None, [reports.evidence("lora", 0)], [], place).page


def opened(browser: Browser, file: Path, *, width: int = DESKTOP, scheme: Any = "light") -> Page:  # noqa: ANN401 - playwright's literal
    """Open a page on a screen."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(file.as_uri())
    return page


@pytest.mark.parametrize("name", ["report", "single"])
def test_the_page_loads_itself_alone_and_nothing_complains(
    browser: Browser, name: str, request: pytest.FixtureRequest
) -> None:
    """One request, for the file; no message on the console, no error."""
    file: Path = request.getfixturevalue(name)
    page = browser.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.on("console", lambda one: said.append(one.text))
    page.on("pageerror", lambda one: said.append(str(one)))
    page.goto(file.as_uri())
    page.wait_for_load_state("networkidle")

    assert asked == [file.as_uri()]
    assert said == []


@pytest.mark.parametrize("name", ["report", "single", "dozen", "many"])
@pytest.mark.parametrize("width", [PHONE, 390, DESKTOP])
def test_nothing_is_wider_than_the_screen(
    browser: Browser, name: str, width: int, request: pytest.FixtureRequest
) -> None:
    """With every part unfolded the page does not scroll sideways; wide tables do so by themselves."""
    page = opened(browser, request.getfixturevalue(name), width=width)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")

    assert page.evaluate("document.scrollingElement.scrollWidth") == width
    assert page.evaluate(_OUTSIDE) == []


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_main_table_and_its_pairs_are_seen_whole(
    browser: Browser, many: Path, width: int
) -> None:
    """A long name pushes no figure off the screen and covers none; on a phone a row is a card."""
    page = opened(browser, many, width=width)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    boxes = page.locator(
        "#strategies .scroll, #baselines .scroll, #matched .scroll, #confusion .scroll, #mistakes .scroll"
    )

    assert boxes.evaluate_all(_SCROLLS) == 0
    name, figure = page.locator("#strategies tbody tr").nth(1).locator("> *").all()[:2]
    left, right = name.bounding_box(), figure.bounding_box()
    assert left
    assert right
    if width == PHONE:
        assert left["y"] + left["height"] <= right["y"]
    else:
        assert left["x"] + left["width"] <= right["x"]
        assert name.evaluate("one => one.scrollWidth <= one.clientWidth + 1")


def test_a_matrix_of_twelve_labels_is_read_at_once_or_scrolls_beside_its_names(
    browser: Browser, dozen: Path
) -> None:
    """A wide screen has room for it; on a phone the true labels stay where they are."""
    wide = opened(browser, dozen).locator("#confusion .scroll").first
    phone = opened(browser, dozen, width=PHONE).locator("#confusion .scroll").first
    name = phone.locator("tbody th").first
    before = name.bounding_box()
    phone.evaluate("one => one.scrollLeft = 200")

    assert wide.evaluate("one => one.scrollWidth <= one.clientWidth")
    assert phone.evaluate("one => one.scrollWidth > one.clientWidth && one.scrollLeft") == 200
    assert name.bounding_box() == before


def test_plots_and_tables_are_seen(browser: Browser, report: Path) -> None:
    """Each has a size on the screen; letters of plots are no smaller than 9 pixels on a phone."""
    page = opened(browser, report, width=PHONE)
    plots = page.locator(".plot svg").all()
    sizes = page.evaluate(
        "[...document.querySelectorAll('.plot text')].map(one => one.getBoundingClientRect())"
        ".map(box => Math.min(box.width, box.height)).filter(size => size > 0)"
    )

    assert len(plots) == 12
    assert all(plot.bounding_box()["height"] > 100 for plot in plots)  # type: ignore[index]
    assert page.locator("#strategies table").first.is_visible()
    assert min(sizes) >= 5  # the height of a figure 1 turned sideways is its width
    fonts = page.evaluate(
        "[...document.querySelectorAll('.plot text')].map(one =>"
        " parseFloat(getComputedStyle(one).fontSize) * one.getScreenCTM().d)"
    )
    assert min(abs(size) for size in fonts if size) >= 9


def test_both_schemes_color_letters_and_plots(browser: Browser, report: Path) -> None:
    """A dark screen has a dark ground and light letters, in plots too."""
    look = """one => { const style = getComputedStyle(one);
        return [getComputedStyle(document.body).backgroundColor, style.fill] }"""
    seen = {
        scheme: opened(browser, report, scheme=scheme)
        .locator("#calibration .plot text")
        .last.evaluate(look)
        for scheme in ("light", "dark")
    }

    assert seen["light"] == ["rgb(255, 255, 255)", "rgb(91, 97, 106)"]
    assert seen["dark"] == ["rgb(20, 22, 26)", "rgb(163, 169, 179)"]


def test_on_paper_folded_parts_are_open_and_the_page_is_light(
    browser: Browser, report: Path
) -> None:
    """What is folded on a screen cannot be opened on paper, so it is printed."""
    page = opened(browser, report, width=718, scheme="dark")
    row = page.get_by_text("paragraph", exact=False).first
    assert not row.is_visible()

    page.emulate_media(media="print")

    assert row.is_visible()
    assert not page.locator("nav").is_visible()
    body = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert body == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") == 718


@pytest.mark.slow
def test_the_page_can_be_read_with_a_keyboard(browser: Browser, report: Path) -> None:
    """The first stop leads past the links; wide tables can be reached, to scroll them."""
    page = opened(browser, report)
    page.keyboard.press("Tab")

    assert page.evaluate("document.activeElement.textContent") == "To the answer"
    assert page.locator(".scroll:not([tabindex='0'])").count() == 0
