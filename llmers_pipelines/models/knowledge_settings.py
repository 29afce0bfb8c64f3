"""Settings that the recommenders over a knowledge graph share, and how their networks are built."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plan import Node
from .fit import Fit

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class GraphOfFacts:
    """Common part of a frozen dataclass of settings; its network is the class ``net`` names.

    Pairs are learned as in BPRMF, and in the same step a draw of triples. Another backbone's parts
    fit, but controls would permute the links as well, so methods do not choose it by name.
    """

    seams: ClassVar[frozenset[str]] = frozenset({
        "item_output", "user_state", "score", "extra_loss", "pair_loss", "item_table",
        "user_table",
    })  # fmt: skip
    tasks: ClassVar[frozenset[str]] = frozenset({"collaborative", "sequential"})
    loader: ClassVar[str] = "pair"
    net: ClassVar[str] = ""  # "cke_net:CKENet"

    kg: Node  # rows head_id, relation, tail_id
    link: Node  # rows item_id, entity_id
    dim: int = 64
    loss: str = "ssm"
    negatives: int = 256  # shared by a batch; only for "ssm"
    temperature: float = 0.2
    l2: float = 1e-4  # on the initial vectors of the batch
    weight: float = 1.0  # of the triples
    triples: int = 1024  # drawn in each step
    table_std: float = 0.1
    fit: Fit = Fit(lr=1e-3, batch=1024, epochs=500, min_epochs=20, patience=20)

    def build(self, data: TrainingData, seed: int) -> Any:
        """Return the untrained network; it reads the triples before step 0."""
        from .knowledge_net import KnowledgeSettings

        module, _, name = self.net.partition(":")
        kind = getattr(importlib.import_module(f"{__package__}.{module}"), name)
        facts = KnowledgeSettings(self.kg, self.link, self.weight, self.triples)
        return kind.of(self, data, seed, knowledge=facts)
