"""The book shop with a plug-in of its own: a prompt, its parser and a component that tests edit.

A server on this machine answers; what it was asked is what the calls are counted by.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shop import BOOKS, SMALL, Shop, kind, title

ROOT = Path(__file__).resolve().parents[2]
NOTES = "item_summaries/book_note"
# Cycles of coprime lengths: texts that differ in more than their numbers.
WORDS = (
    ("storms", "harbours", "letters", "orchards", "engines", "mirrors", "trains"),
    ("slow", "bright", "bitter", "gentle", "hidden", "northern", "silver", "broken", "distant",
     "quiet", "golden"),
    ("winters", "villages", "detectives", "sisters", "machines", "islands", "gardens", "teachers",
     "soldiers", "merchants", "musicians", "pilots", "strangers"),
)  # fmt: skip
CATALOG = 200  # books, so that one is less than 1 % of them
CHOICE = f"""
[llmers]
dataset = "shop"

[llm]
engine = "openai"
model = "shop/model"
endpoint = "URL"
api_key_env = "SHOP_KEY"
max_tokens = 100

[refresh]
enabled = true
seconds = 1

[encoder]
name = "tfidf?dim=24"

[evaluation]
controls = ["permuted"]

[[methods]]
recipe = "knnblend"
[[methods]]
recipe = "sasrec"
backbone_settings = {SMALL}
[[methods]]
recipe = "shop_notes"
backbone_settings = {SMALL}
"""
PLUGIN = '''
"""A note of each book, as the first weights of its item vector."""

import json
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, Field

from llmers_pipelines.api import (
    PCA, AnswerText, Derive, Embed, FromVectors, Generate, SASRec, Train, items, recipe, splits,
)
from llmers_pipelines.prompts.task import Parsed, PromptTask


class Note(BaseModel):
    note: str = Field(max_length=300)


@dataclass(frozen=True)
class BookNote(PromptTask):
    revision: ClassVar[int] = 1
    produces: ClassVar[str] = "item_summaries"
    answer: ClassVar[type[BaseModel]] = Note

    def render(self, row, context=None):
        told = f"{row['title']}. {row['description']}"
        return [{"role": "system", "content": "Write a note about the book, as JSON."},
                {"role": "user", "content": told}]

    def parse(self, raw):
        return super().parse(raw)

    def template(self, row, context=None):
        return {"note": f"{row['title']} is a book of {row['kind']}."}

    def text(self, value):
        return value["note"]


@dataclass(frozen=True)
class Axes(PCA):
    """The axes of the notes."""

    revision: ClassVar[int] = 1


@recipe(name="ShopNotes", task="sequential", family="initialization")
def shop_notes(backbone=SASRec(), protocol="sequential"):
    vectors = Embed(AnswerText(), over=Generate(BookNote(), over=items), context=(items,))
    axes = Derive(Axes(dim=backbone.dim), vectors)
    return Train(backbone, splits(protocol), init=(FromVectors("item", axes),))
'''


def note(body: dict[str, Any]) -> str:
    """Answer as a good model would: about the book that the prompt tells of."""
    told = str(body["messages"][-1]["content"])
    found = re.search(r"A story of ([^.]+)", told)
    return json.dumps({"note": f"{told.split('.')[0]} is for those who like "
                               f"{found.group(1) if found else 'books'}."})  # fmt: skip


@dataclass(frozen=True)
class NotesShop(Shop):
    """The shop, its plug-in below ``home/plugin`` and the environment that finds both."""

    @classmethod
    def make(cls, home: Path, url: str) -> NotesShop:
        Shop.open(home)
        shop = cls(home)
        (home / "llmers.toml").write_text(CHOICE.replace("URL", url))
        told = (shop.folder / "shop.toml").read_text()
        (shop.folder / "shop.toml").write_text(told.split("[splits.ctr]")[0])
        more = [{"item_id": f"b{i:03}", "title": title(i), "kind": kind(i),
                 "description": f"A story of {kind(i)}, {' '.join(w[i % len(w)] for w in WORDS)}."}
                for i in range(BOOKS + 1, CATALOG + 1)]  # fmt: skip
        shop.write("items", [*shop.read("items"), *more])  # nobody has read these yet
        shop.plugin.mkdir()
        (shop.plugin / "shop_plugin.py").write_text(PLUGIN)
        info = shop.plugin / "shop_plugin-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-plugin\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[llmers.recipes]\nshop = shop_plugin\n")
        return shop

    @property
    def plugin(self) -> Path:
        return self.home / "plugin"

    @property
    def encoder(self) -> Path:
        return self.home / "encoder"

    def train_encoder(self, seed: int) -> None:
        """Write a small BERT with random weights that knows the words of the catalog."""
        import torch
        from transformers import BertConfig, BertModel, BertTokenizerFast

        texts = " ".join(note({"messages": [{"content": f"{r['title']}. {r['description']}"}]})
                         + r["description"] for r in self.read("items")).lower()  # fmt: skip
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(set(re.findall(r"\w+", texts)))]
        self.encoder.mkdir(exist_ok=True)
        (self.encoder / "vocab.txt").write_text("\n".join(words))
        tokenizer = BertTokenizerFast(str(self.encoder / "vocab.txt"), model_max_length=64)
        tokenizer.save_pretrained(self.encoder)
        torch.manual_seed(seed)
        BertModel(BertConfig(
            vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=64,
        )).save_pretrained(self.encoder)  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("LLMERS_", "DAGSTER_"))}
        return kept | {
            "LLMERS_HOME": str(self.home), "LLMERS_CONFIG": str(self.home / "llmers.toml"),
            "DAGSTER_HOME": str(self.home / "dagster_home"), "SHOP_KEY": "sk-shop-0123456789",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(self.plugin)]),
            "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def edit(self, file: str, before: str, after: str) -> None:
        """Replace text in a file below ``home``."""
        path = self.home / file
        text = path.read_text()
        assert before in text, (file, before)
        path.write_text(text.replace(before, after, 1))

    def add_column(self, name: str, values: list[str]) -> None:
        rows = self.read("items")
        for row, value in zip(rows, values, strict=True):
            row[name] = value
        self.write("items", rows)

    def append(self, lines: list[list[Any]]) -> None:
        """Append rows to the interactions."""
        with (self.folder / "interactions.csv").open("a", newline="") as file:
            csv.writer(file).writerows(lines)

    def command(self, *words: str) -> list[str]:
        """Return the command line of ``llmers`` in a process of its own."""
        return [sys.executable, "-c", "from llmers_pipelines.cli import main; main()", *words]
