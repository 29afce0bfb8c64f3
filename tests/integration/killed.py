"""Runs that are killed: every piece of work is counted, and at a chosen one the process dies.

Pieces are questions to a model, texts that are stored as vectors, steps of a tuning, epochs of a
training and versions that are published. The process is a fork that ends by SIGKILL before it does
its n-th piece; the run is then taken up in the test's own process.
"""

from __future__ import annotations

import os
import signal
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from shop import Shop, same_environment

from llmers_pipelines.llm.fake import FakeEngine
from llmers_pipelines.llm.hf import HfEngine
from llmers_pipelines.llm.protocol import GenResult
from llmers_pipelines.orchestrate import cells
from llmers_pipelines.orchestrate.publish import materialize
from llmers_pipelines.plan import walk
from llmers_pipelines.store.manifests import ManifestStore
from llmers_pipelines.store.responses import ResponseStore
from llmers_pipelines.store.vectors import VectorSpace
from llmers_pipelines.train import loop
from llmers_pipelines.tune import loop_net

LONGEST = 500.0  # seconds that a fork may take
OFTEN = "\n[train]\ncheckpoint_seconds = 0.000001\n"
Piece = tuple[str, str]  # kind and what of


@dataclass
class Ticks:
    """Counts pieces of work; at piece ``at`` (from 1) the process kills itself."""

    at: int = 0
    to: Path | None = None  # also written there, piece by piece
    done: list[Piece] = field(default_factory=list)

    def __call__(self, kind: str, what: str = "") -> None:
        if len(self.done) + 1 == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.done.append((kind, what))
        if self.to is not None:
            with self.to.open("a") as out:
                out.write(f"{kind}\t{what}\n")


Instead = Callable[[Any], str | None]  # the answer that stands for the model's own, or None


@contextmanager
def counted(ticks: Ticks, instead: Instead | None = None) -> Iterator[None]:
    """Count the pieces of work of this process; answers are stored one by one."""

    def one_by_one(real: Any, self: Any, requests: Any, **more: Any) -> Iterator[Any]:
        for request in requests:
            asked = repr((request.messages, getattr(request, "choices", ())))
            ticks("asked", f"{request.row_id.split()[0]} {zlib.crc32(asked.encode())}")
            text = instead(request) if instead is not None else None
            if text is None:
                yield from real(self, [request], **more)
            else:
                yield GenResult(request.row_id, text, tokens_in=1, tokens_out=1)

    def before(owner: Any, name: str, kind: str, what: Callable[..., str]) -> Any:
        real = getattr(owner, name)

        def ticking(*args: Any, **more: Any) -> Any:
            ticks(kind, what(*args))
            return real(*args, **more)

        return patch.object(owner, name, ticking)

    def engine(owner: Any, name: str) -> Any:
        real = getattr(owner, name)
        return patch.object(owner, name, lambda s, r, **m: one_by_one(real, s, r, **m))

    def steps(*args: Any) -> Iterator[Any]:
        for rows in batches(*args):
            ticks("step", str(rows.tolist()[:4]))
            yield rows

    batches, writer = loop_net._batches, ResponseStore.writer
    with ExitStack() as stack:
        for context in (
            *(engine(o, n) for o in (HfEngine, FakeEngine) for n in ("generate", "choose")),
            before(VectorSpace, "append", "encoded", lambda s, keys, v: str(len(keys))),
            before(ManifestStore, "write", "published", lambda s, manifest: manifest.name),
            before(loop, "_epoch", "epoch",
                   lambda model, data, adamw, how, name, at, *more: f"{name} {at.epoch + 1}"),
            patch.object(loop_net, "_batches", steps),
            patch.object(ResponseStore, "writer",
                         lambda s, **m: writer(s, **{**m, "flush_rows": 1})),
            patch.object(cells, "log_run", lambda *a: ""),  # MLflow is no part of a result
        ):  # fmt: skip
            stack.enter_context(context)
        yield


def work(shop: Shop, method: str) -> dict[str, str]:
    """Make a method and its evaluation; return the data version of each asset."""
    plan, ctx = shop.plan(), shop.context()
    (loaded,) = [m for m in plan.methods if m.recipe.slug == method]
    nodes = walk([loaded.evaluate])
    with same_environment():
        for node in nodes:
            materialize(node, ctx)
    return {n.name: ctx.manifest(n).data_version for n in nodes}


def work_and_die(shop: Shop, method: str, at: int, instead: Instead | None) -> list[Piece]:
    """Work in a fork that is killed before piece ``at``; return the pieces that it did."""
    told = shop.home / "pieces.txt"
    child = os.fork()
    if child == 0:
        try:
            with counted(Ticks(at, told), instead):
                work(shop, method)
        finally:
            os._exit(3)  # came to its end, or failed
    ends = time.monotonic() + LONGEST
    while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > ends:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"{method} took more than {LONGEST:.0f} s")
        time.sleep(0.05)
    assert os.WIFSIGNALED(found[1]) and os.WTERMSIG(found[1]) == signal.SIGKILL, found
    lines = told.read_text().splitlines() if told.is_file() else []
    return [(kind, what) for kind, _, what in (line.partition("\t") for line in lines)]


def moments(method: str, total: int, count: int, seed: int = 0) -> list[int]:
    """Return ``count`` random pieces of 1..total, the same ones for the same arguments."""
    rng = np.random.default_rng([seed, zlib.crc32(method.encode())])
    return sorted(int(n) for n in rng.choice(np.arange(1, total + 1), count, replace=False))


def repeated(whole: list[Piece], killed: list[Piece], again: list[Piece]) -> dict[str, int]:
    """Return by kind how many pieces were done more often than in a run that was left alone."""
    more = Counter(killed) + Counter(again) - Counter(whole)
    out: Counter[str] = Counter()
    for (kind, _), n in more.items():
        out[kind] += n
    return dict(out)
