"""Which models that answered are known to remember a data set: the stored probes, looked up."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..config import Settings
from ..plan import Generate, Node, Teach, Tune, sha, walk
from .context import StepContext


def place(ctx: StepContext) -> Path:
    """Return where the probe of the configured model on the data set lies."""
    s = ctx.settings
    return _folder(ctx) / f"{sha([s.engine_identity, s.temperature, s.llm_seed])}.json"


def stored(ctx: StepContext) -> dict[str, Any] | None:
    """Return the newest probe of the configured model on the data set, None where there is none."""
    path = place(ctx)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def base_identity(settings: Settings) -> str:
    """Return the configured engine without what is tuned over it: memories are of the base."""
    bare = dataclasses.replace(settings, adapter="", quantization="", recorded_first=False)
    return bare.engine_identity


def remembering(node: Node, ctx: StepContext) -> tuple[str, ...]:
    """Return the models that answered below ``node`` and know the data set, as probed.

    A probe counts at any temperature and seed. Recorded and template answers come from no model
    that could be probed; a tuned model has the memory of its base. Without a probe: nobody.
    """
    known = [r for r in _probes(ctx) if r["known"]]
    if not known:
        return ()
    spoke = set(_spoke(node, ctx))
    found = {r["model"] for r in known if spoke & {r["identity"], r["model"], r.get("base")}}
    return tuple(sorted(found))


def _folder(ctx: StepContext) -> Path:
    return ctx.settings.data / "memory_probes" / ctx.dataset


def _probes(ctx: StepContext) -> list[dict[str, Any]]:
    paths = sorted(_folder(ctx).glob("[!.]*.json"))
    return [json.loads(p.read_text(encoding="utf-8")) for p in paths]


def _spoke(node: Node, ctx: StepContext) -> Iterator[str]:
    """Yield identities and labels of the engines in what ``node`` was made from."""
    for n in walk([node]):
        if isinstance(n, Tune) and n.how.base == "llm":
            yield n.model
        if not (isinstance(n, Generate) or (isinstance(n, Teach) and n.how.asks_model)):
            continue
        manifest = ctx.manifests.current(ctx.dataset, n.name)
        if manifest is None:
            continue
        # The label is that of who answered, also where recorded answers could not be used.
        told = (manifest.sources.get("engine"), manifest.info.get("model"),
                manifest.info.get("teacher"))  # fmt: skip
        yield from (str(t) for t in told if t)
