"""Readable names of trainings: what ``Train.label`` says (no part of an identity)."""

from __future__ import annotations

import dataclasses

from ..plan import Node, Train, component_slug, snake


def with_readable_name(node: Node) -> Node:
    """Name a bare backbone inside of a method, such as one that offers candidates: a baseline."""
    if not isinstance(node, Train) or node.parts or node.label:
        return node
    kind = snake(type(node.backbone).__name__)
    return dataclasses.replace(node, label=base_label(node), recipe=kind)


def clean(label: str) -> str:
    """Return ``label`` in the alphabet of asset keys."""
    return "".join(c if c.isalnum() else "_" for c in label.lower())


def base_label(train: Train) -> str:
    """Return the name of a backbone alone: its settings, and its splits where not the usual."""
    tasks = type(train.backbone).tasks
    default = next((t for t in ("ctr", "sequential") if t in tasks), min(tasks, default=""))
    task = train.log.task
    return clean(component_slug(train.backbone) + (f"__{task}" if task != default else ""))
