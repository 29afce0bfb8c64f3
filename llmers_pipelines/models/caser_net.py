"""The network of Caser. Shapes: B batch, T positions, L rows of the image, N items, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batches import SequenceBatch
from .dropout_net import dropout
from .sequence_net import SequenceNet


class CaserNet(SequenceNet):
    """A ``SequenceNet`` whose state at t sees the items t - L + 1 .. t and the user.

    A state is ``(1, p_u, z)`` and an item's output ``(b_j, w_j)``, (N + 1, 1 + D + D), without the
    middle where there are no users; the part that depends on the history comes last. ``ahead``:
    how many next items a position is trained on.
    """

    ahead = 1

    def __init__(
        self, *, n_items: int, n_users: int, dim: int, length: int, horizontal: int, vertical: int,
        dropout: float, max_len: int, table_std: float, output_dim: int = 0,
    ) -> None:  # fmt: skip
        """``n_users`` = 0: no user vectors. ``output_dim`` > 0 is the width of folded outputs."""
        super().__init__()
        self.config = {
            "n_items": n_items, "n_users": n_users, "dim": dim, "length": length,
            "horizontal": horizontal, "vertical": vertical, "dropout": dropout,
            "max_len": max_len, "table_std": table_std, "output_dim": output_dim,
        }  # fmt: skip
        self.max_len, self.dropout, self.length = max_len, dropout, length
        self._tables(n_items, dim)
        self.user_table = nn.Embedding(n_users + 1, dim, padding_idx=0) if n_users else None
        self.horizontal = nn.ModuleList(
            nn.Conv1d(dim, horizontal, height) for height in range(1, length + 1)
        )
        self.vertical = nn.Parameter(torch.empty(vertical, 1, length))
        nn.init.uniform_(self.vertical, -(length**-0.5), length**-0.5)
        self.dense = nn.Linear(horizontal * length + vertical * dim, dim)
        width = 1 + (dim if n_users else 0) + dim
        self._start(n_items, output_dim or width, table_std)
        with torch.no_grad():
            self.output_table.normal_(0, table_std)[:, 0] = 0  # type: ignore[union-attr]
            self.output_table[0] = 0  # type: ignore[index]
            if self.user_table is not None:
                self.user_table.weight.normal_(0, table_std)[0] = 0

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return z (B, T, D) of the item vectors x (B, T, D); mask (B, T) is True if real."""
        b, t, d = x.shape
        x = (x * mask[..., None]).transpose(1, 2)
        padded = F.pad(x, (self.length - 1, 0))  # (B, D, T + L - 1), zero rows before the first
        real = F.pad(mask, (self.length - 1, 0))
        parts = [self._pooled(conv(padded), real) for conv in self.horizontal]  # (B, n_h, T) each
        columns = padded.reshape(b * d, 1, -1)
        down = F.conv1d(columns, self.vertical).view(b, d, -1, t)  # (B, D, n_v, T)
        parts.append(down.transpose(1, 2).reshape(b, -1, t))
        z = dropout(torch.cat(parts, 1).transpose(1, 2), self.dropout, self.training)
        return F.relu(self.dense(z)) * mask[..., None]

    def _pooled(self, values: Tensor, real: Tensor) -> Tensor:
        """Return (B, n_h, T): the largest relu(value) of the filter positions of each image.

        values (B, n_h, T + L - h) by the first row of a filter of height h; real (B, T + L - 1). A
        filter whose last row is padding sees padding alone, since padding lies on the left. After
        relu nothing is below 0, so 0 stands for what does not count.
        """
        height = real.shape[1] - values.shape[2] + 1
        values = F.relu(values) * real[:, None, height - 1 :]
        return F.max_pool1d(values, self.length - height + 1, stride=1)

    def _user_state(self, batch: SequenceBatch) -> Tensor:
        states = self.hidden_states(batch)
        parts = [torch.ones_like(states[..., :1]), states]
        if self.user_table is not None:
            parts.insert(1, self.user_table(batch.user)[:, None].expand(*states.shape[:2], -1))
        states = torch.cat(parts, -1)
        return states[:, -1] if batch.targets is None else states

    def _supervised(
        self, batch: SequenceBatch, states: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Pair each state with its next ``ahead`` items: their losses are averaged together."""
        targets = torch.stack([_shifted(batch.targets, k) for k in range(self.ahead)], -1)
        real = (targets > 0) & (batch.items > 0)[..., None]  # (B, T, ahead); padding learns nothing
        row, column, _ = real.nonzero(as_tuple=True)
        negative = None if batch.negative is None else batch.negative[row, column]
        return states[row, column], targets[real], negative


def _shifted(targets: Tensor, k: int) -> Tensor:
    """Return the targets k positions later, 0 where there is none."""
    return F.pad(targets[:, k:], (0, min(k, targets.shape[1])))
