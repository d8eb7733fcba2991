"""Headless Chromium, and servers of the page, for tests."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from midway.demo.app import DemoServer, Look
from midway.demo.writer import Shown

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 120_000
"""How long a test waits; a loaded machine is no failure."""
REMEMBER = """
window.results = [];
document.addEventListener("midway", ({ detail }) => window.results.push(detail));
"""
DROP = """
([files]) => {
  const transfer = new DataTransfer();
  for (const { name, type, content } of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  for (const kind of ["dragover", "drop"])
    document.body.dispatchEvent(
      new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }),
    );
}
"""


@contextmanager
def serving(folder: Path, look: Look | None, shown: Shown) -> Iterator[DemoServer]:
    """Serve a page on any free port of the loopback, from a thread."""
    encoder = shown.network.config.encoder
    sizes = {"patch": encoder.patch_size, "dim": encoder.width}
    with DemoServer(folder, look, **sizes, host="127.0.0.1", port=0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Page:
    """A page in the browser that notes where it asks, and what goes wrong in it."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.address = address
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(PATIENCE_MS)
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.add_init_script(REMEMBER)
        self.page.goto(address)

    def outside(self) -> list[str]:
        """Addresses that were asked for and are not the page's own."""
        own = (self.address, "data:", "blob:")
        return [each for each in self.asked if not each.startswith(own)]

    def says(self, text: str) -> None:
        """Wait until the status line contains a text."""
        from playwright.sync_api import expect

        expect(self.page.locator("#status")).to_contain_text(text, timeout=PATIENCE_MS)

    def settle(self) -> None:
        """Wait until the network has answered everything."""
        self.page.wait_for_selector("#stage[aria-busy=false]")

    def complains(self, text: str) -> None:
        """Wait until a message in the page contains a text."""
        from playwright.sync_api import expect

        expect(self.page.locator("#message")).to_contain_text(text, timeout=PATIENCE_MS)
        expect(self.page.locator("#message")).to_be_visible()

    def drop(self, *files: tuple[str, str, bytes]) -> None:
        """Drop files, each a name, a type and its content."""
        packed = [
            {"name": name, "type": kind, "content": base64.b64encode(content).decode()}
            for name, kind, content in files
        ]
        self.page.evaluate(DROP, [packed])

    def click(self, x: float, y: float) -> None:
        """Click in the first picture, at shares of its width and height."""
        box = self.page.locator("#source").bounding_box()
        # Other than the mouse, the locator scrolls to the place first.
        place = {"x": x * box["width"], "y": y * box["height"]}
        self.page.locator("#source").click(position=place)

    def view(self, name: str) -> None:
        """Choose a view."""
        self.page.click(f"label:has(input[value={name}])")

    def result(self) -> dict[str, Any]:
        """The latest result, with its maps as lists."""
        return self.page.evaluate(
            "() => JSON.parse(JSON.stringify(window.results.at(-1), (key, value) =>"
            " key === 'now' ? undefined : ArrayBuffer.isView(value) ? [...value] : value))"
        )
