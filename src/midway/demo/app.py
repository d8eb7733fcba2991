"""Server of the page: static files, and `POST /look` for networks that a page cannot run."""

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from threading import BoundedSemaphore, Lock
from time import monotonic
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from midway.analysis.perturbation import fast_dtype
from midway.demo.part import PagePart
from midway.demo.writer import TOKENS_AT_ONCE, Shown
from midway.errors import MidwayError, one_line
from midway.nn.device import pick_device
from midway.nn.eval_mode import evaluating
from midway.nn.images import normalise

QUEUE = 8
"""Requests that are computed or wait; more get the status 503, and the page asks again."""
MAX_CONNECTIONS = 64
"""Open connections, one thread each; more wait in the system's queue."""
MAX_PATCHES = 1024
MAX_BYTES = 16 * 2**20
"""Largest upload."""
BLOCK = 64 * 1024
"""Bytes of an upload that are read at a time."""
PATIENCE_SECONDS = 30
"""Time after which a silent connection is closed, and an upload is cut off."""

LOOPBACK = ("127.0.0.1", "localhost")

Look = Callable[["Request"], dict[str, Any]]


class Request:
    """A pair of images and the patches of interest.

    Args:
        query: Decoded query of the address: `rows` and `columns` of patches, `token`.
        patch: Side of a patch in pixels.
        dim: Width of the descriptors.

    Raises:
        MidwayError: A value is missing, ill-typed or out of range.

    """

    def __init__(self, query: dict[str, list[str]], patch: int, dim: int) -> None:
        try:
            self.rows, self.columns = int(query["rows"][0]), int(query["columns"][0])
            self.tokens = [int(each) for each in query["token"][0].split(",")]
        except (KeyError, ValueError):
            raise MidwayError("query: needs rows, columns and token; reload the page") from None
        patches = self.rows * self.columns
        if min(self.rows, self.columns) < 1 or patches > MAX_PATCHES:
            raise MidwayError(
                f"grid of {self.rows} x {self.columns} patches: must have 1 to {MAX_PATCHES}; "
                "give a less narrow picture"
            )
        if len(self.tokens) > TOKENS_AT_ONCE["server"]:
            raise MidwayError(f"{len(self.tokens)} patches: too many; ask for fewer at once")
        if not all(0 <= token < patches for token in self.tokens):
            raise MidwayError("token: outside the picture; click inside")
        self.shape = (3, self.rows * patch, self.columns * patch)
        self.image_bytes = int(np.prod(self.shape))
        self.query_shape = (len(self.tokens), dim)
        self.query_bytes = 4 * len(self.tokens) * dim

    def read(self, body: bytes) -> None:
        """Take both images, and the descriptors to look for if there are any.

        Raises:
            MidwayError: The upload has another length.

        """
        both = 2 * self.image_bytes
        if len(body) not in (both, both + self.query_bytes):
            raise MidwayError(
                f"upload: {len(body)} bytes are no pair of {self.shape[1]} x {self.shape[2]} "
                "pixels; reload the page"
            )
        pixels = torch.frombuffer(bytearray(body[:both]), dtype=torch.uint8)
        self.images = pixels.view(2, *self.shape)
        queries = np.frombuffer(body, np.float32, offset=both)
        self.queries = torch.zeros(self.query_shape)
        if len(queries):
            self.queries = torch.from_numpy(queries.copy()).view(self.query_shape)


def looker(shown: Shown) -> Look:
    """Return the function that computes requests with a network, on a GPU if there is one."""
    device = pick_device()
    network, dtype = shown.network.to(device), fast_dtype(device)
    part = PagePart(network, shown.size, level=shown.level, dtype=dtype).to(device)

    def look(request: Request) -> dict[str, Any]:
        source, target = normalise(request.images.to(device).float(), white=255).split(1)
        token: Int[Tensor, " tokens"] = torch.tensor(request.tokens, device=device)
        with evaluating(part):
            found = part(source, target, token, request.queries.to(device))
        return {name: _rows(value) for name, value in found.items()}

    return look


def _rows(value: Tensor) -> list[list[float]]:
    """Return the entries along the first axis as flat lists."""
    return value.float().flatten(1).cpu().numpy().round(6).tolist()


class DemoServer(ThreadingHTTPServer):
    """HTTP server with bounded memory.

    Args:
        folder: Folder of the page.
        look: Computation of requests; None for a page that computes by itself.
        patch: Side of a patch of the network in pixels.
        dim: Width of its descriptors.
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.

    Raises:
        MidwayError: The address cannot be used; the message says why.

    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, folder: Path, look: Look | None, *, patch: int, dim: int, host: str, port: int
    ) -> None:
        self.look, self.patch, self.dim, self.host = look, patch, dim, host
        self.queue, self.turn = BoundedSemaphore(QUEUE), Lock()
        self.connections = BoundedSemaphore(MAX_CONNECTIONS)
        try:
            super().__init__((host, port), partial(_Handler, directory=str(folder)))
        except (OSError, OverflowError) as error:
            raise MidwayError(
                f"port {port} of {host}: {one_line(error)}; choose another with --port"
            ) from None

    def server_bind(self) -> None:
        """Bind without a look-up of the host's name, which may ask a DNS server."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    @property
    def address(self) -> str:
        """Web address of the page."""
        host, port = self.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Wait for a free thread, then handle the request in it."""
        self.connections.acquire()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, which frees its thread."""
        try:
            super().shutdown_request(request)
        finally:
            self.connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up."""


class _Handler(SimpleHTTPRequestHandler):
    timeout = PATIENCE_SECONDS
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".gz": "application/octet-stream",
        ".webp": "image/webp",
    }

    @property
    def demo(self) -> DemoServer:
        assert isinstance(self.server, DemoServer)
        return self.server

    def parse_request(self) -> bool:
        """Refuse requests for other names: another site may let its name point to the loopback."""
        if not super().parse_request():
            return False
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if self.demo.host in LOOPBACK and name not in LOOPBACK:
            self._fail(HTTPStatus.FORBIDDEN, f"host {name}: this server is for the loopback only")
            return False
        return True

    def do_POST(self) -> None:
        address = urlsplit(self.path)
        if address.path != "/look" or self.demo.look is None:
            self._fail(HTTPStatus.NOT_FOUND, f"{address.path}: nothing here; reload the page")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self._fail(HTTPStatus.LENGTH_REQUIRED, "upload: has no length; reload the page")
        elif int(length) > MAX_BYTES:
            self._fail(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"upload: larger than {MAX_BYTES // 2**20} MB; give smaller pictures",
            )
        elif not self.demo.queue.acquire(blocking=False):
            self._discard(int(length))
            self._fail(HTTPStatus.SERVICE_UNAVAILABLE, "busy; ask again")
        else:
            try:
                self._look(parse_qs(address.query), int(length))
            finally:
                self.demo.queue.release()

    def _look(self, query: dict[str, list[str]], length: int) -> None:
        look = self.demo.look
        assert look is not None, "checked by do_POST"
        body, end = bytearray(), monotonic() + PATIENCE_SECONDS
        # Of a slow client no more than this time, because it holds a place in the queue.
        while len(body) < length and monotonic() < end:
            block = self.rfile.read1(min(BLOCK, length - len(body)))
            if not block:
                break
            body += block
        try:
            request = Request(query, self.demo.patch, self.demo.dim)
            request.read(bytes(body))
            with self.demo.turn:
                answer = look(request)
        except MidwayError as error:
            self._fail(HTTPStatus.BAD_REQUEST, str(error))
        except Exception as error:
            self._fail(HTTPStatus.INTERNAL_SERVER_ERROR, f"the network failed ({one_line(error)})")
        else:
            self._send(HTTPStatus.OK, answer)

    def _discard(self, length: int) -> None:
        """Read an upload without keeping it; a client that is sending does not read the answer."""
        with suppress(OSError):
            while length > 0 and (block := self.rfile.read(min(BLOCK, length))):
                length -= len(block)

    def _fail(self, status: HTTPStatus, message: str) -> None:
        self._send(status, {"error": message})

    def _send(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""
