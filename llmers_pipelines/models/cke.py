"""CKE: collaborative knowledge-base embedding (Zhang et al., KDD 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .knowledge_settings import GraphOfFacts
from .seams import Backbone


@dataclass(frozen=True)
class CKE(GraphOfFacts, Backbone):
    """``s = <p_u, q_j + v_j>``: v_j is the item's entity, learned by TransR from the triples.

    TransR: ``f = |e_h M_r + r - e_t M_r|^2`` with rows at length 1, and ``-ln sigmoid(f(wrong) -
    f(right))`` where the wrong triple has another tail. Both losses are taken in the same step.
    Items without an entity have v_j = 0.

    Usual: width 64, TransR of the same width, Adam 1e-3 or below, L2 1e-5 to 1e-2 by search. The
    paper has curves over K on MovieLens-1M and IntentBooks; as re-run for KGAT, Recall@20 0.1343 on
    Amazon-Book and 0.0736 on Last-FM, 80/20 by user, all items ranked (unverified). Mistakes: facts
    joined by name and not by the links of the data set; wrong triples drawn among items alone; the
    entity of an item that no triple speaks of left at its random start; facts made of behaviour
    (also bought), which leak. A wrong tail may be right by chance; with thousands of entities this
    is rare and not filtered, as in the paper.

    Deviations: no text and no image vectors (the paper's other two parts); ``loss`` is a softmax
    (see BPRMF), "bpr" is the paper's.
    """

    revision: ClassVar[int] = 2  # ids that training never met are unknown ones
    net: ClassVar[str] = "cke_net:CKENet"
