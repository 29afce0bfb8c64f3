"""Reasoning graphs of users, from kept chains and from what a model imagines next (LLMRG)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar

import pyarrow as pa

from ..prompts.checks import normal
from ..prompts.fields import bare_title
from .derivation import DerivedTable, Given
from .reasoning import likeness, titles_in

ORIGINAL, DIVERGENT = "original", "divergent"


@dataclass(frozen=True)
class ReasoningGraphs(DerivedTable):
    """Directed graphs per user, round and kind: nodes, sources, targets (places among the nodes).

    Sources, in the order of the rounds: the extensions (user_id, titles) and the kept chains of
    each round, then the item table and the splits. The *original* graph of a round has the items
    and reasons of the kept chains, an edge from an item to the reason and from the reason to the
    next item; its last node is the newest item. The *divergent* graph leads from the last items
    of the chains to the titles that the model imagines; its last node is the newest of those items.

    A title becomes the catalog's item where it is its title, or shares at least ``ground`` of
    their words (the best, ties to the catalog's order); a title of an item that the user has is
    left out; any other becomes a node of text. Nodes are ``item:<id>`` or ``text:<hash>``, and
    ``words`` holds the texts of the latter in the order in which they stand.
    """

    rows: ClassVar[str] = "graphs"

    ground: float = 0.75

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        title = titles_in(given.sources)
        chains = [t for t in given.tables if "paths" in t.column_names]
        extensions = [t for t in given.tables if "imagined" in t.column_names]
        grounded = _Grounding(title, self.ground)
        rows: list[dict[str, Any]] = []
        for number, (kept, more) in enumerate(zip(chains, extensions, strict=True), start=1):
            imagined = {r["user_id"]: r["imagined"] or () for r in more.to_pylist()}
            for row in kept.to_pylist():
                about = {"user_id": row["user_id"], "round": number, "cut": row["cut"]}
                paths = [list(zip(p[:-1], p[1:], why, strict=True)) for p, why in
                         zip(row["paths"], row["reasons"], strict=True)]  # fmt: skip
                rows.append({**about, "kind": ORIGINAL, **_original(paths, row["items"])})
                titles = imagined.get(row["user_id"], ())
                nodes = [n for t in titles if (n := grounded(t, row["items"])) is not None]
                if nodes:
                    leaves = [path[-1][1] for path in paths]
                    rows.append({**about, "kind": DIVERGENT,
                                 **_divergent(leaves, nodes, row["items"])})  # fmt: skip
        words, places = pa.list_(pa.string()), pa.list_(pa.int64())
        kinds = {"user_id": pa.string(), "round": pa.int64(), "cut": pa.int64(),
                 "kind": pa.string(), "nodes": words, "words": words, "sources": places,
                 "targets": places}  # fmt: skip
        made = pa.Table.from_pylist(rows, pa.schema(list(kinds.items())))
        return made, {"graphs": len(rows), "users": len({r["user_id"] for r in rows}),
                      **grounded.counts}  # fmt: skip


@dataclass(frozen=True)
class GraphTexts(DerivedTable):
    """The different texts of the nodes of reasoning graphs: text_id, text."""

    rows: ClassVar[str] = "entities"

    def make(self, given: Given) -> tuple[pa.Table, dict[str, Any]]:
        texts: dict[str, str] = {}
        for table in given.sources:
            if isinstance(table, pa.Table) and "words" in table.column_names:
                for nodes, words in zip(
                    table["nodes"].to_pylist(), table["words"].to_pylist(), strict=True
                ):
                    own = [n.removeprefix("text:") for n in nodes if n.startswith("text:")]
                    texts |= dict(zip(own, words, strict=True))
        ids = sorted(texts)
        words = [texts[i] for i in ids]
        made = pa.table({"text_id": pa.array(ids, pa.string()),
                         "text": pa.array(words, pa.string())})  # fmt: skip
        return made, {"texts": len(texts)}


class _Grounding:
    """Turns imagined titles into nodes; ``counts`` says what became of them."""

    def __init__(self, title: dict[str, str], least: float) -> None:
        self.least, self.title = least, title
        self.exact: dict[str, str] = {}
        self.by_word: dict[str, list[str]] = {}
        for item, name in title.items():
            self.exact.setdefault(normal(name), item)
            for word in dict.fromkeys(normal(name).split()):
                self.by_word.setdefault(word, []).append(item)
        self.found: dict[str, str] = {}
        self.counts = {"titles_of_items": 0, "titles_as_text": 0, "titles_known": 0}

    def __call__(self, told: str, seen: Sequence[str]) -> tuple[str, str] | None:
        """Return (node, text of a text node or ""); None where there is nothing new."""
        if not normal(told):
            return None
        item = self.found.setdefault(told, self._item(told))
        if item in seen:
            self.counts["titles_known"] += 1
            return None
        self.counts["titles_of_items" if item else "titles_as_text"] += 1
        return (f"item:{item}", "") if item else text_node(told)

    def _item(self, told: str) -> str:
        name = normal(bare_title(told))
        if name in self.exact:
            return self.exact[name]
        near = dict.fromkeys(i for w in name.split() for i in self.by_word.get(w, ()))
        order = {item: n for n, item in enumerate(self.title)}
        ranked = sorted(near, key=lambda i: (-likeness(told, self.title[i]), order[i]))
        best = ranked[0] if ranked else ""
        return best if best and likeness(told, self.title[best]) >= self.least else ""


def text_node(text: str) -> tuple[str, str]:
    """Return (name of the node, text) of words that are no item of the catalog."""
    text = " ".join(text.split())
    return f"text:{blake2b(normal(text).encode(), digest_size=8).hexdigest()}", text


def _original(paths: list[list[tuple[str, str, str]]], shown: Sequence[str]) -> dict[str, Any]:
    steps = list(dict.fromkeys(step for path in paths for step in path))
    items = {i for a, b, _ in steps for i in (a, b)}
    reasons = dict.fromkeys(text_node(reason) for *_, reason in steps)
    nodes = [*(name for name, _ in reasons), *(f"item:{i}" for i in shown if i in items)]
    place = {name: n for n, name in enumerate(nodes)}
    edges: dict[tuple[int, int], None] = {}
    for after, item, reason in steps:
        middle = place[text_node(reason)[0]]
        edges |= {(place[f"item:{after}"], middle): None, (middle, place[f"item:{item}"]): None}
    return _graph(nodes, [text for _, text in reasons], edges)


def _divergent(
    leaves: Sequence[str], imagined: Sequence[tuple[str, str]], shown: Sequence[str]
) -> dict[str, Any]:
    new = dict(imagined)
    ends = [i for i in shown if i in leaves]
    nodes = [*new, *(f"item:{i}" for i in ends)]
    edges = {(len(new) + e, n): None for e in range(len(ends)) for n in range(len(new))}
    return _graph(nodes, [text for name, text in new.items() if name.startswith("text:")], edges)


def _graph(
    nodes: Sequence[str], words: Sequence[str], edges: dict[tuple[int, int], None]
) -> dict[str, Any]:
    return {"nodes": list(nodes), "words": list(words), "sources": [a for a, _ in edges],
            "targets": [b for _, b in edges]}  # fmt: skip
