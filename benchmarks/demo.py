"""Time clicks on the demo page in headless Chromium, with the default network inside the page.

Command: ``python benchmarks/demo.py`` (needs Debian's chromium and playwright). It prints a JSON
line: milliseconds of the network for a click, and from the click to the painted heatmap.
"""

import json
import os
import random
import shutil
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from threading import Thread

from playwright.sync_api import Page, expect, sync_playwright

from midway.cli.perturb import SHIPPED
from midway.demo.writer import open_shown, write_page

CLICKS = 50
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CLICK = """
([x, y]) => new Promise((resolve) => {
  const canvas = document.getElementById("source");
  const box = canvas.getBoundingClientRect();
  const start = performance.now();
  document.addEventListener("midway", ({ detail }) =>
    // The next frame begins after the heatmap was drawn.
    requestAnimationFrame(() => setTimeout(() =>
      resolve([detail.milliseconds, performance.now() - start]))), { once: true });
  canvas.setPointerCapture = () => {};
  canvas.dispatchEvent(new PointerEvent("pointerdown", {
    clientX: box.left + x * box.width, clientY: box.top + y * box.height,
  }));
})
"""


class Quiet(SimpleHTTPRequestHandler):
    """Handler of static files that prints nothing, as any file server would do."""

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def main() -> None:
    """Measure."""
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        write_page(Path(folder), open_shown(SHIPPED, None))
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
        Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=ARGUMENTS
        )
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        expect(page.locator("#status")).to_contain_text("in your browser", timeout=120_000)
        sys.stdout.write(json.dumps(measure(page)) + "\n")
        browser.close()


def measure(page: Page) -> dict[str, object]:
    """Click at random places, and return the times in milliseconds."""
    draw = random.Random(0)
    places = [(draw.random(), draw.random()) for _ in range(CLICKS)]
    page.evaluate(CLICK, places[0])
    before = cpu_seconds()
    times = [page.evaluate(CLICK, place) for place in places]
    cpu_ms = 1000 * (cpu_seconds() - before) / CLICKS
    network, painted = zip(*times, strict=True)
    return {
        "clicks": CLICKS,
        "cpu_ms": round(cpu_ms, 1),
        "network_ms": round(median(network), 1),
        "network_min_ms": round(min(network), 1),
        "click_to_heatmap_ms": round(median(painted), 1),
        "click_to_heatmap_min_ms": round(min(painted), 1),
        "click_to_heatmap_p90_ms": round(quantiles(painted, n=10)[-1], 1),
    }


def cpu_seconds() -> float:
    """Return the CPU time of the living descendants of this process."""
    parents, ticks = {}, {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            name_and_rest = file.read_text().rpartition(")")
        except OSError:  # has ended meanwhile
            continue
        fields = name_and_rest[2].split()
        pid = int(file.parent.name)
        # Fields 4, 14 and 15 of proc(5): parent, user and system time.
        parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sum(ticks[pid] for pid in found - {os.getpid()}) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
