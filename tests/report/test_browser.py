"""The page in a real browser, as people see it: on a phone and a desktop, light and dark."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright

from potstill.report import write_report

RESULTS = Path(__file__).parents[2] / "results"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
COST = {"macs": 1_300_000, "bytes": 246_000, "latency_ms": {"p50": 0.14, "p99": 0.2}, "throughput": 7e3, "threads": 1}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed here, as in: apt-get install chromium")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of one run with everything in it, of two, of a fit and of a table of the paper."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("demo", "HalfCheetah-v4", "fit-LunarLander", "losses"):
        shutil.copytree(RESULTS / name, folder / name)
    result = json.loads((folder / "demo" / "result.json").read_text())
    names = ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
    for policy in (*result["teachers"], *result["students"]):
        policy["cost"] = COST
    for student in result["students"]:
        student["tasks"][0]["video"] = "videos/both.mp4"
        student["tasks"][0]["agreement_by_action"] = [
            {"action": action, "name": name, "states": 1000, "agreed": 600 + 50 * action}
            for action, name in enumerate(names)
        ]
    (folder / "demo" / "result.json").write_text(json.dumps(result))
    film(folder / "demo" / "videos" / "both.mp4")
    one, both = folder / "demo", folder / "several.html"
    pages = {name: write_report(folder / name) for name in ("fit-LunarLander", "losses")}
    return {"one": write_report(one), "several": write_report(one, folder / "HalfCheetah-v4", out=both), **pages}


def film(path: Path) -> None:
    """A second of something that moves."""
    path.parent.mkdir()
    writer = imageio_ffmpeg.write_frames(str(path), (320, 160), fps=15, codec="libx264", ffmpeg_log_level="error")
    writer.send(None)
    for at in range(15):
        frame = np.full((160, 320, 3), 40, np.uint8)
        frame[:, 20 * at : 20 * at + 20] = 220
        writer.send(frame.tobytes())
    writer.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["one", "several"])
def test_the_page_is_right(browser, pages, name, size, scheme):
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(pages[name].as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width, "it scrolls sideways"
    assert page.locator("svg").count() >= 6
    for where in ("p.quiet", "td", "svg text", ".tile strong"):
        assert contrast(page, where) >= 4.5, where
    too_wide = "all => all.filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
    assert page.locator("svg, video, .tile, .wide, pre").evaluate_all(too_wide) == 0
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [pages[name].as_uri()]
    page.close()


@pytest.mark.parametrize("name", ["one", "several", "fit-LunarLander", "losses"])
def test_a_tables_first_scores_are_in_sight_on_a_phone_and_all_of_them_on_a_desktop(browser, pages, name):
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.goto(pages[name].as_uri())
    first = [table.get_by_text(re.compile("^(its )?score|share kept")).first for table in page.locator("table").all()]
    rights = [heading.evaluate("e => e.getBoundingClientRect().right") for heading in first if heading.count()]
    assert 0 < max(rights) <= 400
    page.set_viewport_size({"width": 1300, "height": 800})
    assert page.locator(".wide").evaluate_all("all => all.every(e => e.scrollWidth === e.clientWidth)")
    page.close()


def contrast(page, where: str) -> float:
    """Of a text with the page behind it (WCAG: 4.5 is enough for any size)."""
    of = "element => getComputedStyle(element)"
    text = page.locator(where).first.evaluate(f"element => ({of})(element).{'fill' if 'svg' in where else 'color'}")
    behind = page.locator("body").evaluate(f"element => ({of})(element).backgroundColor")
    lighter, darker = sorted(map(luminance, (text, behind)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """Of "rgb(r, g, b)"."""
    shares = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_the_video_plays(browser, pages):
    page = browser.new_page()
    page.goto(pages["one"].as_uri())
    if not page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.42E01E\"')"):
        pytest.skip("this Chromium has no H.264")
    video = page.locator("video").first
    video.scroll_into_view_if_needed()
    # Playwright's wait_for_function would evaluate a string in the page, whose policy forbids it.
    video.evaluate(
        "video => new Promise(plays => { video.ontimeupdate = () => video.currentTime && plays(); video.play() })"
    )
    assert video.evaluate("video => [video.videoWidth, video.videoHeight]") == [320, 160]
    page.close()


def test_a_name_that_would_be_a_script_is_shown_as_it_is(browser, tmp_path):
    shutil.copytree(RESULTS / "demo", tmp_path / "run")
    bad = "</text><script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for policy in (*result["teachers"], *result["students"]):
        policy["name"] = bad
    result["teachers"][0]["task"] = result["command"][1] = bad
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    page, requests = browser.new_page(), []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(write_report(tmp_path / "run").as_uri())
    assert page.title() == f"{bad} distilled"
    assert page.locator("script, img").count() == 0
    assert len(requests) == 1
    page.close()
