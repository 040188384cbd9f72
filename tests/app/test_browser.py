"""The page as a person uses it, in Chromium without a display.

Screenshots are kept in the folder that pytest's --basetemp names, one for each step.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import blob
from .files import NAN, Trap, npy, ply, png

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120  # seconds; the machines share their cores
# The server, watched: what it connects to and looks up.
SERVER = """
import sys
reached = open(sys.argv.pop(1), "a", buffering=1)
def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        reached.write(f"{arguments[1][0]}\\n")
    elif event == "socket.sendto" and isinstance(arguments[1], tuple):
        reached.write(f"{arguments[1][0]}\\n")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        reached.write(f"{arguments[0]}\\n")
sys.addaudithook(watch)
from pointcluster.app.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def server(chromium, tmp_path_factory, picture_weights, cloud_weights, scene_weights):
    """The program as a user starts it: its address, and what it reached until it ended."""
    folder = tmp_path_factory.mktemp("server")
    reached, temporary = folder / "reached", folder / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-c", SERVER, str(reached), "--max-size", "2", "--checkpoint"]
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [*command, str(cloud_weights), str(picture_weights), str(scene_weights)],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    ready = select.select([process.stdout], [], [], 600)[0]
    line = process.stdout.readline() if ready else ""
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    if not found:
        process.kill()
        pytest.fail(f"the app did not start: {line} {(folder / 'errors').read_text()}")
    yield found[0]
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stdout.close()
    outside = set(reached.read_text().split()) - {
        "127.0.0.1",
        "::1",
        "localhost",
        "0.0.0.0",
        "None",
    }
    assert not outside, f"the app reached {outside}"
    assert not list(temporary.iterdir()), "files were left behind"
    said = (folder / "errors").read_text()
    assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def driver(chromium, tmp_path_factory):
    from selenium import webdriver

    folder = tmp_path_factory.mktemp("chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium[0]
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
        "--window-size=1360,1240", f"--user-data-dir={folder / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):  # fmt: skip
        options.add_argument(argument)
    downloads = folder / "downloads"
    downloads.mkdir()
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=chromium[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SE_OFFLINE", "true")  # selenium looks nothing up
        started = webdriver.Chrome(options=options, service=service)
    started.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)}
    )
    started.downloads = downloads
    yield started
    started.quit()


class Page:
    """What a person does with the page, and what they see."""

    def __init__(self, driver, address, pictures):
        self.driver, self.pictures = driver, pictures
        driver.get(address)
        self.until(lambda: self.picture())

    def until(self, condition, what="the page did not follow"):
        """Wait for something to become true."""
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                if found := condition():
                    return found
            except (KeyError, TypeError, WebDriverException):  # not there yet
                pass
            time.sleep(0.1)
        self.shot("failed")
        raise AssertionError(what)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def text(self, selector):
        return self.find(selector).text

    def picture(self, side="a"):
        """What is drawn: its title, the kind of its points, and all its data as text."""
        found = self.driver.execute_script(
            "const plot = document.querySelector(arguments[0]);"
            "return plot && plot.data && plot.layout ? [plot.layout.title.text,"
            " plot.data.map((each) => each.type), JSON.stringify(plot.data)] : null",
            f"#plot_{side} .js-plotly-plot",
        )
        return found and tuple(found[:1]) + (tuple(found[1]), found[2])

    def open(self, name):
        """Open a list, which does not open by itself where it is in focus already."""
        box = self.find(f"#{name} input")
        self.driver.execute_script("document.activeElement.blur()")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
        box.click()
        return box

    def entries(self, name):
        """The entries of an open list, and what they say."""
        found = self.driver.find_elements("css selector", f"#{name} [role=option]")
        return {each.get_attribute("textContent").strip(" ✓\n\t"): each for each in found}

    def choose(self, name, value):
        """Choose in a list, as with the mouse."""
        self.open(name)
        self.until(lambda: self.entries(name)[str(value)].is_displayed())
        self.until(lambda: self.entries(name)[str(value)].click() or True)
        self.until(lambda: self.value(name) == str(value))

    def options(self, name):
        """What a list offers."""
        box = self.find(f"#{name} input")
        if not box.is_enabled() or not self.driver.find_elements("css selector", f"#{name} svg"):
            return [box.get_attribute("value")]
        self.open(name)
        found = list(self.until(lambda: self.entries(name)))
        box.send_keys("\ue00c")  # Escape
        self.until(lambda: not self.entries(name))
        return found

    def value(self, name):
        return self.find(f"#{name} input").get_attribute("value")

    def upload(self, path, name="upload"):
        # A part that was folded comes a moment after it is opened.
        self.until(lambda: self.find(f"#{name} input[type=file]")).send_keys(str(path))

    def message(self):
        """The message beside the page, then closed."""
        text = self.until(lambda: self.text(".toast-body"), "there was no message")

        def closed():
            for button in self.driver.find_elements("css selector", ".toast-body .toast-close"):
                button.click()
            return not self.driver.find_elements("css selector", ".toast-body")

        self.until(closed)
        return text

    def click_cloud(self):
        """Click around the middle of the figure until a point is hit, and tell its number."""
        from selenium.webdriver import ActionChains

        plot = self.find("#plot_a .js-plotly-plot")
        size = plot.size
        for step in range(60):  # a spiral
            angle, away = 0.9 * step, 2.0 * step
            x = int(min(away * np.cos(angle), size["width"] / 2 - 9))
            y = int(min(away * np.sin(angle), size["height"] / 2 - 9))
            # The press must last until the next frame is drawn.
            mouse = ActionChains(self.driver).move_to_element_with_offset(plot, x, y).pause(0.2)
            mouse.click_and_hold().pause(0.5).release().perform()
            if number := self.value("point"):
                return number
        raise AssertionError("no click on the cloud was answered")

    def fills(self):
        """The part of the figure's width or height that is drawn upon, whichever is larger."""
        plot = self.find("#plot_a .js-plotly-plot")
        image = Image.open(io.BytesIO(plot.screenshot_as_png)).convert("L")
        drawn = np.asarray(image)[40:-40] < 235  # between title and legend
        rows, columns = (np.flatnonzero(drawn.any(axis=axis)) for axis in (1, 0))
        high, wide = drawn.shape
        return max((rows[-1] - rows[0]) / high, (columns[-1] - columns[0]) / wide)

    def download(self, suffix):
        """Press the button, and wait for a new file."""
        before = set(self.driver.downloads.iterdir())
        self.find("#download").click()

        def new():
            found = set(self.driver.downloads.iterdir()) - before
            return [path for path in found if path.suffix == suffix and path.stat().st_size > 500]

        return self.until(new)[0]

    def shot(self, name):
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(self.pictures / f"{name}.png"))


@pytest.fixture
def page(driver, server, tmp_path_factory):
    pictures = tmp_path_factory.getbasetemp() / "screenshots"
    opened = Page(driver, server, pictures)
    driver.get_log("browser")  # what the page before it said as it was left
    yield opened
    wrong = [
        entry["message"]
        for entry in driver.get_log("browser")
        # An upload is deleted as soon as it was read, and gradio may ask for it once more; of one
        # that is too large its script also notes the answer.
        if entry["level"] == "SEVERE"
        and not re.match(
            r"http://127\.0\.0\.1:(\S+ - Failed to load resource|\S+ \S+ Response$)",
            entry["message"],
        )
    ]
    assert not wrong, wrong


pytestmark = pytest.mark.slow


def test_something_is_there_at_once_and_every_choice_changes_the_picture(page):
    _, kinds, first = page.picture()
    assert page.fills() > 0.75
    assert kinds[0] == "scatter3d" and page.text("#title") == "chair (HomeObjects)"
    assert "%" in page.text("#classes")
    page.shot("start")
    seen = {first}
    for name in ("stage_a", "block_a", "head_a"):
        there = page.options(name)
        if len(there) < 2:
            continue
        other = next(each for each in there if each != page.value(name))
        before = page.picture()[2]
        page.choose(name, other)
        now = page.until(lambda: (p := page.picture())[2] != before and p)  # noqa: B023
        assert f"{name.split('_')[0]} {other}" in now[0]
        seen.add(now[2])
    assert len(seen) >= 3
    page.shot("moved")
    # A stage of fewer blocks and heads leaves none to choose that it does not have.
    stages = page.options("stage_a")
    for stage in stages:
        page.choose("stage_a", stage)
        page.until(lambda: f"stage {stage}," in page.picture()[0])  # noqa: B023
        assert page.value("block_a") in page.options("block_a")


def test_a_picture_and_a_scan_are_uploaded(page, tmp_path):
    photo, scan, mesh = tmp_path / "photo.png", tmp_path / "scan.npy", tmp_path / "scan.ply"
    photo.write_bytes(png(90, 60))
    np.save(scan, blob(5, 600))
    mesh.write_bytes(ply(blob(6, 400).tolist()))
    page.upload(photo)
    page.until(lambda: page.text("#title") == "photo.png")
    _, _, drawn = page.until(lambda: (p := page.picture()) and "heatmap" in p[1] and p)
    assert page.value("network") == "hats" and "hat" in page.text("#classes")
    assert "photo.png is a picture" in page.message()
    page.shot("picture")
    page.choose("stage_a", 1)
    page.until(lambda: page.picture()[2] != drawn)
    page.upload(scan)
    page.until(lambda: page.text("#title") == "scan.npy")
    page.until(lambda: "scatter3d" in page.picture()[1])
    assert page.value("network") == "blobs"
    page.message()
    page.shot("scan")
    before = page.picture()[2]
    page.upload(mesh)
    page.until(lambda: page.text("#title") == "scan.ply" and page.picture()[2] != before)
    page.choose("up", "x")
    now = page.picture()[2]
    page.until(lambda: page.picture()[2] != now)
    page.choose("size", 256)
    page.until(lambda: json.loads(page.picture()[2])[0]["customdata"])
    page.until(lambda: page.find("#upload input[type=file]"))


BROKEN = {
    "empty.png": (b"", "is empty|Empty|empty"),
    "broken.png": (png()[:-200], "damaged"),
    "picture.ply": (png(), "damaged"),
    "nan.npy": (npy(NAN), "NaN"),
    "pickle.npy": (npy(np.array([Trap()], dtype=object)), "refused"),
    "three.ply": (ply(blob()[:3].tolist()), "3 points"),
    "broken.las": (b"LASF" + bytes(400), "damaged"),
    "large.xyz": (b"0 0 0\n" * 400_000, "size|large|MB"),
}


def test_a_broken_upload_gets_a_message_and_the_page_goes_on(page, tmp_path):
    for number, (name, (content, expected)) in enumerate(BROKEN.items()):
        before = page.picture()
        path = tmp_path / name
        path.write_bytes(content)
        page.until(lambda: page.find("#upload input[type=file]"))
        page.upload(path)
        said = page.message()
        assert re.search(expected, said) and "Traceback" not in said and str(tmp_path) not in said
        assert page.picture() == before
        page.shot(f"broken-{path.stem}")
        if number % 3 == 2 or name == "large.xyz":
            good = tmp_path / f"good{number}.npy"
            np.save(good, blob(8 + number, 500))
            page.until(lambda: page.find("#upload input[type=file]"))
            page.upload(good)
            page.until(lambda g=good: page.text("#title") == g.name)


def test_points_are_clicked_and_blocks_compared(page, tmp_path):
    from selenium.webdriver import ActionChains

    photo = tmp_path / "photo.png"
    photo.write_bytes(png(64, 64))
    page.upload(photo)
    page.until(lambda: "heatmap" in page.picture()[1])
    page.message()
    before = page.picture()[2]
    plot = page.find("#plot_a .js-plotly-plot")
    ActionChains(page.driver).move_to_element(plot).pause(0.5).perform()
    hover = page.until(lambda: page.text("#plot_a .hoverlayer"))
    assert re.search(r"point \d+.*cluster \d+.*similarity 0\.\d+.*centre at row", hover, re.DOTALL)
    ActionChains(page.driver).move_to_element(plot).click().perform()
    number = page.until(lambda: page.value("point"))
    page.until(lambda: f"Point {int(number):,}" in page.text("#words_a"))
    page.until(lambda: page.picture()[2] != before)
    assert re.search(r"Cluster \d+.*\nSimilarity 0\.\d+\nCentre at row", page.text("#words_a"))
    page.shot("point")
    page.find("#compare input").click()
    page.until(lambda: page.picture("b"))
    assert page.picture("b")[0] != page.picture("a")[0]
    page.until(lambda: "Point" in page.text("#words_b"))
    for side in "ab":  # both fit into their halves
        inner, outer = f"#plot_{side} .main-svg", f"#plot_{side}"
        page.until(
            lambda i=inner, o=outer: page.find(i).size["width"] <= page.find(o).size["width"]
        )
    page.shot("compare")
    before = page.picture("b")[2]
    page.choose("stage_b", 0)
    page.until(lambda: page.picture("b")[2] != before)
    before = page.picture("a")[2]
    slider = page.find("#opacity input[type=range]")
    slider.send_keys("\ue012" * 6)  # to the left
    page.until(lambda: page.picture("a")[2] != before)
    page.find("#point input, #point textarea").send_keys("999999")
    assert "there is no point" in page.message()


def test_a_point_of_a_cloud_is_clicked(page):
    number = page.click_cloud()
    page.until(lambda: f"Point {int(number):,}" in page.text("#words_a"))
    page.shot("cloud-point")


def test_what_is_shown_is_downloaded(page):
    begins = {".png": b"\x89PNG", ".html": b"<", ".ply": b"ply"}
    if importlib.util.find_spec("open3d") is None:  # which writes these files
        del begins[".ply"]
    for suffix, begin in begins.items():
        if suffix != ".png":
            page.choose("format", suffix)
        found = page.download(suffix)
        assert found.read_bytes().startswith(begin) and "stage" in found.name


def test_a_survey_is_labelled_coloured_clicked_and_downloaded(page, las):
    laspy = pytest.importorskip("laspy")
    page.upload(las)
    assert "land.las is a scene" in page.message()
    page.until(lambda: page.text("#title") == "land.las")
    _, kinds, _ = page.until(lambda: (p := page.picture())[0] == "class" and p)
    assert page.value("network") == "land" and set(kinds) == {"scatter3d"}
    assert "high vegetation" in page.text("#classes")
    legend = page.until(lambda: page.text("#plot_a .legend"))
    assert "high vegetation" in legend or "other" in legend
    page.shot("scene")
    assert page.fills() > 0.75
    for colour, title in (("probability", "probability of other"), ("clusters", "stage 1, block")):
        page.choose("colour_a", colour)
        page.until(lambda t=title: page.picture()[0].startswith(t))
        page.shot(f"scene-{colour}")
    page.choose("stage_a", 0)
    page.until(lambda: page.picture()[0].startswith("stage 0"))
    number = page.click_cloud()
    page.until(lambda: f"Point {int(number):,}" in page.text("#words_a"))
    said = page.text("#words_a")
    assert "m above the ground" in said and "Cluster" in said
    page.shot("scene-point")
    found = page.download(".las")
    before, after = laspy.read(las), laspy.read(found)
    assert found.name == "land-labelled.las" and set(after.classification) <= {1, 2, 5}
    assert (after.gps_time == before.gps_time).all() and (after.X == before.X).all()


def test_two_windows_are_two_users(page, server, tmp_path):
    photo = tmp_path / "mine.png"
    photo.write_bytes(png(50, 40))
    page.upload(photo)
    page.until(lambda: page.text("#title") == "mine.png")
    page.message()
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("window")
    try:
        other = Page(page.driver, server, page.pictures)
        assert other.text("#title") == "chair (HomeObjects)"
        before = other.picture()[2]
        other.choose("stage_a", 0)
        other.until(lambda: other.picture()[2] != before)
    finally:
        page.driver.close()
        page.driver.switch_to.window(first)
    assert page.text("#title") == "mine.png" and "heatmap" in page.picture()[1]
    before = page.picture()[2]
    page.choose("stage_a", 1)
    page.until(lambda: page.picture()[2] != before)
    assert "heatmap" in page.picture()[1]


def test_a_network_of_ones_own_is_opened(page, tmp_path, picture_weights):
    note = picture_weights.with_suffix(".json")
    page.find("#yours button").click()
    page.upload(f"{picture_weights}\n{note}", "checkpoint")
    page.until(lambda: page.value("network") == "yours: hats.safetensors")
    page.until(lambda: "heatmap" in page.picture()[1])
    assert page.options("network")[0] == "yours: hats.safetensors"
    page.shot("own-network")
