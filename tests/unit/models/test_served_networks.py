"""A model file may name networks alone: nothing else that can be imported is ever called."""

from __future__ import annotations

import pytest

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
