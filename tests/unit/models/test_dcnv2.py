"""What is special to DCN-V2: the crosses."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from llmers_pipelines.models.dcnv2 import DCNv2
from llmers_pipelines.models.dcnv2_net import Cross, LowRankCross
from llmers_pipelines.testing.contract import contract_data
from llmers_pipelines.train.ctr_loader import Loader

pytestmark = pytest.mark.proof("dcnv2", "equations")

SMALL = DCNv2(dim=4, mlp=(8, 4))


@pytest.fixture(scope="module")
def data():
    return contract_data("ctr")


def test_two_crosses_of_the_golden_case():
    cross = Cross(2)
    with torch.no_grad():
        cross.linear.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        cross.linear.bias.copy_(torch.tensor([0.0, 1.0]))
    first = torch.tensor([[1.0, 2.0]])
    one = cross(first, first)
    assert one.tolist() == [[2.0, 10.0]]
    # x_2 = x_0 * (W x_1 + b) + x_1 = (1, 2) * (2, 13) + (2, 10)
    assert cross(first, one).tolist() == [[4.0, 36.0]]


def test_a_cross_has_a_matrix_and_a_bias_and_not_the_vector_of_the_first_version(data):
    net = SMALL.build(data, 0)
    width = net.n_fields * 4
    assert len(net.crosses) == 3
    for layer in net.crosses:
        assert layer.linear.weight.shape == (width, width)
        assert layer.linear.bias.shape == (width,)


def test_a_low_rank_cross_is_the_mixture_of_its_experts_by_hand():
    torch.manual_seed(0)
    cross = LowRankCross(5, rank=2, experts=3).double()
    with torch.no_grad():
        cross.bias.normal_()
    first, x = torch.randn(4, 5).double(), torch.randn(4, 5).double()
    out = cross(first, x)
    for row in range(4):
        gate = torch.softmax(cross.gate.weight @ x[row] + cross.gate.bias, 0)
        expected = x[row].clone()
        for e in range(3):
            low = torch.tanh(cross.inner[e].T @ x[row])
            low = torch.tanh(cross.core[e].T @ low)
            expected = expected + gate[e] * first[row] * (cross.outer[e].T @ low + cross.bias)
        torch.testing.assert_close(out[row], expected)


@pytest.mark.parametrize("rank", [0, 3])
def test_values_stay_small_when_training_starts(data, rank):
    net = dataclasses.replace(SMALL, rank=rank, crosses=6).build(data, 0)
    first = net.embeddings(next(Loader(data, SMALL, 0).epoch(1))).flatten(1)
    assert net.cross(first).abs().max() < 3 * first.abs().max()


def test_parallel_adds_two_readings_and_stacked_reads_the_crosses(data):
    b = next(Loader(data, SMALL, 0).epoch(1))
    net = SMALL.build(data, 0).eval()
    first = net.embeddings(b).flatten(1)
    expected = net.tower(first) + net.cross(first) @ net.cross_out.weight[0]
    torch.testing.assert_close(net.logits(b), expected)
    net = dataclasses.replace(SMALL, structure="stacked").build(data, 0).eval()
    torch.testing.assert_close(net.logits(b), net.tower(net.cross(net.embeddings(b).flatten(1))))


def test_wrong_settings_are_named(data):
    with pytest.raises(ValueError, match=r"'both'.*'parallel' or 'stacked'"):
        dataclasses.replace(SMALL, structure="both").build(data, 0)
    with pytest.raises(ValueError, match="experts=4 needs a rank"):
        dataclasses.replace(SMALL, experts=4).build(data, 0)
