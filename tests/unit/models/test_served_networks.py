"""A model file may name networks alone: nothing else that can be imported is ever called."""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType

import pytest
import torch

from llmers_pipelines.models.served import FORMAT, rebuild


@pytest.mark.parametrize(
    "net",
    [
        "os:system",
        "subprocess:Popen",
        "torch.nn:Linear",
        "llmers_pipelines.models.served:fold",
        "llmers_pipelines.models.sasrec_net:np",
        "llmers_pipelines.models.sasrec_net:NoSuchNet",
    ],
)
def test_only_networks_of_ours_are_built(net: str, tmp_path) -> None:
    made = tmp_path / "made"
    config = {"format": FORMAT, "net": net, "config": {"command": f"touch {made}"}, "hooks": []}
    with pytest.raises(ValueError, match="network"):
        rebuild(config, {})
    assert not made.exists()


def test_networks_of_an_installed_plugin_are_built_and_no_others(monkeypatch) -> None:
    nets = ModuleType("acme_recipes.nets")
    nets.Net = type("Net", (torch.nn.Linear,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acme_recipes", ModuleType("acme_recipes"))
    monkeypatch.setitem(sys.modules, "acme_recipes.nets", nets)
    size = {"in_features": 1, "out_features": 1, "bias": False}
    config = {"format": FORMAT, "net": "acme_recipes.nets:Net", "config": size, "hooks": []}
    weights = {"weight": torch.ones(1, 1).numpy()}
    with pytest.raises(ValueError, match="plug-ins"):
        rebuild(config, weights)
    plugin = metadata.EntryPoint("x", "acme_recipes.methods", "llmers.recipes")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [plugin])
    assert type(rebuild(config, weights)).__name__ == "Net"
    with pytest.raises(ValueError, match="network"):
        rebuild({**config, "net": "other.nets:Net"}, weights)
