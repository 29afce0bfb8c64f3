"""The time limit of a call holds for all of it, though each byte comes in time."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest
from endpoint_kit import collect, engine_at, one, requests_of
from loopback import BROKEN, Loopback, Say

from llmers_pipelines.llm.breaker import Breaker
from llmers_pipelines.llm.clock import Stop
from llmers_pipelines.llm.openai_http import Http
from llmers_pipelines.llm.time_limit import TimeLimit, watch

SOON = 4.0  # seconds; without the limit each of these replies takes twenty and more
CLOSING = {"Connection": "close"}


def post(server: Loopback, times: int = 1) -> list[Any]:
    http = Http(server.url, "", timeout=0.5, connections=1)
    body = {"model": "m", "messages": [{"content": "x"}]}
    began = time.monotonic()
    replies = [http.post("/chat/completions", body) for _ in range(times)]
    assert time.monotonic() - began < SOON
    return replies


@pytest.mark.parametrize("say", [
    Say("x" * 200, drip="body"), Say(drip="head"), Say("x" * 200, drip="body", headers=CLOSING),
], ids=["body", "head", "closing"])  # fmt: skip
def test_a_reply_that_trickles_ends_in_time(say: Say) -> None:
    with Loopback(say) as server:
        (reply,) = post(server)
    assert (reply.status, reply.fault, reply.reached) == (0, "no answer within 0.5 s", True)


@pytest.mark.parametrize("part", ["body", "head"])
def test_so_does_one_over_a_connection_that_was_open_already(part: str) -> None:
    with Loopback(Say("first"), Say("x" * 200, drip=part), Say("third")) as server:
        first, second, third = post(server, 3)
    assert (first.status, second.fault, third.status) == (200, "no answer within 0.5 s", 200)


@pytest.mark.parametrize("part", ["body", "head"])
def test_an_attempt_that_trickles_counts_with_its_bound(part: str) -> None:
    with Loopback(Say("x" * 200, drip=part), Say("at last")) as server:
        began = time.monotonic()
        result, _ = one(server, timeout_seconds=0.5)
        assert time.monotonic() - began < SOON
    assert (result.text, result.attempts, result.tokens_out) == ("at last", 2, 10 + 2)


@pytest.mark.parametrize(("head", "piece"), [
    (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    (b'Connection: close\r\n\r\n{"a": 1}', b" "),  # where it is cut, it looks whole
], ids=["chunked", "until the end"])  # fmt: skip
def test_a_body_without_an_announced_length(head: bytes, piece: bytes) -> None:
    """Each piece comes in time, and the body never ends."""
    place = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        line, _ = place.accept()
        line.recv(65536)
        try:
            line.sendall(b"HTTP/1.1 200 OK\r\n" + head)
            while True:
                line.sendall(piece)
                time.sleep(0.1)
        except OSError:
            line.close()

    threading.Thread(target=serve, daemon=True).start()
    http = Http(f"http://127.0.0.1:{place.getsockname()[1]}/v1", "", timeout=0.5, connections=1)
    began = time.monotonic()
    assert http.post("/x", {}).fault == "no answer within 0.5 s"
    assert time.monotonic() - began < SOON
    place.close()


def test_probes_that_trickle_give_the_endpoint_up_instead_of_blocking_all() -> None:
    def rule(body: dict[str, Any], headers: Any) -> Say:
        return BROKEN if len(server.asked) <= 4 else Say(drip="head")

    with Loopback(rule=rule) as server:
        engine = engine_at(server, concurrency=4, breaker_failures=4, breaker_probes=2,
                           timeout_seconds=0.5, attempts=50)  # fmt: skip
        began = time.monotonic()
        found, why = collect(engine.generate(requests_of(40)))
        assert time.monotonic() - began < 3 * SOON
    assert "no answer within 0.5 s" in why and all(r.error for r in found)


def test_a_probe_that_never_comes_back_is_followed_by_another() -> None:
    class Hand:
        time = 0.0

        def now(self) -> float:
            return self.time

        def wall(self) -> float:
            return self.time

        def wait(self, seconds: float, stop: Stop) -> None:
            self.time += seconds

    clock, stop = Hand(), Stop()
    breaker = Breaker(failures=1, cooldown=10.0, patience=50.0, clock=clock)
    breaker.failure("down", stop)
    assert breaker.enter(stop) and clock.time == pytest.approx(10.0)
    assert breaker.enter(stop) and clock.time == pytest.approx(60.0, abs=1.0)
    breaker.success()
    assert breaker.state == "closed" and not stop.set


def test_a_line_that_is_watched_after_the_end_is_shut_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, TimeLimit(0.05) as limit:
        time.sleep(0.2)
        assert limit.over and limit.left == 0
        watch(ours)
        assert theirs.recv(1) == b""
    with ours, theirs:
        watch(ours)  # no limit here: nothing to do
