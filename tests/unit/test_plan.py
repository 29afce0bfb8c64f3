"""The plan: equality, digests, keys, walking."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest

from llmers_pipelines.data.text import ItemText
from llmers_pipelines.derive.pca import PCA
from llmers_pipelines.plan import (
    Component,
    Derive,
    Embed,
    Generate,
    Pin,
    PlanError,
    Table,
    Train,
    check_keys,
    component_slug,
    rewrite,
    snake,
    walk,
)


@dataclass(frozen=True)
class Reducer(Component):
    output: ClassVar[str] = "vectors"
    dim: int = 64
    version: int = 1


@dataclass(frozen=True)
class Owner(Component):
    part: Reducer = Reducer(32)


@dataclass(frozen=True)
class Revised(Component):
    """The same settings under another revision, by a subclass with the same name."""

    revision: ClassVar[int] = 2
    dim: int = 64
    version: int = 1


Revised.__qualname__ = "Reducer"


@dataclass(frozen=True)
class Backbone(Component):
    dim: int = 64


@dataclass(frozen=True)
class Ask(Component):
    produces: ClassVar[str] = "item_summaries"
    entity: ClassVar[str] = "item"
    words: int = 50


@dataclass(frozen=True)
class Attach(Component):
    source: object = None
    weight: float = 0.1


items = Table("items")
log = Table("splits", task="sequential", of=(items,))


def method(dim: int = 64, weight: float = 0.1) -> Train:
    vectors = Embed(Ask(), over=Generate(Ask(), over=items))
    return Train(Backbone(), log, init=(Attach(Derive(Reducer(dim), vectors), weight),))


def test_equal_questions_are_one_node() -> None:
    nodes = walk([method(weight=0.1), method(weight=0.2)])
    assert [n.verb for n in nodes].count("generate") == 1
    assert [n.verb for n in nodes].count("train") == 2
    assert len(nodes) == len(set(nodes))


def test_a_node_of_another_process_is_the_same_node() -> None:
    """Hashes are kept with a node, and those of text differ from process to process."""
    send = """
import pickle, sys
from llmers_pipelines.api import PCA, Derive, Embed, ItemText, items
node = Derive(PCA(32), Embed(ItemText(), over=items))
hash(node), node.inputs
sys.stdout.buffer.write(pickle.dumps(node))
"""
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, "-c", send], capture_output=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
    )  # fmt: skip
    there, here = pickle.loads(done.stdout), Derive(PCA(32), Embed(ItemText(), over=items))
    assert there == here
    assert there in {here}


def test_walk_puts_inputs_first() -> None:
    nodes = walk([method()])
    for i, node in enumerate(nodes):
        assert all(n in nodes[:i] for n in node.inputs)


def test_code_version_ignores_inputs_and_digest_does_not() -> None:
    small = Derive(Reducer(), Embed(Ask(words=10), over=items))
    large = Derive(Reducer(), Embed(Ask(words=20), over=items))
    assert small.code_version == large.code_version
    assert small.digest != large.digest


def test_a_setting_inside_a_part_changes_the_training_alone() -> None:
    before, after = walk([method(weight=0.1)]), walk([method(weight=0.2)])
    changed = [
        a.verb for a, b in zip(before, after, strict=True) if a.code_version != b.code_version
    ]
    assert changed == ["train"]


def test_revision_is_part_of_the_identity() -> None:
    assert Derive(Reducer(), items).code_version != Derive(Revised(), items).code_version


def test_labels_are_no_part_of_the_identity() -> None:
    assert Train(Backbone(), log, label="a") == Train(Backbone(), log, label="b")
    assert Train(Backbone(), log, label="a").digest == Train(Backbone(), log).digest


def test_slugs_name_what_differs_from_the_default() -> None:
    assert component_slug(Reducer()) == "reducer"
    assert component_slug(Reducer(128)) == "reducer__dim128"
    assert component_slug(Attach(items, 0.5)) == "attach__weight0_5"
    # of a part inside it names what differs from the owner's own default
    assert component_slug(Owner()) == "owner"
    assert component_slug(Owner(Reducer(32, version=2))) == "owner__reducer__version2"


@pytest.mark.parametrize(
    ("name", "slug"),
    [("SASRec", "sasrec"), ("LLMInit", "llm_init"), ("ItemText", "item_text"), ("DIN", "din")],
)
def test_snake(name: str, slug: str) -> None:
    assert snake(name) == slug


def test_one_key_for_two_nodes_is_refused_with_both_owners() -> None:
    a, b = Train(Backbone(32), log, label="m"), Train(Backbone(16), log, label="m")
    with pytest.raises(PlanError, match=r"first and second both make 'recommenders/m'"):
        check_keys([a, b], {a: "first", b: "second"})


def test_a_key_with_other_characters_is_refused() -> None:
    with pytest.raises(PlanError, match="only a-z"):
        check_keys([Train(Backbone(), log, label="Bad-Name")])


def test_rewrite_reaches_nodes_inside_components_and_keeps_sharing() -> None:
    def swap(node):
        return (
            Generate(node.task, node.over, llm="template") if isinstance(node, Generate) else node
        )

    changed = rewrite(method(), swap)
    engines = {n.llm for n in walk([changed]) if isinstance(n, Generate)}
    assert engines == {"template"}
    assert changed.digest != method().digest
    assert rewrite(method(), lambda n: n) == method()


def test_a_pin_cuts_the_digest_off_from_what_it_pins() -> None:
    a = Pin(Train(Backbone(32), log, label="base"))
    b = Pin(Train(Backbone(64), log, label="base"))
    assert a.digest == b.digest
    assert a.inputs


def test_values_that_cannot_be_hashed_are_named() -> None:
    with pytest.raises(TypeError, match="cannot be part of a plan"):
        _ = Derive(Reducer(dim={1, 2}), items).digest


def test_wiring_tells_nodes_apart_that_settings_and_inputs_do_not() -> None:
    a, b = Derive(Reducer(1), items), Derive(Reducer(2), items)

    def wired(first: Derive, second: Derive, third: Derive) -> Train:
        return Train(Backbone(), log, init=(Attach(first), Attach(second)), fuse=(Attach(third),))

    one, two = wired(a, b, a), wired(a, b, b)
    assert (one.code_version, one.inputs) == (two.code_version, two.inputs)
    assert one.wiring != two.wiring
    assert method().wiring == ""
