"""The page in headless Chromium: clicks, drags, drops, wrong files, slow networks."""

import io
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import midway
from midway.analysis.inputs import fit
from midway.analysis.perturbation import perturbation_heatmaps
from midway.analysis.tracking import track_points
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos
from midway.demo.app import Request, looker
from midway.demo.clips import THINGS, enlarged
from midway.demo.writer import Shown, write_page
from tests.demo.browser import Page, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FOLLOW = """
async (start) => {
  const { follow } = await import("./track.js");
  const frames = Array.from({ length: 5 }, (_, k) => ({ seconds: k / 4 }));
  const clip = { width: 8, height: 1, frames };
  const network = { window: 0, shortSide: 1, patch: 1, tokensAtOnce: 1 };
  const asked = [];
  // Everything moves by one patch a frame.
  const look = async (source, target, region, tokens, queries) => {
    asked.push([source, target, tokens[0]]);
    const heat = tokens.map((token) => {
      const map = new Float32Array(8).fill(-9);
      map[Math.max(0, Math.min(7, token + target - source))] = 1;
      return map;
    });
    return { heat, similarity: heat, descriptor: tokens.map((token) => [token]) };
  };
  let tracks;
  for await (tracks of follow(look, clip, [{ x: 3, y: 0 }], start, network));
  const [track] = tracks;
  return { asked, x: track.map((each) => each.x), sure: track.map((each) => each.confidence) };
}
"""


def png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def pair(size: int = 96) -> list[NDArray[np.uint8]]:
    """Two frames of a world that move by about a patch."""
    world = enlarged(THINGS, size // THINGS.height).build(3_000_001)
    return [world.frame(seconds).image for seconds in (0.0, 0.5)]


def files_of(images: list[NDArray[np.uint8]]) -> list[tuple[str, str, bytes]]:
    return [(f"{i}.png", "image/png", png(image)) for i, image in enumerate(images)]


@pytest.fixture
def served(browser: Any, tmp_path: Path, shown: Shown) -> Iterator[Page]:
    """A page whose server computes with a random network."""
    write_page(tmp_path, shown)
    with serving(tmp_path, looker(shown), shown) as server:
        page = Page(browser, server.address)
        page.says("with the server")
        yield page
        assert page.errors == []
        assert page.outside() == []
        page.context.close()


def test_the_page_computes_what_torch_computes_and_asks_nobody_else(browser: Any, tmp_path: Path):
    shown = Shown(
        name="synthetic-tiny", network=midway.load("synthetic-tiny"), level=1, compute="page"
    )
    write_page(tmp_path, shown)
    with serving(tmp_path, None, shown) as server:
        page = Page(browser, server.address)
        page.says("in your browser")
        # Larger than the network's input, so that both sides have to resize alike.
        images = pair(144)
        page.drop(*files_of(images))
        page.page.wait_for_selector("#source[aria-label*='0.png and 1.png']")
        assert page.page.locator("#to-time").inner_text() == "second"
        page.click(0.25, 0.6)
        page.settle()
        frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        check_heat(page, shown, frames)
        check_track(page, shown, frames)
        count_of_many_clicks(page)
        page.page.click("#clips button")
        page.page.wait_for_selector("#source[aria-label*='Toy']")
        page.settle()
        assert page.errors == []
        assert page.outside() == []
        paths = {address.removeprefix(server.address) for address in page.asked}
        assert {"network.onnx", "ort/onnxruntime.wasm.gz"} < paths
        assert not {path for path in paths if path.startswith("look")}
        page.context.close()


def check_heat(page: Page, shown: Shown, frames: torch.Tensor) -> None:
    fitted = fit(frames, shown.network)
    source, target = fitted.images.split(1)
    # The click at 0.25 and 0.6 is in column 1 and row 3 of 6 x 6 patches.
    want = perturbation_heatmaps(shown.network, source, target, level=1, tokens=[3 * 6 + 1])
    found = torch.tensor(page.result()["values"])
    torch.testing.assert_close(found, want[0, 0].flatten(), atol=1e-4, rtol=0)


def check_track(page: Page, shown: Shown, frames: torch.Tensor) -> None:
    page.view("track")
    page.says("1 point followed")
    page.click(0.7, 0.3)
    page.says("2 points followed")
    page.settle()
    found = page.result()["tracks"]
    starts = torch.tensor([[track[0]["x"], track[0]["y"]] for track in found])
    want = track_points(
        shown.network, frames, starts, torch.zeros(2, dtype=torch.long), method="heatmap", level=1
    )
    for i, track in enumerate(found):
        assert [track[1]["x"], track[1]["y"]] == pytest.approx(want.points[i, 1].tolist(), abs=1e-2)
        assert track[1]["confidence"] == pytest.approx(float(want.confidence[i, 1]), abs=1e-4)


def count_of_many_clicks(page: Page) -> None:
    """A hundred clicks at once are computed a few times: the first, some, and the last."""
    page.view("heat")
    page.settle()
    before = page.result()["asked"]
    page.page.evaluate(
        """() => {
          const canvas = document.getElementById("source");
          const box = canvas.getBoundingClientRect();
          canvas.setPointerCapture = () => {};
          for (let i = 0; i < 100; i++) {
            const share = (i + 0.5) / 100;
            const [x, y] = [box.left + share * box.width, box.top + share * box.height];
            canvas.dispatchEvent(new PointerEvent("pointerdown", { clientX: x, clientY: y }));
          }
        }"""
    )
    page.page.wait_for_selector("#source[aria-label*='point at 143, 143']")
    page.settle()
    assert page.result()["asked"] - before <= 3


def test_click_drag_keys_and_sliders_choose_patch_and_time(served: Page):
    page = served.page
    label = page.locator("#source")
    served.click(0.1, 0.1)
    served.settle()
    assert "point at 4, 4" in label.get_attribute("aria-label")
    first = served.result()["values"]
    box = label.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.1 * box["height"], steps=4)
    page.mouse.up()
    served.settle()
    assert "point at 43, 4" in label.get_attribute("aria-label")
    assert served.result()["values"] != first
    label.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    served.settle()
    # A patch is 48 / 4 pixels wide.
    assert "point at 31, 16" in label.get_attribute("aria-label")
    assert page.locator("#to").get_attribute("aria-valuetext") == "0.50 s"
    page.locator("#to").press("ArrowRight")
    assert page.locator("#to-time").inner_text() == "0.63 s"
    page.keyboard.press(",")
    page.keyboard.press(",")
    assert page.locator("#to-time").inner_text() == "0.38 s"
    served.settle()
    page.click("#play")
    assert page.locator("#play").inner_text() == "Pause"
    page.click("#play")
    assert page.locator("#play").inner_text() == "Play"


def test_each_view_describes_itself(served: Page):
    page = served.page
    for view, status, alt in (
        ("track", "1 point followed", "Tracks over the later frame of Toy: point 1"),
        ("flow", "nine in ten patches", "Flow of Toy as colours and arrows"),
        ("gates", "mean of 2 blocks", "Gates of Toy, from"),
        ("heat", "with the server", "Heat over the later frame of Toy: brightest"),
    ):
        served.view(view)
        served.settle()
        served.says(status)
        assert alt in page.locator("#target").get_attribute("aria-label")
        assert page.locator("#explains").inner_text()
    assert page.locator("#legend canvas").count() == 1


def test_a_track_goes_by_steps_of_half_a_second_in_both_directions(served: Page):
    found = served.page.evaluate(FOLLOW, 1)
    assert found["x"] == [2, 3, 4, 5, 6]
    assert found["sure"] == [1, 1, 1, 1, 1]
    # A look for the descriptors; then 1 to 2 and 3, 3 to 4, and back.
    assert found["asked"] == [[1, 1, 3], [1, 2, 3], [1, 3, 3], [3, 4, 5], [1, 0, 3]]


def test_a_dropped_video_is_read_in_the_browser(served: Page, tmp_path: Path):
    world = WorldConfig(height=48, width=64, num_frames=30)
    (path,) = write_videos(tmp_path / "videos", world, seeds=[0])
    served.drop((path.name, "video/mp4", path.read_bytes()))
    served.page.wait_for_selector(f"#source[aria-label*='{path.name}']")
    assert served.page.locator("#to").get_attribute("max") == "7"  # 1 s in steps of 1/8 s
    served.settle()
    assert served.result()["values"][0] is not None
    # 48 x 64 pixels become 32 x 40 (43 rounded): 4 x 5 patches, of the whole frame.
    assert len(served.result()["values"]) == 4 * 5


def test_files_that_cannot_be_shown_get_a_message_in_the_page(served: Page):
    first, second = files_of(pair(48))
    broken = b"no media"
    small = ("small.png", "image/png", png(np.zeros((16, 16, 3), np.uint8)))
    for files, message in (
        ([("notes.txt", "text/plain", broken)], "notes.txt is not a video that this browser"),
        ([("a.mp4", "video/mp4", broken)], "a.mp4 is not a video that this browser can play"),
        ([first], "0.png is one image; drop two images, or a video"),
        ([first, small], "The images differ in size: 48 × 48 and 16 × 16 pixels"),
        ([first, ("b.png", "image/png", broken)], "b.png cannot be read as an image"),
        ([first, second, small], "Drop one video, or two images"),
    ):
        served.drop(*files)
        served.complains(message)
    # The clip before is still there, and goes on.
    served.click(0.9, 0.9)
    served.settle()
    served.says("with the server")
    assert served.page.locator("#message").is_hidden()


def test_a_slow_network_says_so_and_a_busy_server_is_asked_again(
    browser: Any, tmp_path: Path, shown: Shown
):
    quick, release, asked = looker(shown), Event(), []

    def look(request: Request) -> dict[str, Any]:
        asked.append(request.tokens)
        release.wait(60)
        return quick(request)

    write_page(tmp_path, shown)
    with serving(tmp_path, look, shown) as server:
        page = Page(browser, server.address)
        page.says("Computing …")
        page.page.locator("#to").press("ArrowRight")  # the page goes on meanwhile
        assert page.page.locator("#to-time").inner_text() == "0.63 s"
        release.set()
        page.settle()
        page.says("with the server")
        for _ in range(8):
            server.queue.acquire()
        page.click(0.9, 0.9)
        page.says("Computing …")
        for _ in range(8):
            server.queue.release()
        page.says("with the server")
        page.context.close()


def test_a_network_that_fails_gives_a_message_in_the_page(
    browser: Any, tmp_path: Path, shown: Shown
):
    def look(request: Request) -> dict[str, Any]:
        raise RuntimeError("out of memory")

    write_page(tmp_path, shown)
    with serving(tmp_path, look, shown) as server:
        page = Page(browser, server.address)
        page.complains("the network failed (out of memory)")
    page.click(0.9, 0.9)
    page.complains("the server no longer answers")
    page.context.close()


def test_a_page_without_its_network_says_so(browser: Any, tmp_path: Path, shown: Shown):
    write_page(tmp_path, shown)
    description = tmp_path / "page.json"
    description.write_text(description.read_text().replace('"server"', '"page"'))
    with serving(tmp_path, None, shown) as server:
        page = Page(browser, server.address)
        page.complains("network.onnx is missing (404); write the page again")
        page.context.close()


def test_a_phone_needs_no_sideways_scrolling_and_the_dark_page_is_dark(
    browser: Any, tmp_path: Path, shown: Shown
):
    write_page(tmp_path, shown)
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    with serving(tmp_path, looker(shown), shown) as server:
        page = Page(browser, server.address, color_scheme="dark", **phone)
        page.says("with the server")
        assert page.page.evaluate("() => document.documentElement.scrollWidth") == 360
        for name in ("#source", "#target", "#play"):
            box = page.page.locator(name).bounding_box()
            assert box["y"] + box["height"] <= 740, name
        box = page.page.locator("#source").bounding_box()
        page.page.touchscreen.tap(box["x"] + 0.1 * box["width"], box["y"] + 0.1 * box["height"])
        page.page.wait_for_selector("#source[aria-label*='point at 4, 4']")
        colour = "() => getComputedStyle(document.body).backgroundColor"
        assert page.page.evaluate(colour) == "rgb(21, 23, 27)"
        page.context.close()
