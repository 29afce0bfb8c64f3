"""Joint pretraining at work. Shapes: B rows, L tokens, E width, R recommender's state, C clauses,
F fields of the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.fences import kept, pieces, values
from ..data.spans import history_spans
from ..data.training import TRAIN, TrainingData
from ..encode.transformer_net import load_encoder, padded
from ..models.batches import CtrBatch, left_pad
from ..models.contrast_net import info_nce
from ..models.ctr_fields import history_signal
from .alignment_heads_net import CrossAttention, MaskedFields, MaskedTokens, Projection
from .field_alignment import FieldAlignment
from .field_masks import closed, drawn_fields, leaks
from .lora_net import attach, quiet
from .tuner import Base, TuneError


@dataclass(frozen=True)
class Told:
    """One row as tokens: ``owner`` is the clause whose value a token belongs to, -1 = none."""

    row: int
    ids: list[int]
    owner: np.ndarray
    fields: tuple[str, ...]
    told: np.ndarray  # bool (C, C), what ``leaks`` returns


class Joint(nn.Module):
    """Language model, backbone and the heads between them."""

    def __init__(
        self, how: FieldAlignment, encoder: Any, trunk: Any, counts: Mapping[str, np.ndarray],
        vocabulary: int,
    ) -> None:  # fmt: skip
        super().__init__()
        width, dim = int(encoder.config.hidden_size), trunk.dim
        trunk.eval()
        with torch.no_grad():
            state = trunk.states(torch.zeros(1, trunk.n_fields, dim)).shape[1]
        self.encoder, self.trunk = encoder, trunk
        reached = {id(t) for t in trunk.trunk.values()}
        for parameter in trunk.parameters():  # the last layers are the fine-tuning's
            parameter.requires_grad_(id(parameter) in reached)
        with torch.random.fork_rng():
            torch.manual_seed(how.seed)
            self.masked = nn.Parameter(0.05 * torch.randn(trunk.n_fields, dim))  # MASK per field
            self.of_table = Projection(state, how.project, how.dropout)
            self.of_text = Projection(width, how.project, how.dropout)
            self.words = MaskedTokens(width, state, vocabulary, how.dropout)
            self.attention = CrossAttention(state, width)
            self.fields = MaskedFields(state + width, counts, how.head, how.noise)


class FieldAlignmentTask:
    """Rows of a click log under a masked language model and a backbone."""

    def __init__(
        self, how: FieldAlignment, base: Base, examples: Any, data: TrainingData | None = None
    ) -> None:
        quiet()
        if not isinstance(data, TrainingData):
            raise TuneError(
                "FieldAlignment reads the log: Tune(FieldAlignment(...), examples, context=(log,))"
            )
        self.how, self.base, self.data = how, base, data
        # Weights that are all trained stay in float32; an adapter's base may be narrower.
        self.narrow = base.dtype != "float32"
        dtype = "float32" if how.whole else base.dtype
        self.tokenizer, model = load_encoder(base.folder, dtype)
        _check_tokens(self.tokenizer, base)
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # the first token is read as it is
        model = model if how.whole else attach(model, how.lora, seed=how.seed, causal=False)
        self.rows, self.cut = self._told(examples)
        self.size = len(self.rows)
        trunk = how.backbone.build(data, how.seed)  # type: ignore[union-attr]
        self.names = trunk.field_names
        self.values = {f: v for f in self.names if (v := _values(f, data)) is not None}
        at = np.array([r.row for r in self.rows])
        owners = {"user": data.user[at], "item": data.item[at]}
        counts = {f: np.bincount(v[owners[f.split(".")[0]]].ravel(), minlength=n + 1)[1:]
                  for f, (v, n) in self.values.items()}  # fmt: skip
        self.module: Any = Joint(how, model, trunk, counts, len(self.tokenizer)).to(base.device)
        self.spans = history_spans(data)
        self.signal = history_signal(data)
        self.last: dict[str, float] = {}

    def _told(self, examples: Any) -> tuple[list[Told], int]:
        limit = min(self.base.max_length, self.how.max_tokens)
        columns = ("example_id", *self.how.columns)
        out, cut = [], 0
        for name, row, user, item, fields, parts, text in zip(
            *(examples[c].to_pylist() for c in columns), strict=True
        ):
            self._check_row(name, row, user, item)
            told = tokens(self.tokenizer, text, limit)
            if told is None:
                raise TuneError(
                    f"example {name!r}: its first field takes more than max_tokens = {limit}"
                )
            ids, owner, clauses = told
            cut += clauses < len(fields)
            shown = values(text)[:clauses]
            told_by = leaks(shown, parts[:clauses])
            out.append(Told(row, ids, owner, tuple(fields[:clauses]), told_by))
        if len(out) < 2:
            raise TuneError(f"{len(out)} examples: a contrast needs at least two")
        return out, cut

    def _check_row(self, name: str, row: int, user: str, item: str) -> None:
        data = self.data
        there = 0 <= row < len(data.item) and data.split[row] == TRAIN
        owner = (data.users.index([user])[0], data.items.index([item])[0])
        if not there or owner != (data.user[row], data.item[row]):
            raise TuneError(
                f"example {name!r}: row {row} of the log is no training row of user {user!r} and "
                f"item {item!r}; make the examples from the log that is the node's context"
            )

    @property
    def facts(self) -> dict[str, Any]:
        return {"texts_cut": self.cut, "fields": len(self.names),
                **{f"last_{name}": value for name, value in self.last.items()}}  # fmt: skip

    @property
    def heads(self) -> dict[str, Tensor]:
        return self.module.trunk.trunk

    def masks(self, rows: Sequence[Told], rng: np.random.Generator) -> list[np.ndarray]:
        """Return bool (C,) per row: the clauses that are masked, in text and table alike."""
        most = max(len(r.fields) for r in rows)
        present = np.array([[c < len(r.fields) for c in range(most)] for r in rows])
        drawn = drawn_fields(present, self.how.ratio, rng.random(present.shape))
        return [closed(d[: len(r.fields)], r.told) for r, d in zip(rows, drawn, strict=True)]

    def batch(self, at: np.ndarray) -> CtrBatch:
        """Return the rows ``at`` (B,) of the log as the backbone reads them, without labels."""
        data, (seen, start, end) = self.data, self.spans
        before = [seen[start[r] : end[r]][-self.module.trunk.max_len :] for r in at]
        return CtrBatch(
            user=torch.from_numpy(data.user[at].astype(np.int64)),
            item=torch.from_numpy(data.item[at].astype(np.int64)),
            history=torch.from_numpy(left_pad([data.item[b] for b in before])),
            history_rating=torch.from_numpy(
                left_pad([self.signal[b] for b in before], dtype=np.float32)
            ),
            label=None, rows=None,
        ).to(self.base.device)  # fmt: skip

    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return float32 (B, L, E): the last token states of the language model."""
        kind = self.base.device.partition(":")[0]
        narrow = torch.autocast(kind, torch.bfloat16) if self.narrow else nullcontext()
        with narrow:
            return self.module.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()

    def losses(self, rows: np.ndarray, epoch: int) -> dict[str, Tensor]:
        """Return the three losses of ``rows``, those of weight 0 left out, and ``accuracy``."""
        how, net, device = self.how, self.module, self.base.device
        told = [self.rows[r] for r in rows]
        rng = np.random.default_rng([how.seed, 31, epoch, int(rows[0])])
        chosen = self.masks(told, rng)
        ids, mask = padded([t.ids for t in told], self.tokenizer.pad_token_id or 0, device)
        e = net.trunk.embeddings(self.batch(np.array([t.row for t in told])))
        state = net.trunk.states(e)
        out: dict[str, Tensor] = {}
        whole = self.states(ids, mask) if how.contrast or how.fields else None
        if how.contrast and whole is not None:
            views = net.of_table(state), net.of_text(whole[:, 0])
            out["contrast"] = info_nce(*views, how.tau, cosine=False)
        if how.words:
            shut = torch.zeros_like(mask, dtype=torch.bool)
            for n, (t, c) in enumerate(zip(told, chosen, strict=True)):
                shut[n, : len(t.ids)] = torch.from_numpy(np.append(c, False)[t.owner]).to(device)
            labels = ids.masked_fill(~shut, -100)
            open_ids = ids.masked_fill(shut, self.tokenizer.mask_token_id)
            out["words"] = net.words.loss(self.states(open_ids, mask), state, labels)
        if how.fields and whole is not None:
            shut_fields = self.shut(told, chosen)
            at = torch.from_numpy(shut_fields).to(device).unsqueeze(2)
            blind = net.trunk.states(torch.where(at, net.masked, e))
            both = torch.cat([blind, net.attention(blind, whole, mask)], 1)
            targets = self.targets(told, shut_fields, rng)
            out["fields"], accuracy = net.fields.loss(both, targets, rng)
            out["accuracy"] = torch.tensor(accuracy)
        return out

    def shut(self, rows: Sequence[Told], chosen: Sequence[np.ndarray]) -> np.ndarray:
        """Return bool (B, F): the fields of the table that the masked clauses tell."""
        out = np.zeros((len(rows), len(self.names)), bool)
        for n, (t, c) in enumerate(zip(rows, chosen, strict=True)):
            masked = {f for f, is_masked in zip(t.fields, c, strict=True) if is_masked}
            out[n] = [name in masked for name in self.names]
        return out

    def targets(
        self, rows: Sequence[Told], shut: np.ndarray, rng: np.random.Generator
    ) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Return (field, rows, values from 0) of the masked fields that have a value to be told.

        Of a field with several values one is drawn. A history has none: it is masked alone.
        """
        out = []
        for field, (name, (codes, _)) in enumerate(self.values.items()):
            side = self.data.user if name.startswith("user") else self.data.item
            at = np.flatnonzero(shut[:, self.names.index(name)])
            own = codes[side[[rows[int(n)].row for n in at]]] if len(at) else np.zeros((0, 1), int)
            at = at[own.any(1)]
            own = own[own.any(1)]
            if len(at):
                pick = np.where(own > 0, rng.random(own.shape), -1).argmax(1)
                out.append((field, at, own[np.arange(len(at)), pick] - 1))
        return out

    def backward(self, rows: np.ndarray, epoch: int) -> float:
        """Add the gradients of the weighted sum over ``rows``; a single row says nothing."""
        if len(rows) < 2:
            return 0.0
        parts = self.losses(rows, epoch)
        loss = sum(getattr(self.how, n) * part for n, part in parts.items() if n != "accuracy")
        loss.backward()  # type: ignore[union-attr]
        self.last = {n: round(float(part.detach()), 4) for n, part in parts.items()}
        return float(loss.detach())  # type: ignore[union-attr]


def tokens(tokenizer: Any, text: str, limit: int) -> tuple[list[int], np.ndarray, int] | None:
    """Return (ids with CLS and SEP, owner int64 (L,), clauses) of a fenced text; None if none fits.

    Pieces are tokenized by themselves, so that a fence ends where a token ends. A space before a
    value goes with the value, as tokenizers of bytes are used to.
    """
    parts = pieces(text)
    words = [f" {p}" if n >= 0 else p.rstrip() for p, n in parts]
    rows = tokenizer(words, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    fences = [n for _, n in parts]
    upto = kept(fences, [len(r) for r in rows], limit - 2)
    if not upto:
        return None
    ids = [i for row in rows[:upto] for i in row]
    owner = [n for row, n in zip(rows[:upto], fences, strict=False) for _ in row]
    owner = np.array([-1, *owner, -1])
    ids = [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
    return ids, owner, max(fences[:upto]) + 1


def _check_tokens(tokenizer: Any, base: Base) -> None:
    for name in ("mask", "cls", "sep"):
        if getattr(tokenizer, f"{name}_token_id") is None:
            raise TuneError(
                f"{base.folder.name} has no {name} token: a masked language model is needed "
                "(BERT, RoBERTa, MiniLM, ...); name one as encoder.name"
            )


def _values(name: str, data: TrainingData) -> tuple[np.ndarray, int] | None:
    """Return (codes int64 (n + 1, M), size) of a field that has values to be told, else None."""
    side, _, field = name.partition(".")
    if side == "history":
        return None
    if not field:
        n = data.n_users if side == "user" else data.n_items
        return np.arange(n + 1)[:, None], n
    own = (data.user_fields if side == "user" else data.item_fields)[field]
    codes = np.asarray(own.codes, np.int64)
    return codes.reshape(len(codes), -1), len(own.vocabulary)
