"""The files of finished packages for the links on a run's page: read only, for browsers on this machine.

Packages are addressed by what they were made from, so that an old run's links never show a newer run's files.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

URL_VARIABLE = "BONSAI_PACKAGES_URL"


class Files(SimpleHTTPRequestHandler):
    """Serves a folder to requests that name this machine: a page elsewhere whose name was made to lead here gets nothing."""

    extensions_map = {"": "text/plain; charset=utf-8", ".md": "text/plain; charset=utf-8", ".json": "application/json", ".svg": "image/svg+xml"}

    def do_GET(self) -> None:  # the name that http.server calls
        """Serve a file or a folder's list."""
        if self._is_ours():
            super().do_GET()

    def do_HEAD(self) -> None:
        """Serve the headers alone."""
        if self._is_ours():
            super().do_HEAD()

    def end_headers(self) -> None:
        """Let no file run code, and no browser guess what a file is."""
        self.send_header("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the shell of `bonsai serve` quiet."""

    def _is_ours(self) -> bool:
        port = cast(ThreadingHTTPServer, self.server).server_port
        if self.headers.get("Host") in (f"127.0.0.1:{port}", f"localhost:{port}"):
            return True
        self.send_error(HTTPStatus.FORBIDDEN)
        return False


@contextmanager
def serve_packages(folder: Path, port: int) -> Iterator[str]:
    """Serve a folder on 127.0.0.1 while the block runs, and give its address.

    Args:
        folder: Folder of the stage `package` in the store; it may not exist yet.
        port: Any free one where this is taken.
    """
    handler = partial(Files, directory=str(folder))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError):  # taken, or beyond the last port
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    with server:
        threading.Thread(target=server.serve_forever, name="packages", daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
