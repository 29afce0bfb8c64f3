"""A real HTTP server on 127.0.0.1 that speaks the chat-completions interface, faults on demand."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from llmers_pipelines.llm.fake import smallest


@dataclass(frozen=True)
class Say:
    """One scripted reply. Without ``status`` it is a completion of ``text`` (None: the default).

    ``hang`` waits before answering; ``reset`` cuts the connection with RST; ``cut`` sends half of
    the body that it announced; ``raw`` is a body of its own; ``usage`` False tells no tokens;
    ``drip`` ("head" or "body") sends that part a byte every tenth of a second.
    """

    text: str | None = None
    finish: str = "stop"
    refusal: str | None = None
    usage: bool | Mapping[str, Any] = True
    model: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)  # into the first choice
    status: int = 0
    error: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: float = 0.0
    reset: bool = False
    cut: bool = False
    drip: str = ""
    raw: bytes | None = None


def slow_down(after: str = "", **error: Any) -> Say:
    headers = {"Retry-After": after} if after else {}
    return Say(status=429, headers=headers, error={"message": "slow down", **error})


BROKEN = Say(status=500, error={"message": "the server tripped"})
RESET = Say(reset=True)


class Loopback:
    """Replies with ``script`` in the order of requests, then with ``answer(body)``.

    ``rule(body, headers)`` may return a ``Say`` for a request before the script is looked at.
    ``asked`` lists (path, headers, body) of everything that arrived.
    """

    def __init__(
        self,
        *script: Say,
        answer: Callable[[dict[str, Any]], str] | None = None,
        rule: Callable[[dict[str, Any], Mapping[str, str]], Say | None] | None = None,
        latency: float = 0.0,
    ) -> None:
        self.script = list(script)
        self.answer = answer or _smallest
        self.rule = rule
        self.latency = latency
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, _, body in self.asked]

    def __enter__(self) -> Loopback:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._serve(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Tests read ``asked``."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        headers = {k.lower(): v for k, v in handler.headers.items()}
        with self._lock:
            self.asked.append((handler.path, headers, body))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            say = self.rule(body, headers) if self.rule else None
            if say is None:
                say = self.script.pop(0) if self.script else Say()
        try:
            time.sleep(say.hang or self.latency)
            self._send(handler, say, body)
        except OSError:
            handler.close_connection = True  # the client has gone
        finally:
            with self._lock:
                self._at_once -= 1

    def _send(self, handler: BaseHTTPRequestHandler, say: Say, body: dict[str, Any]) -> None:
        if say.reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                          struct.pack("ii", 1, 0))  # fmt: skip
            handler.connection.close()
            handler.close_connection = True
            return
        data = say.raw if say.raw is not None else json.dumps(self._document(say, body)).encode()
        if say.drip == "head":
            _drip(handler, b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 200 + b"\r\n\r\n")
        handler.send_response(say.status or 200)
        for name, value in {"Content-Type": "application/json", **say.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if say.drip == "body":
            _drip(handler, data)
        handler.wfile.write(data[: len(data) // 2] if say.cut else data)
        handler.close_connection = say.cut

    def _document(self, say: Say, body: dict[str, Any]) -> Any:
        if say.status:
            return {"error": say.error} if say.error is not None else {}
        if "input" in body:
            return _vectors(body)
        text = self.answer(body) if say.text is None else say.text
        return completion(
            body, text, finish=say.finish, refusal=say.refusal, usage=say.usage, model=say.model,
            more=say.more,
        )  # fmt: skip


def _drip(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    """Send ``data`` slowly, then end the connection."""
    handler.wfile.flush()
    for byte in data:
        handler.connection.sendall(bytes([byte]))
        time.sleep(0.1)
    raise ConnectionAbortedError


def completion(
    body: Mapping[str, Any], text: str, *, finish: str = "stop", refusal: str | None = None,
    usage: bool | Mapping[str, Any] = True, model: str = "", more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the body of a completion as an endpoint writes it; tokens are words here."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    out: dict[str, Any] = {
        "id": "chatcmpl-1", "object": "chat.completion", "model": model or body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish, **(more or {})}],
    }  # fmt: skip
    if isinstance(usage, Mapping):
        out["usage"] = dict(usage)
    elif usage:
        out["usage"] = {"prompt_tokens": words(body), "completion_tokens": len(text.split())}
    return out


def words(body: Mapping[str, Any]) -> int:
    return sum(len(str(m["content"]).split()) for m in body["messages"])


def schema_of(body: Mapping[str, Any]) -> dict[str, Any] | None:
    return body.get("response_format", {}).get("json_schema", {}).get("schema")


def _smallest(body: dict[str, Any]) -> str:
    schema = schema_of(body)
    return json.dumps(smallest(schema)) if schema else "An answer."


def _vectors(body: Mapping[str, Any]) -> dict[str, Any]:
    data = [{"index": n, "embedding": [float(len(t)), float(t.count("a"))]}
            for n, t in enumerate(body["input"])]  # fmt: skip
    return {"object": "list", "data": data[::-1], "model": body["model"],
            "usage": {"prompt_tokens": sum(len(t.split()) for t in body["input"])}}  # fmt: skip
