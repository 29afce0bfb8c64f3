"""What distillation adds to a plan: names of teachers, and the control of their rankings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ..config import CONTROLS, PAIR_ARMS
from ..models.seams import check_seams
from ..plan import Distill, Generate, Node, PlanError, Teach, Train, component_slug, rewrite, walk


def named_teachers(train: Train, owner: str, label_of: Callable[[Train], str]) -> Train:
    """Return ``train`` with readable names for the models that it learns from or asks.

    Raises PlanError for a ``Distill`` without a teacher, and for a trained teacher on another log.
    """
    taught = [n for n in train.inputs if isinstance(n, Teach)]
    if isinstance(train, Distill) and not taught:
        raise PlanError(f"{owner}: a Distill needs a Teach among its parts; without one it is a "
                        "Train")  # fmt: skip
    for teacher in taught:
        logs = {teacher.log, *(s.log for s in teacher.sources if isinstance(s, Train))}
        if logs != {train.log}:
            found = ", ".join(sorted(log.name if log else "none" for log in logs))
            raise PlanError(
                f"{owner}: student and teacher need one log, {train.log.name}; found {found}: "
                "held-out rows of one split are training rows of another"
            )

    for node in walk(taught):
        if isinstance(node, Train):
            check_seams(node.backbone, node.parts, f"{owner}, its teacher")

    def named(node: Node) -> Node:
        if not isinstance(node, Train) or node.label or node == train:
            return node
        parts = [component_slug(p) for p in node.parts]
        return dataclasses.replace(node, label="__".join([label_of(node), *parts]))

    return rewrite(train, named)


def named_as_methods(train: Train, methods: Mapping[Node, Node]) -> Train:
    """Return ``train`` whose teachers go by the name of the method that they are as well."""
    return rewrite(train, lambda node: node if node == train else methods.get(node, node))


def controls_of(train: Train, configured: Sequence[str]) -> tuple[str, ...]:
    """Return the configured control arms that this model has inputs for."""
    if not train.parts:
        return ()
    without = {"template"}
    if not any(isinstance(n, Teach) for n in train.inputs):
        without.add("shuffled")
    if not any(n.prefix == "augmented_interactions" for n in train.inputs):
        without.update(PAIR_ARMS)
    return tuple(c for c in configured if c not in without)


def required_controls(train: Train) -> tuple[str, ...]:
    """Return the controls that fit the inputs of a model: without all of them none is claimed."""
    asked = any(isinstance(n, Generate) and n.engine != "template" for n in walk([train]))
    return controls_of(train, CONTROLS) + (("template",) if asked and train.parts else ())
