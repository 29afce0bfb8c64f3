"""``[gpu]`` of llmers.toml: how many steps share the devices, and what a cluster gives each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

POOL = "gpu"


@dataclass(frozen=True)
class Gpu:
    """What a step that computes on a device asks of its surroundings."""

    slots: int = 0  # such steps at once; 0 = as the pool's page in the UI says (1 at first)
    count: int = 1  # devices of one step on a cluster; 0 = its tags ask for none
    resource: str = "nvidia.com/gpu"
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()

    def tags(self) -> dict[str, Any]:
        """Return the op tags of a step: Kubernetes reads the first, the second is for Docker.

        dagster-k8s applies ``dagster-k8s/config`` to the pod of the step. dagster-docker reads no
        tags of steps: ``llmers/docker`` holds the same wish in the form of its
        ``container_kwargs``, for launchers that place steps, and for people.
        """
        if not self.count:
            return {}
        pod: dict[str, Any] = {}
        if self.node_selector:
            pod["node_selector"] = dict(self.node_selector)
        if self.tolerations:
            pod["tolerations"] = [dict(t) for t in self.tolerations]
        limits = {"limits": {self.resource: str(self.count)}}
        device = {"Driver": "nvidia", "Count": self.count, "Capabilities": [["gpu"]]}
        return {
            "dagster-k8s/config": {
                "container_config": {"resources": limits},
                **({"pod_spec_config": pod} if pod else {}),
            },
            "llmers/docker": {"device_requests": [device]},
        }


def read_gpu(where: str, body: Mapping[str, Any]) -> Gpu:
    """Return the table ``[gpu]``; ``ValueError`` names the setting and the mend."""
    known = [f.name for f in fields(Gpu)]
    for name, value in body.items():
        if name not in known:
            raise ValueError(f"{where} [gpu]: unknown setting {name!r}; known: {', '.join(known)}")
        if name in ("slots", "count") and not (isinstance(value, int) and 0 <= value <= 64):
            raise ValueError(f"{where} [gpu]: {name} = {value!r}; a whole number from 0 to 64")
    given = {**body, "tolerations": tuple(body.get("tolerations", ()))}
    return Gpu(**given)
