"""What every network of click logs is: entity fields, extra columns, one logit, one loss (torch).

``FieldNet`` reads the history as one more set of fields (the mean of the liked items), as models of
feature interaction do; ``HistoryNet`` keeps it as a sequence of item vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .ctr_net import Distinct, EntityFields, ExtraColumns, Tower, per_entity
from .gather_net import pooled, rows
from .hooks_net import extra_losses
from .seams import through

if TYPE_CHECKING:
    from .batches import CtrBatch
    from .ctr_fields import CtrFields


class ClickNet(nn.Module):
    """Fields of users and items, a tower, extra columns. Subclasses give ``make`` and ``logits``.

    All arguments are plain values (see ``config``); those that a network has beyond the common
    ones go to its ``make``.
    """

    title: ClassVar[str] = ""  # of the model, for messages

    def __init__(
        self,
        shape: Mapping[str, Any],
        dim: int,
        max_len: int,
        item_id: bool,
        user_id: bool,
        mlp: Sequence[int],
        act: str,
        dropout: float,
        std: float,
        grouped: bool = False,
        columns: Sequence[int] = (),
        **own: Any,
    ) -> None:
        super().__init__()
        self._arguments = {
            "shape": dict(shape), "dim": dim, "max_len": max_len, "item_id": item_id,
            "user_id": user_id, "mlp": list(mlp), "act": act, "dropout": dropout, "std": std,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in own.items()},
        }  # fmt: skip
        if grouped:  # no trace where it is off, as in bundles that were written before
            self._arguments["grouped"] = True
        self.grouped = grouped
        self.hooks = nn.ModuleList()
        self.max_len = max_len
        self.items = EntityFields(shape["n_items"], shape["item"], dim, item_id, std)
        self.users = EntityFields(shape["n_users"], shape["user"], dim, user_id, std)
        if not self.items.n_fields:
            raise ValueError(
                f"{self.title} without item ids needs at least one item field, found none"
            )
        self.prepare()
        self.tower = self.top(self.make(**own))
        self.columns = ExtraColumns()
        for m in columns:
            self.add_columns(m)

    def prepare(self) -> None:
        """Make what all networks of one kind share."""

    def make(self, **own: Any) -> int:
        """Make what this network alone has; return the width of the tower's input."""
        raise NotImplementedError

    def top(self, width: int) -> nn.Module:
        """Return what reads the joined features (B, width); its ``first`` layer takes columns."""
        own = self._arguments
        return Tower(width, own["mlp"], own["act"], own["dropout"])

    def logits(self, batch: CtrBatch) -> Tensor:
        """Return (B,) log-odds of a click."""
        raise NotImplementedError

    @property
    def config(self) -> dict[str, Any]:
        return {**self._arguments, "columns": self.columns.widths}

    @property
    def item_table(self) -> nn.Embedding:
        return self._table(self.items, "item")

    @property
    def user_table(self) -> nn.Embedding:
        return self._table(self.users, "user")

    def _table(self, entity: EntityFields, side: str) -> nn.Embedding:
        if entity.table is None:
            raise ValueError(
                f"this {self.title} has no {side} ids to initialize; set {side}_id=True"
            )
        return entity.table

    def profile(self, batch: CtrBatch) -> Tensor:
        """Return the user's fields (B, fields, dim)."""
        return per_entity(self.users, batch.user, self.grouped)

    def fill(self, fields: CtrFields) -> None:
        """Take the field codes of a data set."""
        self.items.fill(fields.item, fields.shape["item"], fields.met.items)
        self.users.fill(fields.user, fields.shape["user"], fields.met.users)

    def add_columns(self, width: int) -> None:
        """Make weights for one more extra column of ``width``; drawn from the current stream."""
        self.columns.add(width, self.tower, first_order=False)

    def feature_columns(self, batch: CtrBatch) -> list[Tensor]:
        """Return the extra dense columns [(B, m), ...] that hooks add before the MLP."""
        return through(self, "feature_columns", batch)

    def _feature_columns(self, batch: CtrBatch) -> list[Tensor]:
        return []

    def loss(self, batch: CtrBatch) -> Tensor:
        """Return the mean binary cross-entropy plus the hooks' extra losses (given the logits)."""
        logits = self.logits(batch)
        loss = F.binary_cross_entropy_with_logits(logits, batch.label)
        return loss + extra_losses(self, batch, logits)


class FieldNet(ClickNet):
    """``logit = w_0 + sum_i w_i + rest + MLP(x)`` with ``x, rest = interact(e)``.

    ``e`` (B, fields, dim): fields of the user, of the candidate, and of the history, each the mean
    over its liked items. Where ``first_order`` is off, w_0 and the sum are left out. ``grouped``:
    the rows of one user (of one item) share what is computed of it, which sums gradients in another
    order.
    """

    first_order: ClassVar[bool] = True
    # Parameters that make the logit of what ``states`` gives, by how their names begin.
    final: ClassVar[tuple[str, ...]] = ("item_weights.", "user_weights.", "bias", "columns.")

    def prepare(self) -> None:
        own = self._arguments
        shape = own["shape"]
        self.liked_from = float(shape["liked_from"])
        self.dim = own["dim"]
        self.n_fields = 2 * self.items.n_fields + self.users.n_fields
        if self.first_order:
            ids = own["item_id"], own["user_id"]
            self.item_weights = EntityFields(shape["n_items"], shape["item"], 1, ids[0], 0.0)
            self.user_weights = EntityFields(shape["n_users"], shape["user"], 1, ids[1], 0.0)
            self.bias = nn.Parameter(torch.zeros(()))

    def fill(self, fields: CtrFields) -> None:
        super().fill(fields)
        if self.first_order:
            self.item_weights.fill(fields.item, fields.shape["item"], fields.met.items)
            self.user_weights.fill(fields.user, fields.shape["user"], fields.met.users)

    def add_columns(self, width: int) -> None:
        self.columns.add(width, self.tower, first_order=self.first_order)

    def interact(self, e: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return (input of the tower (B, width), what is added to the logit (B,))."""
        raise NotImplementedError

    def embeddings(self, batch: CtrBatch) -> Tensor:
        """Return e (B, fields, dim)."""
        items, vectors, history = self.entities(batch)
        candidate = rows(vectors.flatten(1), items.place(batch.item))
        both = (x.unflatten(1, vectors.shape[1:]) for x in (candidate, history))
        return torch.cat([self.profile(batch), *both], 1)

    def entities(self, batch: CtrBatch) -> tuple[Distinct, Tensor, Tensor]:
        """Return the distinct items of the batch, their vectors (n, item fields, dim) and the
        mean over each history (B, item fields * dim)."""
        items = Distinct(self._arguments["shape"]["n_items"] + 1, batch.history, batch.item)
        vectors = self.items(items.ids)
        liked = self.liked(batch).to(vectors.dtype)
        weights = liked / liked.sum(1, keepdim=True).clamp(min=1)  # no liked item: the zero vector
        return items, vectors, pooled(vectors.flatten(1), items.place(batch.history), weights)

    @property
    def field_names(self) -> tuple[str, ...]:
        """The fields of e in order: ``user``, ``user.<field>``, ``item``, ..., ``history``."""
        own = self._arguments
        users, items = (
            [*([side] if own[f"{side}_id"] else []), *(f"{side}.{f}" for f in own["shape"][side])]
            for side in ("user", "item")
        )
        return (*users, *items, *["history"] * len(items))

    def states(self, e: Tensor) -> Tensor:
        """Return (B, d) of e (B, fields, dim): all that the last linear layers read."""
        raise NotImplementedError(f"{self.title} does not say what its logit is made of")

    def hidden(self, x: Tensor) -> Tensor:
        """Return (B, last width): what the last layer of the tower reads, of its input x."""
        tower: Any = self.tower
        return tower.hidden(x)

    @property
    def trunk(self) -> dict[str, Tensor]:
        """The weights that ``states`` hangs on, by name, and the running statistics beside them."""
        tower: Any = self.tower
        last = (*self.final, f"tower.rest.{len(tower.rest) - 1}.", "hooks.")
        tensors = [*self.named_parameters(), *self.named_buffers()]
        kept = ("running_mean", "running_var")
        buffers = {n for n, _ in self.named_buffers() if not n.endswith(kept)}
        return {n: t for n, t in tensors if not n.startswith(last) and n not in buffers}

    def liked(self, batch: CtrBatch) -> Tensor:
        """Return bool (B, L): the rows of the history that were liked; all, without ratings."""
        liked = batch.history > 0
        if batch.history_rating is None:
            return liked
        return liked & (batch.history_rating >= self.liked_from)

    def linear(self, batch: CtrBatch) -> Tensor | float:
        """Return w_0 + sum_i w_i (B,) over the fields of the user and of the candidate."""
        if not self.first_order:
            return 0.0
        user = per_entity(self.user_weights, batch.user, self.grouped).sum((1, 2))
        item = per_entity(self.item_weights, batch.item, self.grouped).sum((1, 2))
        return self.bias + (user + item)

    def logits(self, batch: CtrBatch) -> Tensor:
        x, rest = self.interact(self.embeddings(batch))
        added, logit = self.columns(self.feature_columns(batch))
        return self.linear(batch) + rest + self.tower(x, added) + logit


class HistoryNet(ClickNet):
    """The candidate ``c`` (D wide) and the history ``h_t``: item fields plus a rating's vector."""

    def prepare(self) -> None:
        own = self._arguments
        self.width = self.items.n_fields * own["dim"]  # D
        levels = own["shape"]["levels"]
        self.signal = nn.Embedding(len(levels) + 1, self.width, padding_idx=0)  # 0 = no rating
        nn.init.normal_(self.signal.weight[1:], std=own["std"])
        nn.init.zeros_(self.signal.weight[:1])
        self.register_buffer("levels", torch.tensor(levels))

    def history(self, batch: CtrBatch) -> tuple[Tensor, Tensor]:
        """Return (h (B, L, D), c (B, D)); each distinct item, and item with rating, once."""
        n_items, n_levels = self._arguments["shape"]["n_items"], len(self.levels) + 1
        items = Distinct(n_items + 1, batch.history, batch.item)
        vectors = self.items(items.ids).flatten(1)
        pairs = items.place(batch.history) * n_levels
        if batch.history_rating is not None:
            pairs = pairs + torch.bucketize(batch.history_rating, self.levels, right=True)
        rated = Distinct(len(items.ids) * n_levels, pairs)
        known = rows(vectors, rated.ids // n_levels) + self.signal(rated.ids % n_levels)
        return rows(known, rated.place(pairs)), rows(vectors, items.place(batch.item))
