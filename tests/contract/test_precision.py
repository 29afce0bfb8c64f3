"""A step in bfloat16 of every backbone that is trained: products in it, loss and gradients not."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from llmers_pipelines.api import *  # noqa: F403  (all backbones are known)
from llmers_pipelines.config import Method
from llmers_pipelines.models.hooks_net import attach_parts
from llmers_pipelines.models.seams import Backbone
from llmers_pipelines.orchestrate.build import instantiate
from llmers_pipelines.plan import Train
from llmers_pipelines.recipe import discover
from llmers_pipelines.testing.contract import contract_data, inputs_of, small
from llmers_pipelines.train.loop import load_loader

RECIPES = discover()
NODES = {
    name: small(instantiate(Method(name, "", {}, {}), RECIPES)[1])
    for name, recipe in RECIPES.items()
    if recipe.is_baseline
}
TRAINED = {name: node for name, node in NODES.items() if not node.backbone.closed_form}
LOSSES = [
    (name, {"loss": loss})
    for name in ("sasrec", "lightgcn", "bprmf")
    for loss in ("ce", "ssm", "in_batch", "bce", "bpr")
]
CASES = [(name, {}) for name in TRAINED] + LOSSES


def test_every_backbone_that_is_trained_is_among_them():
    kinds, todo = set(), [Backbone]
    while todo:
        below = todo.pop().__subclasses__()
        kinds |= {k for k in below if k.__module__.startswith("llmers_pipelines.models.")}
        todo += below
    assert {k for k in kinds if not k.closed_form} == {type(n.backbone) for n in TRAINED.values()}


@pytest.mark.parametrize(
    ("name", "settings"), CASES, ids=["-".join([n, *s.values()]) for n, s in CASES]
)
def test_a_step_in_bfloat16(name, settings):
    node: Train = TRAINED[name]
    backbone = dataclasses.replace(node.backbone, **settings)
    data = contract_data(node.log.task)
    inputs = inputs_of(node, data)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = backbone.build(data, 0)
        if hasattr(model, "read"):
            model.read(data, inputs, 0)
        attach_parts(model, node.parts, data, inputs, 0)
        for hook in model.hooks:
            if hasattr(hook, "begin_epoch"):
                with hook.stream():
                    hook.begin_epoch(model, 1)
        batch = next(load_loader(backbone.loader)(data, backbone, 0).epoch(1))
        model.train()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(batch)
        loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert gradients
    assert [n for n, g in gradients.items() if not torch.isfinite(g).all()] == []
