"""The contract that every recipe inherits: it builds, trains, exports and serves without an LLM.

A plug-in's test is three lines: subclass ``RecipeContract`` and name the recipe.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..config import Method
from ..data.tasks import CLICK_TASKS, FIELD_TASKS
from ..data.training import TEST, TRAIN, VALID, Field, IdMap, TrainingData
from ..data.vectors import VectorTable
from ..data.weights import NamedWeights
from ..data.words import word_codes
from ..orchestrate.build import base_of, instantiate
from ..orchestrate.references import task_of
from ..plan import Derive, Embed, Generate, Node, Pin, Table, Teach, Train, Tune, walk
from ..recipe import discover
from .planted import planted_rings
from .serving import served_apart

WIDTH = 24  # of the stand-in text vectors
TEXTS = 8  # stand-in texts of nodes that are no item
BASE_WORDS = ("Its base is", "Off is")  # how a recipe names what stands where no part is inert


class RecipeContract:
    """Tests of one recipe on tiny planted data. ``settings`` and ``backbone`` choose a variant."""

    recipe: ClassVar[str] = ""
    backbone: ClassVar[str] = ""
    backbone_settings: ClassVar[dict[str, Any]] = {}
    settings: ClassVar[dict[str, Any]] = {}

    def node(self) -> Train:
        """Return the training node, small enough for a test."""
        method = Method(self.recipe, self.backbone, dict(self.settings),
                        dict(self.backbone_settings))  # fmt: skip
        _, node = instantiate(method, discover())
        return small(node)

    def test_it_is_documented(self) -> None:
        recipe = discover()[self.recipe]
        assert recipe.doc, "a recipe says what the LLM adds and what is served"
        if not recipe.is_baseline:
            for word in ("The LLM adds", "Served online", "Deviations"):
                assert word in recipe.doc, f"the docstring lacks '{word}: ...'"

    def test_it_trains_exports_and_serves_without_a_language_model(self, tmp_path: Path) -> None:
        from ..train.trained import save_trained

        node = self.node()
        data = contract_data(node.log.task)
        trained = _fit(node, data)
        save_trained(trained, tmp_path)
        case, here = _case(trained, data)
        np.testing.assert_allclose(served_apart(tmp_path, case), here, atol=1e-5, rtol=1e-5)

    def test_without_its_parts_it_is_its_backbone(self) -> None:
        """Attached and taken away again, parts leave nothing; at work, no draw of the backbone."""
        from .inert_net import moved_weights, trace, without_dropout

        node = self.node()
        if (base := base_of(node)) is None:
            return
        data = contract_data(node.log.task)
        inputs = inputs_of(node, data)
        alone = trace(node.backbone, data)
        removed = trace(node.backbone, data, node.parts, inputs, removed=True)
        assert moved_weights(alone, removed) == []
        np.testing.assert_array_equal(alone.stream, removed.stream)
        plain = without_dropout(node.backbone)
        quiet, works = trace(plain, data), trace(plain, data, node.parts, inputs)
        np.testing.assert_array_equal(quiet.stream, works.stream)
        assert moved_weights(quiet, works), "the enhancement changes nothing"
        _, one = _case(_fit(base, data), data)
        _, enhanced = _case(_fit(node, data), data)
        assert not np.allclose(one, enhanced), "the enhancement changes nothing that is served"

    def test_inert_parts_leave_the_backbone_alone(self) -> None:
        """Parts that can be made inert are attached so; for others the recipe names its base."""
        from .inert_net import moved_weights, trace

        node = self.node()
        parts = [p for part in node.parts if (p := part.inert()) is not None]
        if without := [type(part).__name__ for part in node.parts if part.inert() is None]:
            doc = " ".join(discover()[self.recipe].doc.split())
            assert any(words in doc for words in BASE_WORDS), (
                f"{', '.join(without)} cannot be made inert (inert() is None), so the docstring of "
                f"{self.recipe!r} must say what the method is compared with: 'Its base is ...'"
            )
        if not parts:
            return
        data = contract_data(node.log.task)
        alone = trace(node.backbone, data)
        inert = trace(node.backbone, data, parts, inputs_of(node, data))
        assert moved_weights(alone, inert) == []
        np.testing.assert_array_equal(alone.stream, inert.stream)


def small(node: Train) -> Train:
    """Return ``node`` with a narrow backbone and two epochs, in all places that name its width."""
    backbone = node.backbone
    changes: dict[str, Any] = {}
    names = {f.name: f for f in dataclasses.fields(backbone)}
    if "fit" in names:
        changes["fit"] = dataclasses.replace(backbone.fit, epochs=2, min_epochs=1, batch=16)
    if not changes:
        return node
    return dataclasses.replace(node, backbone=dataclasses.replace(backbone, **changes))


def contract_data(task: str) -> TrainingData:
    """Return a small log of ``task``: planted rings, or labelled impressions with fields.

    Where the task has them, rows have scenarios, and items have texts.
    """
    if task_of(task) not in FIELD_TASKS:
        data = planted_rings(n_users=60, n_items=24).data
        if task_of(task) != "retrieval":
            return data
        kind = np.concatenate([[0], 1 + np.arange(data.n_items) % 3])
        return dataclasses.replace(data, task="retrieval", item_texts=_texts(kind, data.n_items))
    rng = np.random.default_rng(0)
    users, n_items, each = 30, 20, 12
    user = np.repeat(np.arange(1, users + 1), each)
    item = np.concatenate([rng.permutation(n_items)[:each] + 1 for _ in range(users)])
    label = ((user + item) % 2).astype(np.float32)
    split = np.tile([TRAIN] * (each - 4) + [VALID] * 2 + [TEST] * 2, users).astype(np.int8)
    kind = np.concatenate([[0], 1 + np.arange(n_items) % 3]).astype(np.int32)
    group = np.concatenate([[0], 1 + np.arange(users) % 2]).astype(np.int32)
    scenario = Field((1 + np.arange(len(user)) % 2).astype(np.int32), ("app", "web"))
    return TrainingData(
        task_of(task), IdMap(tuple(f"u{n}" for n in range(1, users + 1))),
        IdMap(tuple(f"i{n}" for n in range(1, n_items + 1))),
        user, item.astype(np.int64), np.tile(np.arange(each), users).astype(np.int64), split,
        rating=np.where(label > 0, 5, 2).astype(np.float32),
        label=label if task_of(task) in CLICK_TASKS else None,
        item_fields={"genre": Field(kind, ("a", "b", "c"))},
        user_fields={"group": Field(group, ("x", "y"))},
        item_texts=_texts(kind, n_items) if task_of(task) == "news" else {},
        scenario=scenario if task_of(task) == "multi_scenario" else None,
    )  # fmt: skip


def _texts(kind: np.ndarray, n_items: int) -> dict[str, Field]:
    """Return a title of two or three words per item, one of them its kind, and a longer body."""
    words = ("red", "green", "blue", "car", "house", "tree", "boat")
    titles = [
        " ".join([words[kind[i] - 1], words[3 + i % 4], *(["new"] if i % 3 == 0 else [])])
        for i in range(1, n_items + 1)
    ]
    bodies = [f"about a {t}" if i % 5 else "" for i, t in enumerate(titles)]
    known = np.ones(n_items, bool)
    return {"title": word_codes(titles, known), "body": word_codes(bodies, known)}


def stand_in(node: Node, data: TrainingData, width: int = WIDTH) -> Any:
    """Return an artifact for ``node``: seeded vectors, neighbours or rankings. No model runs."""
    rng = np.random.default_rng(list(node.name.encode()))
    if isinstance(node, Table) and node.table == "kg":
        return _stand_in_facts(data, rng)
    if isinstance(node, Table) and node.table == "kg_link":
        return pa.table({"item_id": data.items.ids, "entity_id": [f"e{i}" for i in data.items.ids]})
    if isinstance(node, Teach) and node.how.exports == "states":
        return _states(data, node.how.blocks, width, rng)
    if isinstance(node, Teach):
        return _rankings(data, node.how.k, rng)
    if isinstance(node, Tune):
        return _stand_in_weights(node, data, rng)
    entity = _entity(node)
    ids = data.items if entity == "item" else data.users
    if entity == "scenario" and data.scenario is not None:
        ids = IdMap(data.scenario.vocabulary)
    if isinstance(node, Generate):
        return _stand_in_pairs(data, rng)
    if isinstance(node, Derive) and node.how.output == "table" and node.how.rows == "positions":
        return _stand_in_edits(data, rng)
    if isinstance(node, Derive) and node.how.rows in ("edges", "graphs"):
        return {"edges": _stand_in_edges, "graphs": _stand_in_graphs}[node.how.rows](data, rng)
    over = node.over if isinstance(node, Embed) else None
    if isinstance(over, Derive) and not hasattr(over.how, "side"):
        vectors = rng.normal(size=(TEXTS, width)).astype(np.float32)
        ids = tuple(f"t{n}" for n in range(TEXTS))
        return VectorTable("text", ids, vectors, np.arange(TEXTS) % 4 > 0)
    if isinstance(node, Derive) and node.how.output == "table" and node.how.rows == "interactions":
        return _stand_in_rows(data, rng)
    if isinstance(node, Derive) and node.how.output == "table" and node.how.rows == "samples":
        return _stand_in_samples(data, rng)
    if isinstance(node, Derive) and node.how.output == "table":
        k = min(3, len(ids) - 1)
        rows = [(a, r + 1, ids.ids[(i + r + 1) % len(ids)], 1.0 - 0.1 * r)
                for i, a in enumerate(ids.ids) for r in range(k)]  # fmt: skip
        own, rank, other, cos = zip(*rows, strict=True)
        return pa.table({f"{entity}_id": own, "rank": rank, "other_id": other, "cos": cos})
    dim = _width(node, width) if isinstance(node, Derive) else max(width, 80)
    vectors = rng.normal(size=(len(ids), dim)).astype(np.float32)
    mask = np.ones(len(ids), bool)
    mask[::7] = False
    return VectorTable(entity, ids.ids, vectors, mask)


def _width(node: Derive, width: int) -> int:
    """Return the width of derived vectors: their own setting, or that of the model they are of."""
    read = [s.node if isinstance(s, Pin) else s for s in node.sources]
    model = next((s.backbone for s in read if isinstance(s, Train)), None)
    usual = getattr(model, "dim", width) + ("points" in getattr(model, "seams", ()))
    return getattr(node.how, "dim", usual)


def _stand_in_weights(node: Tune, data: TrainingData, rng: np.random.Generator) -> NamedWeights:
    """Return the weights of another start of the backbone that is pretrained, moved a little."""
    trunk = node.how.backbone.build(data, 1).trunk
    own = {name: t.detach().numpy().copy() for name, t in trunk.items()}
    return NamedWeights({
        name: a if ".running_" in name else a + 0.1 * rng.normal(size=a.shape).astype(np.float32)
        for name, a in own.items()
    })  # fmt: skip


def _stand_in_facts(data: TrainingData, rng: np.random.Generator) -> pa.Table:
    """Return triples of each item with two relations and a few other entities."""
    items = [f"e{i}" for i in data.items.ids]
    tails = [f"genre{t}" for t in rng.integers(4, size=len(items))]
    tails += [f"person{t}" for t in rng.integers(9, size=len(items))]
    relations = ["has_genre"] * len(items) + ["has_actor"] * len(items)
    return pa.table({"head_id": items * 2, "relation": relations, "tail_id": tails})


def _stand_in_edges(data: TrainingData, rng: np.random.Generator) -> pa.Table:
    """Return three labels, each on half of the training pairs."""
    rows = data.split == TRAIN
    pairs = sorted({(data.users.ids[u - 1], data.items.ids[i - 1])
                    for u, i in zip(data.user[rows], data.item[rows], strict=True)})  # fmt: skip
    edges = [(*p, a) for a in ("plot", "price", "size") for p in pairs if rng.random() < 0.5]
    user, item, aspect = zip(*edges, strict=True)
    return pa.table({"user_id": user, "item_id": item, "aspect": aspect})


def _stand_in_graphs(data: TrainingData, rng: np.random.Generator) -> pa.Table:
    """Return two rounds of graphs of most users: two known items joined by a text, and guesses."""
    rows = []
    for user in range(1, data.n_users + 1):
        own = data.item[data.user_start[user] : data.user_start[user + 1]][:4]
        for number in (1, 2) if user % 5 and len(own) > 3 else ():
            known = list(dict.fromkeys(f"item:{data.items.ids[i - 1]}" for i in own[: 2 * number]))
            about = {"user_id": data.users.ids[user - 1], "round": number, "cut": 2 * number}
            middle = f"text:t{rng.integers(TEXTS)}"
            new = f"item:{data.items.ids[rng.integers(data.n_items)]}"
            nodes = [middle, *known]
            rows += [
                {**about, "kind": "original", "nodes": nodes, "sources": [1, 0],
                 "targets": [0, len(nodes) - 1]},
                {**about, "kind": "divergent", "nodes": [new, known[-1]], "sources": [1],
                 "targets": [0]},
            ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def _rankings(data: TrainingData, k: int, rng: np.random.Generator) -> pa.Table:
    from ..teach.teacher import positions_of, to_table

    user, position = positions_of(data)
    size = min(k, data.n_items)
    item = np.stack([rng.permutation(data.n_items)[:size] + 1 for _ in user])
    distance = np.sort(rng.random((len(user), size)).astype(np.float32), axis=1)
    return to_table(data, user, position, item, distance)


def _states(data: TrainingData, blocks: int, width: int, rng: np.random.Generator) -> pa.Table:
    from ..teach.teacher import positions_of, states_table

    user, position = positions_of(data)
    states = rng.normal(size=(len(user), blocks, width)).astype(np.float16)
    return states_table(data, user, position, tuple(range(1, blocks + 1)), states)


def _stand_in_pairs(data: TrainingData, rng: np.random.Generator) -> pa.Table:
    """Return a liked and a disliked item of every user, neither met in training; a few without."""
    liked, disliked = [], []
    for user in range(1, data.n_users + 1):
        met = data.item[data.user_start[user] : data.user_start[user + 1]]
        free = np.setdiff1d(np.arange(1, data.n_items + 1), met)
        two = [data.items.ids[i - 1] for i in rng.choice(free, 2, replace=False)]
        liked.append(two[:1] if user % 7 else None)
        disliked.append(two[1:] if user % 7 else None)
    return pa.table({"user_id": data.users.ids, "liked": liked, "disliked": disliked})


def _stand_in_edits(data: TrainingData, rng: np.random.Generator) -> pa.Table:
    """Return one edit of every second user's training rows, to an item drawn at random."""
    rows = []
    for user in range(1, data.n_users + 1, 2):
        mine = data.item[(data.user == user) & (data.split == TRAIN)]
        place = int(rng.integers(len(mine)))
        old, new = data.items.ids[mine[place] - 1], data.items.ids[rng.integers(data.n_items)]
        rows.append({"user_id": data.users.ids[user - 1], "position": place, "old_id": old,
                     "new_id": new, "logp": float(-rng.random())})  # fmt: skip
    return pa.Table.from_pylist(rows)


def _stand_in_rows(data: TrainingData, rng: np.random.Generator) -> pa.Table:
    """Return an item of every second user that the user did not train on."""
    rows = []
    for user in range(1, data.n_users + 1, 2):
        met = data.item[(data.user == user) & (data.split == TRAIN)]
        item = int(rng.choice(np.setdiff1d(np.arange(1, data.n_items + 1), met)))
        rows.append({"user_id": data.users.ids[user - 1], "item_id": data.items.ids[item - 1],
                     "source": "stand-in"})  # fmt: skip
    return pa.Table.from_pylist(rows)


def _stand_in_samples(data: TrainingData, rng: np.random.Generator) -> pa.Table:
    """Return half of the training pairs, half of these hard."""
    pairs = np.unique(np.stack([data.user, data.item], 1)[data.split == TRAIN], axis=0)[::2]
    return pa.table({
        "user_id": [data.users.ids[u - 1] for u in pairs[:, 0]],
        "item_id": [data.items.ids[i - 1] for i in pairs[:, 1]],
        "label": np.ones(len(pairs), np.int8), "score": rng.integers(0, 11, len(pairs)),
        "hard": rng.random(len(pairs)) < 0.5,
    })  # fmt: skip


def _entity(node: Node) -> str:
    source = node.over if isinstance(node, Embed) else node
    side = getattr(source.how, "side", "") if isinstance(source, Derive) else ""
    if side in ("item", "user"):
        return side
    for n in walk([node]):
        if isinstance(n, Generate):
            return n.task.entity
    for n in walk([node]):
        if isinstance(n, Embed) and isinstance(n.over, Table):
            return "user" if n.over.table == "users" else "item"
    return "item"


def inputs_of(node: Train, data: TrainingData) -> dict[Node, Any]:
    """Return stand-ins for all that the parts of ``node`` read."""
    return {n: stand_in(n, data) for n in node.inputs if n != node.log}


def _fit(node: Train, data: TrainingData) -> Any:
    from ..train.loop import fit

    return fit(node, data, inputs_of(node, data), seed=0)


def _case(trained: Any, data: TrainingData) -> tuple[dict[str, Any], np.ndarray]:
    users = list(range(1, min(5, data.n_users) + 1))
    histories = [data.item[data.user_start[u] : data.user_start[u + 1]][:3].tolist() for u in users]
    rows = data.task in FIELD_TASKS
    items = [1 + i % data.n_items for i in range(len(users))]
    case = {"rows": rows, "users": users, "items": items, "histories": histories}
    arrays = [np.array(h) for h in histories]
    if rows:
        out = trained.served.predict(np.array(users), np.array(items), arrays, None)
    else:
        out = trained.scores(np.array(users), arrays)[:, 1:]
    return case, np.asarray(out, float)
