"""Training and validation are the same without the rows of the test split: neither reads them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_checkpoint import inputs_for, log_for, node, small, weights, without_seconds

from llmers_pipelines.data.blind import without_test
from llmers_pipelines.data.training import TEST
from llmers_pipelines.orchestrate.backbones import backbones
from llmers_pipelines.train.loop import fit


@pytest.mark.parametrize("slug", backbones())
def test_no_backbone_trains_or_is_judged_on_test_rows(slug: str) -> None:
    backbone = small(backbones()[slug])
    data = log_for(backbone)
    blind = without_test(data)
    assert (data.split == TEST).any() and not (blind.split == TEST).any()
    inputs = inputs_for(data)
    with_rows, without = (fit(node(backbone, d), d, inputs, seed=1) for d in (data, blind))
    assert without_seconds(with_rows.epochs) == without_seconds(without.epochs)
    one, other = weights(with_rows), weights(without)
    assert one.keys() == other.keys() and any(v.size for v in one.values())
    for name in one:
        assert np.array_equal(one[name], other[name]), name


def test_all_other_rows_and_every_column_stay() -> None:
    data = log_for(small(backbones()["mmoe"]))
    blind = without_test(data)
    keep = data.split != TEST
    assert blind.users == data.users and blind.items == data.items
    for f in dataclasses.fields(data):
        value, now = getattr(data, f.name), getattr(blind, f.name)
        if isinstance(value, np.ndarray):
            assert np.array_equal(now, value[keep]), f.name
        elif value is None:
            assert now is None
    assert data.scenario is not None and blind.scenario is not None
    assert np.array_equal(blind.scenario.codes, data.scenario.codes[keep])
