"""Network of the Deep Interest Evolution Network (torch). B rows, L positions, D item width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .click_net import HistoryNet
from .gather_net import taken
from .hooks_net import extra_losses

if TYPE_CHECKING:
    from .batches import CtrBatch
    from .ctr_fields import CtrFields


class AUGRU(nn.Module):
    """A GRU whose update gate is scaled by attention (DIEN, equations 12 and 13).

    ``u~_t = a_t u_t``, ``h_t = (1 - u~_t) h_{t-1} + u~_t c_t`` with
    ``c_t = tanh(W x_t + b + r_t * (U h_{t-1}))``; where a_t = 0 the state stays as it is.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(width, 3 * width)  # of r, u, c
        self.state = nn.Linear(width, 3 * width, bias=False)
        for layer in (self.input, self.state):
            nn.init.uniform_(layer.weight, -(width**-0.5), width**-0.5)
        nn.init.zeros_(self.input.bias)

    def forward(self, x: Tensor, a: Tensor) -> Tensor:
        """Return the last state (B, D) of x (B, L, D) under attention a (B, L)."""
        h = a.new_zeros(len(x), x.shape[2])  # float32 under autocast, as the softmax
        width = x.shape[2]
        for given, weight in zip(self.input(x).unbind(1), a.unsqueeze(2).unbind(1), strict=True):
            own = self.state(h)
            gates = torch.sigmoid(given[:, : 2 * width] + own[:, : 2 * width])
            r, u = gates.chunk(2, 1)
            c = torch.tanh(given[:, 2 * width :] + r * own[:, 2 * width :])
            h = torch.lerp(h, c.to(h.dtype), weight * u)
        return h


class DIENNet(HistoryNet):
    """``logit = MLP([AUGRU(states, a); c; profile])``, states = GRU(h), a = softmax(s_t W c)."""

    title = "DIEN"

    def make(self, auxiliary: float) -> int:
        self.auxiliary = auxiliary
        self.extract = nn.GRU(self.width, self.width, batch_first=True)
        self.attention = nn.Linear(self.width, self.width, bias=False)
        self.evolve = AUGRU(self.width)
        others = torch.arange(1, self._arguments["shape"]["n_items"] + 1)
        self.register_buffer("others", others, persistent=False)
        return 2 * self.width + self.users.n_fields * self._arguments["dim"]

    def fill(self, fields: CtrFields) -> None:
        super().fill(fields)
        met = torch.from_numpy(fields.met.items).nonzero().squeeze(1)
        self.others = met  # no negative wakes an item that training never met

    def interests(self, h: Tensor, mask: Tensor) -> Tensor:
        """Return the GRU's states (B, L, D) of h (B, L, D); mask (B, L) is True if real.

        Padding lies on the left, where a recurrence would carry it on: rows are moved to the left
        end first, so that each starts from a zero state, and the states are moved back.
        """
        length = h.shape[1]
        shift = length - mask.sum(1, keepdim=True)
        at = torch.arange(length, device=h.device)
        states = self.extract(taken(h, (at + shift) % length))[0]
        return taken(states, (at - shift) % length) * mask.unsqueeze(2)

    def weights(self, states: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        """Return a (B, L): softmax over the real positions, 0 for padding (equation 9)."""
        scores = (states @ self.attention(c).unsqueeze(2)).squeeze(2)
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return torch.softmax(scores, 1) * mask

    def evolved(self, batch: CtrBatch) -> tuple[Tensor, Tensor]:
        """Return (logits (B,), states (B, L, D))."""
        h, c = self.history(batch)
        mask = batch.history > 0
        states = self.interests(h, mask)
        u = self.evolve(states, self.weights(states, c, mask))
        x = torch.cat([u, c, self.profile(batch).flatten(1)], 1)
        added, logit = self.columns(self.feature_columns(batch))
        return self.tower(x, added) + logit, states

    def logits(self, batch: CtrBatch) -> Tensor:
        return self.evolved(batch)[0]

    def negatives(self, positive: Tensor) -> Tensor:
        """Return an item per entry of ``positive``, uniform over all others of training.

        There must be two items or more.
        """
        count = len(self.others)
        step = torch.randint(1, count, positive.shape, device=positive.device)
        return self.others[(torch.searchsorted(self.others, positive) + step) % count]

    def auxiliary_loss(self, states: Tensor, batch: CtrBatch) -> Tensor:
        """Return the mean of ``-log s(<h_t, e_{t+1}>) - log(1 - s(<h_t, e'_{t+1}>))``.

        Over all t whose next position is real (equations 6 and 7); e' is another item's vector.
        0 where training met a single item: there is no other one to tell it from.
        """
        mask = (batch.history[:, :-1] > 0) & (batch.history[:, 1:] > 0)
        if len(self.others) < 2 or not bool(mask.any()):
            return states.new_zeros(())
        h, positive = states[:, :-1][mask], batch.history[:, 1:][mask]
        true, false = (
            (h * self.items(ids).flatten(1)).sum(1) for ids in (positive, self.negatives(positive))
        )
        return (F.softplus(-true) + F.softplus(false)).mean()

    def loss(self, batch: CtrBatch) -> Tensor:
        """Return cross-entropy + ``auxiliary`` * auxiliary loss + the hooks' extra losses."""
        logits, states = self.evolved(batch)
        loss = F.binary_cross_entropy_with_logits(logits, batch.label)
        if self.auxiliary:
            loss = loss + self.auxiliary * self.auxiliary_loss(states, batch)
        return loss + extra_losses(self, batch, logits)
