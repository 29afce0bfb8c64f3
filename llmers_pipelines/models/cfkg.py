"""CFKG: users, items and facts in one space (Ai et al., Algorithms 2018, arXiv:1805.03352)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .knowledge_settings import GraphOfFacts
from .seams import Backbone


@dataclass(frozen=True)
class CFKG(GraphOfFacts, Backbone):
    """``s = <p_u + r, q_j>``: to choose an item is one more relation r of a graph of facts.

    Items are entities: a triple (h, r', t) is learned by ``-ln sigmoid(<e_h + r', e_t>) - ln
    sigmoid(-<e_h + r', e_wrong>)`` with an entity drawn at random as the wrong tail (eqs. 2 to 5),
    in the same step as the pairs.

    Usual: width 64 to 100, one wrong tail or a few per triple, learning rate 1e-3 with Adam. The
    paper reports on Amazon 5-core categories (CDs, Clothing, Cell Phones, Beauty), facts made of
    meta data; as re-run for KGAT, Recall@20 0.1142 on Amazon-Book and 0.0723 on Last-FM, 80/20 by
    user, all items ranked (unverified). Mistakes: the released facts hold "also bought" and "also
    viewed", which tell of test purchases; items with one table for pairs and another for facts,
    between which nothing passes; scoring without the relation of choosing.

    Deviation: ``loss`` of the pairs is a softmax (see BPRMF); "bce" is the paper's negative
    sampling.
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    net: ClassVar[str] = "cfkg_net:CFKGNet"
