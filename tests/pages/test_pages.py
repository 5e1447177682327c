"""The report and the study page in headless Chromium: Debian's, or whatever `chromium` is on the PATH."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from actors.storage import Storage
from pipeline.report import write_report
from pipeline.study import make_study
from pipeline.study_votes import collect
from schemas.identity import media_path
from schemas.review_run import StudyRun
from schemas.sweep import Sweep
from tests.support.outputs import HOSTILE, ok_record, write_output, write_records, write_sweep

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt install chromium)"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Opens a local file in a new page; whatever the page complains about fails the test."""
    contexts, complaints = [], []

    def open_page(file: Path, fragment: str = "", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("request", lambda request: complaints.append(request.url) if "://" in request.url
                and not request.url.startswith(("file:", "data:", "blob:")) else None)  # fmt: skip
        page.goto(f"file://{file}{fragment}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "out"
    records = write_output(folder, 60, styles=3)
    hostile = ok_record(HOSTILE, HOSTILE, records[0]["style_image_uri"], status="failed", error_class="non_finite",
                        error=HOSTILE, video_uri=None, timings=None, node=HOSTILE, meta=HOSTILE)  # fmt: skip
    write_records(folder, [*records, hostile])
    return Path(write_report(Storage(), str(folder)))


def until(page: Any, expression: str, timeout_s: float = 15.0) -> None:
    """Waits for JavaScript to be true. Playwright's own wait evaluates text in the page, which its policy forbids."""
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def found(page: Any) -> str:
    return page.text_content("#count")


def test_videos_play_and_text_is_never_carried_out(visit: Any, report: Path) -> None:
    page = visit(report)
    until(page, "document.querySelectorAll('#list li').length === 24")
    page.locator("#list video").first.scroll_into_view_if_needed()
    until(page, "document.querySelector('#list video').currentTime > 0")
    assert page.evaluate("document.querySelector('#list video').videoWidth") == 96
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("window.broken") is None
    page.click("#motion")
    until(page, "[...document.querySelectorAll('#list video')].every((video) => video.paused)")


def test_images_are_shown_as_pictures(visit: Any, tmp_path: Path) -> None:
    records = [one for one in write_output(tmp_path / "out", 4, styles=2) if one["status"] == "ok"]
    for record in records[:2]:
        file = tmp_path / "out" / media_path(record["row_key"], "png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (90, 60), "teal").save(file)
        record |= {
            "mode": "image",
            "num_frames": 1,
            "clip_temp": None,
            "video_uri": str(file),
            "duration_s": None,
        }
    write_records(tmp_path / "out", records)
    page = visit(Path(write_report(Storage(), str(tmp_path / "out"))))
    page.locator(".card").first.scroll_into_view_if_needed()
    until(page, "document.querySelector('#list img[alt^=Image]')?.naturalWidth === 90")
    assert page.locator("#list video").count() == len(records) - 2
    page.click("#motion")  # a picture has no motion to stop
    page.evaluate("document.querySelectorAll('#list img[alt^=Image]')[1].dispatchEvent(new Event('error'))")
    assert page.locator("#list a").text_content() == "image not reachable from here"
    page.locator("button.prompt").first.click()
    until(page, "document.querySelector('#detail img[alt^=Image]')?.naturalWidth === 90")


def test_filters_order_pages_and_views(visit: Any, report: Path) -> None:
    page = visit(report)
    assert found(page) == "61 of 61 rows"
    page.fill("#q", "wolf forest")
    until(page, "document.getElementById('count').textContent === '12 of 61 rows'")
    page.click("button[type=reset]")
    page.select_option("#status", "failed")
    until(page, "document.getElementById('count').textContent === '3 of 61 rows'")
    page.click("button[type=reset]")
    until(page, "document.getElementById('count').textContent === '61 of 61 rows'")
    page.select_option("#order", "clip_style:up")
    page.click("#as-table")
    page.wait_for_selector("#list tbody tr")
    values = [float(text) for text in page.locator("#list tbody tr td:nth-child(5)").all_text_contents()]
    assert len(values) == 24
    assert values == sorted(values)
    page.click("#next")
    assert page.text_content("#where") == "Page 2 of 3"
    page.select_option("#score", "clip_style")
    page.fill("#high", str(values[4]))
    until(page, "document.querySelectorAll('#list tbody tr').length <= 6")
    assert "high=" in page.evaluate("location.hash")
    page.click("[data-show-error='invalid_row']")
    until(page, "document.getElementById('count').textContent === '1 of 61 rows'")


def test_an_address_keeps_the_filters(visit: Any, report: Path) -> None:
    page = visit(report, "#rows?error=non_finite&view=table")
    until(page, "document.getElementById('count').textContent === '2 of 61 rows'")
    assert page.locator("#list tbody tr").count() == 2
    assert HOSTILE in page.locator("#list tbody tr").last.text_content()
    assert page.evaluate("window.broken") is None


def test_a_row_opens_and_closes_with_the_keyboard(visit: Any, report: Path) -> None:
    page = visit(report)
    page.locator("button.prompt").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert "row-00000" in page.text_content("#detail-title")
    until(page, "document.querySelector('#detail video').currentTime > 0")
    assert page.locator("#detail a").first.get_attribute("href").startswith("../")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="hidden")
    assert page.evaluate("document.activeElement.className") == "prompt"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_all_without_scrolling_sideways(visit: Any, report: Path, scheme: str) -> None:
    page = visit(report, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page.wait_for_selector("#list li")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.click("#as-table")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(247, 246, 242)" if scheme == "light" else "rgb(22, 21, 20)")


def test_landmarks_labels_and_reduced_motion(visit: Any, report: Path) -> None:
    page = visit(report, reduced_motion="reduce")
    assert page.locator("main, nav, header.top, footer").count() == 4
    unlabelled = (
        "[...document.querySelectorAll('input, select')].filter((field) => !field.labels.length).length"
    )
    assert page.evaluate(unlabelled) == 0
    page.locator("#list video").first.scroll_into_view_if_needed()
    until(page, "document.querySelector('#list video').src !== ''")
    assert page.evaluate("[...document.querySelectorAll('video')].every((video) => video.paused)")


def test_five_thousand_rows_open_in_three_seconds_and_ten_megabytes(visit: Any, tmp_path: Path) -> None:
    write_output(tmp_path / "out", 5000, styles=20, videos=1)
    file = Path(write_report(Storage(), str(tmp_path / "out")))
    assert file.stat().st_size < 10 * 10**6
    started = time.monotonic()
    page = visit(file)
    page.wait_for_selector("#list li")
    assert time.monotonic() - started < 3
    page.fill("#q", "take 4321")
    until(page, "document.getElementById('count').textContent === '1 of 5000 rows'")


def test_a_sweep_is_shown_side_by_side(visit: Any, tmp_path: Path) -> None:
    sweep = Sweep(style_scale=(0.5, 1), text_guidance_scale=(7.5, 15), scheduler=("ddim", "unipc"))
    write_sweep(tmp_path / "out", sweep, rows=3, styles=2)
    page = visit(Path(write_report(Storage(), str(tmp_path / "out"))), viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("#sweep-grid td video, #sweep-grid td .none").count() == 4
    headings = page.locator("#sweep-grid thead th").all_text_contents()
    assert headings == ["text_guidance_scale 7.5", "text_guidance_scale 15.0"]
    page.locator("#sweep-grid video").first.scroll_into_view_if_needed()
    until(page, "document.querySelector('#sweep-grid video').currentTime > 0")
    page.select_option("#sweep-scheduler", label="unipc")
    page.select_option("#sweep-row", "1")
    page.locator("#sweep-grid td button").last.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    title = page.text_content("#detail-title")
    assert "scheduler=unipc, style_scale=1.0, text_guidance_scale=15.0" in title
    page.keyboard.press("Escape")
    page.fill("#q", "scheduler=ddim")
    until(page, "document.getElementById('count').textContent === '12 of 24 rows'")
    page.locator("#sweep-grid video").first.scroll_into_view_if_needed()
    until(page, "!document.querySelector('#sweep-grid video').paused")  # the filter left these alone
    page.click("#motion")
    until(page, "[...document.querySelectorAll('video')].every((video) => video.paused)")


def test_a_rater_votes_with_the_keyboard_and_goes_on_after_a_reload(visit: Any, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 7)):
        write_output(tmp_path / name, 6, styles=2, videos=2, seed=seed)
    outputs = (str(tmp_path / "a"), str(tmp_path / "b"))
    make_study(StudyRun(outputs=outputs, study=str(tmp_path / "study"), pairs=3), Storage())
    page = visit(tmp_path / "study" / "study.html", accept_downloads=True)
    page.fill("#name", "Ada")
    page.click("#start")
    until(page, "[...document.querySelectorAll('#pair video')].every((video) => video.currentTime > 0)")
    for key in ("1", "ArrowRight", "0", "Backspace", "ArrowDown"):
        page.keyboard.press(key)
    assert page.text_content("#progress") == "Pair 2 of 3"
    page.reload()
    assert page.text_content("#start") == "Go on"
    page.click("#start")
    assert page.text_content("#progress") == "Pair 2 of 3"
    for _ in range(6):
        page.keyboard.press("2")
    page.wait_for_selector("#end:not([hidden])")
    assert page.text_content("#said") == "You answered 9 of 9 questions."
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "votes.json")
    ballot = json.loads((tmp_path / "votes.json").read_text())
    assert (ballot["name"], len(ballot["votes"])) == ("Ada", 9)
    assert [vote["choice"] for vote in ballot["votes"]].count("same") == 1
    flipped_right = [vote for vote in ballot["votes"][3:] if vote["flipped"]]
    assert all(vote["choice"] == "first" for vote in flipped_right)
    result = collect(
        StudyRun(study=str(tmp_path / "study"), collect=(str(tmp_path / "votes.json"),)), Storage()
    )
    assert (result.raters, result.votes) == (1, 9)


def test_the_study_fits_a_phone(visit: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_output(tmp_path / name, 4, styles=2, videos=1)
    outputs = (str(tmp_path / "a"), str(tmp_path / "b"))
    make_study(StudyRun(outputs=outputs, study=str(tmp_path / "study"), pairs=2), Storage())
    page = visit(tmp_path / "study" / "study.html", viewport={"width": 360, "height": 740})
    page.click("#start")
    page.wait_for_selector("#pair video")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
