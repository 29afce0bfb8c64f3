"""What is special to DLRM: dense features and inner products."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from llmers_pipelines.models.batches import CtrBatch
from llmers_pipelines.models.dlrm import DLRM
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.train.ctr_loader import Loader

pytestmark = pytest.mark.proof("dlrm", "equations")

SMALL = DLRM(dim=4, mlp=(8, 4), bottom=(6,))


@pytest.fixture(scope="module")
def data():
    return contract_data("ctr")


@pytest.mark.parametrize("itself", [False, True])
def test_the_top_reads_the_dense_vector_and_each_product_once(data, itself):
    net = dataclasses.replace(SMALL, itself=itself).build(data, 0).eval()
    b = next(Loader(data, SMALL, 0).epoch(1))
    d, e = net.bottom(net.dense(b)), net.embeddings(b)
    v = [d, *e.unbind(1)]
    products = [(v[i] * v[j]).sum(1) for i in range(len(v)) for j in range(i + 1 if itself else i)]
    expected = net.tower(torch.cat([d, torch.stack(products, 1)], 1))
    torch.testing.assert_close(net.logits(b), expected)


def test_dense_features_count_the_history(data):
    net = SMALL.build(data, 0)
    b = CtrBatch(
        user=torch.tensor([1, 2]), item=torch.tensor([3, 3]),
        history=torch.tensor([[0, 4, 5, 6], [0, 0, 0, 0]]),
        history_rating=torch.tensor([[0.0, 5.0, 2.0, 5.0], [0.0] * 4]), label=None, rows=None,
    )  # fmt: skip
    expected = torch.tensor([[math.log(4), math.log(3), 2 / 3], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(net.dense(b), expected)
    without = dataclasses.replace(b, history_rating=None)
    torch.testing.assert_close(net.dense(without)[0, 2], torch.tensor(1.0))
