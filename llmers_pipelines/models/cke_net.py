"""The network of CKE. Shapes: T triples, N items, R relations, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .knowledge_net import KnowledgeNet, Triples


def transr_distance(head: Tensor, relation: Tensor, tail: Tensor, maps: Tensor) -> Tensor:
    """Return ``|h M + r - t M|^2`` (T,) with h M, r, t M at length 1.

    head, relation, tail (T, D); maps (T, D, D).
    """
    h, t = (F.normalize((e[:, None] @ maps)[:, 0], dim=-1) for e in (head, tail))
    return (h + F.normalize(relation, dim=-1) - t).square().sum(-1)


class CKENet(KnowledgeNet):
    """An item is its own vector and that of its entity together."""

    def _learns(self, triples: Triples) -> None:
        d, relations = self.config["dim"], len(triples.relations)
        self.entity_table = nn.Embedding(triples.n_entities + 1, d, padding_idx=0)
        self.relation = nn.Parameter(torch.empty(relations, d))
        self.maps = nn.Parameter(torch.eye(d).repeat(relations, 1, 1))
        linked = torch.from_numpy(triples.linked)[:, None].float()
        self.register_buffer("linked", linked, persistent=False)
        with torch.no_grad():
            nn.init.xavier_uniform_(self.relation)
            self.entity_table.weight.normal_(0, self.config["table_std"])[0] = 0

    def users(self) -> Tensor:
        return self.user_table.weight

    def items(self) -> Tensor:
        entities = self.entity_table.weight[: len(self.linked)]
        return self.item_table.weight + entities * self.linked

    def triple_loss(self, head: Tensor, relation: Tensor, tail: Tensor, wrong: Tensor) -> Tensor:
        h, t, w = (self.entity_table(ids) for ids in (head, tail, wrong))
        r, maps = self.relation[relation], self.maps[relation]
        right = transr_distance(h, r, t, maps)
        return F.softplus(right - transr_distance(h, r, w, maps)).mean()
