"""The network of CFKG. Shapes: T triples, U users, N items, M other entities, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .knowledge_net import KnowledgeNet, Triples
from .losses_net import bce


class CFKGNet(KnowledgeNet):
    """Items share their vectors with the graph; a user is moved by the relation of choosing."""

    def _learns(self, triples: Triples) -> None:
        d, others = self.config["dim"], triples.n_entities - self.config["n_items"]
        self.other = nn.Parameter(torch.zeros(others, d))
        self.relation = nn.Parameter(torch.zeros(len(triples.relations), d))
        self.chosen = nn.Parameter(torch.zeros(d))
        with torch.no_grad():
            for table in (self.other, self.relation, self.chosen):
                table.normal_(0, self.config["table_std"])

    def users(self) -> Tensor:
        own = self.user_table.weight
        return (own + self.chosen) * own.detach().any(1, keepdim=True)  # no one is moved: unknown

    def items(self) -> Tensor:
        return self.item_table.weight

    def triple_loss(self, head: Tensor, relation: Tensor, tail: Tensor, wrong: Tensor) -> Tensor:
        entities = torch.cat([self.item_table.weight, self.other])
        moved = entities[head] + self.relation[relation]
        right, other = ((moved * entities[ids]).sum(-1) for ids in (tail, wrong))
        return bce(right, other[:, None])
