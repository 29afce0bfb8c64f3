"""The book shop with a knowledge graph and reviews, and the methods that read them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from shop import BOOKS, SHOP, Shop, kind, title

from llmers_pipelines.llm import factory
from llmers_pipelines.llm.fake import FakeEngine
from llmers_pipelines.llm.protocol import GenRequest

TABLES = """
[kg]
path = "kg.csv"

[kg_link]
path = "kg_link.csv"

[reviews]
path = "reviews.csv"
"""
HEAD = """
[llmers]
dataset = "shop"

[encoder]
name = "tfidf?dim=24"

[evaluation]
controls = ["permuted", "template"]

[llm]
{llm}
"""
GRAPH = "{ dim = 8, negatives = 8, layers = 2, fit = { epochs = 2, min_epochs = 1 } }"
SEQUENCE = "{ dim = 8, inner = 16, max_len = 10, fit = { epochs = 2, min_epochs = 1 } }"
METHODS = {
    "colakg": f"""
[[methods]]
recipe = "colakg"
settings = {{ protocol = "sequential", neighbours = 4 }}
backbone_settings = {GRAPH}
""",
    "sagcn": f"""
[[methods]]
recipe = "sagcn"
settings = {{ protocol = "sequential", aspects = 3, layers = 2 }}
backbone_settings = {GRAPH}
""",
    "gacllm": f"""
[[methods]]
recipe = "gacllm"
settings = {{ neighbours = 3 }}
backbone_settings = {GRAPH}
""",
    "harec": """
[[methods]]
recipe = "harec"
settings = { protocol = "sequential", layers = 3 }
backbone_settings = { dim = 8, negatives = 3, layers = 2, fit = { epochs = 2, min_epochs = 1 } }
""",
    "llmrg": f"""
[[methods]]
recipe = "llmrg"
settings = {{ block = 3 }}
backbone_settings = {SEQUENCE}
""",
}
ASPECTS = ("price", "plot", "print")


class Reader(FakeEngine):
    """A scripted model that gives reasons of its own and rewrites in words of its own."""

    def _text(self, request: GenRequest, attempt: int) -> str:
        text = super()._text(request, attempt)
        if "Rewrite the description" in str(request.messages[0]["content"]):
            return f"{request.row_id} is calm, long and full of harbours."
        if request.schema and "steps" in request.schema["properties"]:
            found = json.loads(text)
            for step in found["steps"]:
                step["reason"] = f"{request.row_id} went from {step['after']} to {step['item']}"
            return json.dumps(found)
        return text


def opened(home: Path, *methods: str, llm: str = 'engine = "template"') -> Shop:
    """Write the shop with its tables beside the log and a choice of ``methods``."""
    shop = Shop.open(home)
    (shop.folder / "shop.toml").write_text(SHOP + TABLES)
    shop.write("kg", [
        {"head_id": f"e{i}", "head": title(i).replace(" ", "_"), "relation": r, "tail_id": t,
         "tail": t.title()}
        for i in range(1, BOOKS + 1)
        for r, t in (("written_by", f"author{i % 5}"), ("set_in", kind(i)))
    ])  # fmt: skip
    shop.write("kg_link", [{"item_id": f"b{i:02}", "entity_id": f"e{i}"}
                           for i in range(1, BOOKS + 1)])  # fmt: skip
    shop.write("reviews", [
        {"user_id": r["user_id"], "item_id": r["item_id"],
         "text": f"The {ASPECTS[n % 3]} is good. So is the {ASPECTS[n % 2]}."}
        for n, r in enumerate(shop.read("interactions"))
    ])  # fmt: skip
    choose(shop, *methods, llm=llm)
    return shop


def choose(shop: Shop, *methods: str, llm: str = 'engine = "template"') -> None:
    chosen = "".join(METHODS[m] for m in methods or METHODS)
    (shop.home / "llmers.toml").write_text(HEAD.format(llm=llm) + chosen)


def answers_of(shop: Shop, *nodes: str) -> dict[str, list[Any]]:
    """Return the texts and statuses of generated assets."""
    ctx, plan = shop.context(), shop.plan()
    tables = {n: ctx.load(plan.node(n)) for n in nodes}
    return {n: [t["status"].to_pylist(), t["text"].to_pylist()] for n, t in tables.items()}


def generated(shop: Shop) -> list[str]:
    """Return the names of what the language model answers, without the template control."""
    return [n.name for n in shop.plan().nodes if n.verb == "generate" and n.llm != "template"]


def main(home: str, kill_after: str, *words: str) -> None:
    """Work ``words`` with a scripted model that kills the process after so many answers."""
    engine = Reader(kill_after=int(kill_after))
    factory.make_engine = lambda *a, **k: engine
    factory.engine_info = lambda *a, **k: engine.info
    shop = Shop(Path(home))
    from llmers_pipelines.llm import runner

    plain = runner.run_task  # answers are flushed one by one, so that each paid one is kept
    runner.run_task = lambda *a, **k: plain(*a, **{**k, "flush_rows": 1, "progress": False})
    shop.work(*words)
    print(len(engine.asked))


if __name__ == "__main__":
    main(*sys.argv[1:])
