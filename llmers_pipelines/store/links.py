"""Which stored answers belong together: a refused answer and the one it was asked again for.

A question that is asked again carries the first question, its answer and the reason as further
messages, or twice the room. The table names the accepted answer alone, yet a run finds it only
through the first: both stay as long as either is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from .responses import ResponseStore
from .rows import response_key


def with_relatives(store: ResponseStore, keys: set[str]) -> set[str]:
    """Return ``keys`` and every stored answer that was asked before or after one of them."""
    near: dict[str, set[str]] = {}
    for segment in store.segments.segments():
        table = store.segments.read(segment, ["key", "identity", "request"])
        rows = zip(*(table[c].to_pylist() for c in table.column_names), strict=True)
        for key, identity, request in rows:
            for before in _before(identity, request):
                near.setdefault(key, set()).add(before)
                near.setdefault(before, set()).add(key)
    found, waiting = set(keys), list(keys)
    while waiting:
        more = near.get(waiting.pop(), set()) - found
        found |= more
        waiting += more
    return found


def _before(identity: str | None, request: str | None) -> Iterator[str]:
    """Yield the keys of the requests that this one may have been a second attempt of."""
    try:
        content = json.loads(request or "")
        messages, room = content["messages"], content["sampling"]["max_tokens"]
        roles = [m["role"] for m in messages[-2:]]
    except (ValueError, KeyError, TypeError):
        return
    if identity is None:
        return
    if len(messages) > 2 and roles == ["assistant", "user"]:
        yield response_key(identity, _canonical({**content, "messages": messages[:-2]}))
    if isinstance(room, int) and room and room % 2 == 0:
        sampling = {**content["sampling"], "max_tokens": room // 2}
        yield response_key(identity, _canonical({**content, "sampling": sampling}))


def _canonical(content: dict) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
