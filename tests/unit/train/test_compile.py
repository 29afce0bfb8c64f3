"""``train.compile``: a compiled loss trains as the plain one does; a CPU keeps the plain one."""

from __future__ import annotations

import pytest
import torch

from llmers_pipelines.models.bprmf import BPRMF
from llmers_pipelines.models.deepfm import DeepFM
from llmers_pipelines.models.din import DIN
from llmers_pipelines.models.fit import Fit
from llmers_pipelines.models.gru4rec import GRU4Rec
from llmers_pipelines.models.lightgcn import LightGCN
from llmers_pipelines.models.sasrec import SASRec
from llmers_pipelines.plan import Table, Train
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.testing.planted import planted_rings
from llmers_pipelines.train.loop import fit, load_loader

KINDS = [
    SASRec(dim=8, inner=16, max_len=10, dropout=0.0),
    GRU4Rec(dim=8, hidden=8, max_len=10, dropout=0.0),
    LightGCN(dim=8), DeepFM(dim=4, mlp=(8,), dropout=0.0), DIN(dim=4, mlp=(8,), dropout=0.0),
]  # fmt: skip


@pytest.mark.parametrize("backbone", KINDS, ids=lambda b: type(b).__name__)
def test_loss_and_gradients_are_those_of_the_plain_loss(backbone):
    """Traced and differentiated ahead of time; the code generator alone is left out (no C++)."""
    clicks = "ctr" in backbone.tasks
    data = contract_data("ctr") if clicks else planted_rings(n_users=30, n_items=20).data
    model = backbone.build(data, 0).train()
    weights = [p for p in model.parameters() if p.requires_grad]
    compiled = torch.compile(model.loss, backend="aot_eager")
    batches = list(load_loader(backbone.loader)(data, backbone, 0).epoch(1))[:2]
    for batch in batches:  # the second has another shape, mostly
        (plain, mine), (traced, theirs) = (
            (loss, torch.autograd.grad(loss, weights, allow_unused=True))
            for loss in (of(batch) for of in (model.loss, compiled))
        )  # each at once: running statistics move with every call
        torch.testing.assert_close(traced, plain)
        for a, b in zip(mine, theirs, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(b, a, atol=1e-6, rtol=1e-5)


def test_a_cpu_keeps_the_plain_loss(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *a, **k: pytest.fail("compiled on a CPU"))
    data = planted_rings(n_users=10, n_items=10).data
    train = Train(BPRMF(dim=4, fit=Fit(epochs=1, min_epochs=1)), Table("splits", task="sequential"))
    fit(train, data, {}, seed=0, device="cpu", compiled=True)
