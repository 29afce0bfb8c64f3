"""Network of DeepFM (torch)."""

from __future__ import annotations

import torch
from torch import Tensor

from .click_net import FieldNet


def fm(e: Tensor) -> Tensor:
    """Return (B,): the inner products of all pairs of fields of ``e`` (B, fields, dim), summed.

    ``0.5 sum_k [(sum_i e_ik)^2 - sum_i e_ik^2]`` (DeepFM, equation 2).
    """
    return 0.5 * pairs(e).sum(1)


def pairs(e: Tensor) -> Tensor:
    """Return (B, dim): twice the sum over all pairs of fields of their products, per dimension."""
    return e.sum(1).square() - e.square().sum(1)


class DeepFMNet(FieldNet):
    """``logit = w_0 + sum_i w_i + FM(e) + MLP(vec e)`` with one set of embeddings ``e``."""

    title = "DeepFM"

    def make(self) -> int:
        return self.n_fields * self.dim

    def interact(self, e: Tensor) -> tuple[Tensor, Tensor]:
        second = fm(e)  # before e is flattened: gradients are added up in this order
        return e.flatten(1), second

    def states(self, e: Tensor) -> Tensor:
        """Return ``[pairs of fields ; last hidden layer]``; first-order weights are left out."""
        return torch.cat([pairs(e), self.hidden(e.flatten(1))], 1)
