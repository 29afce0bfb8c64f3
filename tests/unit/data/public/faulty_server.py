"""A web server on the loopback whose next answers can be spoiled one by one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One file. ``faults`` are used up by one request each: drop:N, status:N, plain,
    no_length, no_length:N (and broken off after N bytes), elsewhere (another range than asked)."""

    content: bytes
    etag: str = '"v1"'
    modified: str = ""
    ranges: bool = True
    faults: list[str] = field(default_factory=list)
    location: str = ""


@dataclass
class Server:
    address: str
    files: dict[str, Served] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # path, Range, If-Range

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    """Run a server in a thread; requests are noted in the order in which they come."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            wanted = self.headers.get("Range", "")
            condition = self.headers.get("If-Range", "")
            server.requests.append((name, wanted, condition))
            file = server.files.get(name)
            if file is None:
                return self.fail(404)
            fault = file.faults.pop(0) if file.faults else ""
            kind, _, number = fault.partition(":")
            if kind == "status":
                return self.fail(int(number))
            if file.location:
                self.send_response(302)
                self.send_header("Location", file.location)
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.give(file, wanted, condition, kind, number)

        def fail(self, code: int) -> None:
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.send_header("Retry-After", "7")
            self.end_headers()

        def give(
            self, file: Served, wanted: str, condition: str, kind: str, number: str
        ) -> None:  # fmt: skip
            start, size = 0, len(file.content)
            known = condition in (file.etag, file.modified) if condition else True
            partial = bool(wanted) and file.ranges and known and kind != "plain"
            if partial:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= size:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{size}")
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
            start = 0 if kind == "elsewhere" else start
            body = file.content[start:]
            self.send_response(206 if partial else 200)
            if partial:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            if file.etag:
                self.send_header("ETag", file.etag)
            if file.modified:
                self.send_header("Last-Modified", file.modified)
            if kind != "no_length":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: int(number)] if number else body)
            if kind in ("drop", "no_length"):
                self.wfile.flush()
                self.close_connection = True

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    server = Server(f"http://127.0.0.1:{httpd.server_address[1]}")
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
