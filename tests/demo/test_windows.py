"""Windows of the page: heatmaps and tracks equal torch's, in the page and by the server."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from midway.analysis.inputs import fit, squares_around
from midway.analysis.perturbation import perturbation_heatmaps
from midway.analysis.tracking import track_points
from midway.demo.app import looker
from midway.demo.writer import Shown, open_shown, write_page
from tests.demo.browser import Page, serving
from tests.demo.test_browser import files_of, pair

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PLACES = ((0.45, 0.55), (0.02, 0.5), (0.98, 0.97))
"""Shares of width and height: inside, and at borders."""


def check_heat(page: Page, shown: Shown, frames: torch.Tensor, side: int, atol: float) -> None:
    """Compare the latest heatmap with torch's, at the place of its window."""
    now = page.page.evaluate(
        "() => { const { point, region } = window.results.at(-1).now; return { point, region }; }"
    )
    point = torch.tensor([[now["point"]["x"], now["point"]["y"]]])
    (square,) = squares_around(frames, point, side)
    assert [now["region"]["left"], now["region"]["top"]] == square.corner.tolist()
    assert now["region"]["width"] == now["region"]["height"] == square.images.shape[3]
    fitted = fit(square.images, shown.network)
    column, row = fitted.cells(square.points)[0].tolist()
    want = perturbation_heatmaps(
        shown.network,
        *fitted.images.split(1),
        level=shown.level,
        tokens=[row * fitted.grid[1] + column],
    )
    found = torch.tensor(page.result()["values"])
    torch.testing.assert_close(found, want[0, 0].flatten(), atol=atol, rtol=0)


def check_track(page: Page, shown: Shown, frames: torch.Tensor, step: int, atol: float) -> None:
    """Compare the latest tracks, at each `step` of the page's frames, with those of the command."""
    found = page.result()["tracks"]
    starts = torch.tensor([[track[0]["x"], track[0]["y"]] for track in found])
    zeros = torch.zeros(len(found), dtype=torch.long)
    options = {"level": shown.level, "window": shown.window}
    want = track_points(shown.network, frames[::step], starts, zeros, **options)
    places = torch.tensor([[[each["x"], each["y"]] for each in track[::step]] for track in found])
    torch.testing.assert_close(places, want.points, atol=atol, rtol=0)
    sure = torch.tensor([[each["confidence"] for each in track[::step]] for track in found])
    torch.testing.assert_close(sure, want.confidence, atol=1e-3, rtol=0)


def stacked(images: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def test_a_window_in_the_page_gives_what_torch_gives_also_at_the_border(
    browser: Any, tmp_path: Path
):
    shown = open_shown("midway-tiny", None)
    assert (shown.window, shown.compute) == (192, "page")
    write_page(tmp_path, shown)
    with serving(tmp_path, None, shown) as server:
        page = Page(browser, server.address)
        page.says("in your browser")
        assert "outlined square" in page.page.locator("#explains").inner_text()
        images = [image[:, :230] for image in pair(288)]
        page.drop(*files_of(images))
        page.page.wait_for_selector("#source[aria-label*='0.png and 1.png']")
        for x, y in PLACES:
            page.click(x, y)
            page.settle()
            check_heat(page, shown, stacked(images), 192, 1e-4)
        page.view("track")
        page.says("1 point followed")
        page.click(*PLACES[0])
        page.says("2 points followed")
        page.settle()
        check_track(page, shown, stacked(images), step=1, atol=1e-2)
        # Of frames smaller than the window, the largest square.
        images = [image[:120, :170] for image in images]
        page.view("heat")
        page.drop(*((f"small {name}", *rest) for name, *rest in files_of(images)))
        page.page.wait_for_selector("#source[aria-label*='small 0.png']")
        page.click(*PLACES[1])
        page.settle()
        check_heat(page, shown, stacked(images), 120, 1e-4)
        assert page.errors == []
        assert page.outside() == []
        page.context.close()


def test_a_window_by_the_server_gives_what_torch_gives(
    browser: Any, tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("midway.demo.app.fast_dtype", lambda device: torch.float32)
    # As large as the network's input: nothing is resized, so that rounding to bytes loses nothing.
    shown = replace(shown, window=32)
    write_page(tmp_path, shown)
    with serving(tmp_path, looker(shown), shown) as server:
        page = Page(browser, server.address)
        page.says("with the server")
        entry = json.loads((tmp_path / "page.json").read_text())["clips"][0]
        frames = frames_of(tmp_path, entry)
        for x, y in PLACES:
            page.click(x, y)
            page.settle()
            check_heat(page, shown, frames[[0, 4]], 32, 1e-4)
        page.view("track")
        page.says("1 point followed")
        for count, place in ((2, PLACES[0]), (3, PLACES[1])):
            page.click(*place)
            page.says(f"{count} points followed")
        page.settle()
        # Two frames of 1/8 s are a step; the frames between do not matter.
        check_track(page, shown, frames, step=2, atol=1e-2)
        page.context.close()


def test_a_window_counts_pixels_of_the_file_if_its_frames_are_reduced(
    browser: Any, tmp_path: Path, shown: Shown
):
    shown = replace(shown, window=40)
    write_page(tmp_path, shown)
    with serving(tmp_path, looker(shown), shown) as server:
        page = Page(browser, server.address)
        page.says("with the server")
        page.drop(*files_of([np.zeros((80, 1600, 3), np.uint8)] * 2))
        page.page.wait_for_selector("#source[aria-label*='0.png']")
        page.settle()
        seen = page.page.evaluate(
            "() => { const { clip, region } = window.results.at(-1).now;"
            " return [clip.width, clip.height, region.width, region.height]; }"
        )
        # 1600 pixels are reduced to 1280, and 40 pixels of the file to 32.
        assert seen == [1280, 64, 32, 32]
        page.context.close()


def frames_of(folder: Path, entry: dict[str, Any]) -> torch.Tensor:
    """Return the frames of a sheet, (frames, 3, height, width)."""
    with Image.open(folder / entry["sheet"]) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    height, width = entry["height"], entry["width"]
    corners = [
        (k // entry["columns"] * height, k % entry["columns"] * width)
        for k in range(len(entry["seconds"]))
    ]
    return stacked([pixels[y : y + height, x : x + width] for y, x in corners])
