"""Item model and user model at work. Shapes: B windows, L positions, T targets, M negatives,
n texts, E width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..data.training import IdMap
from ..encode.transformer_net import (
    batches,
    item_vectors,
    load_encoder,
    padded,
    token_ids,
    with_adapter,
)
from ..models.contrast_net import sampled_info_nce
from .lora_net import attach, quiet, save_adapter, save_token, save_whole
from .next_item_contrast import NextItemContrast
from .tuner import Base, TuneError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 256  # sequences at a time, where states are exported
LOOKED_AT = 256  # texts whose vectors are compared before and after
TOO_ALIKE = 0.9  # share of their pairs above which next to no negative is left


class TwoModels(nn.Module):
    """The item model with its token, the user model, and the scale of their cosines."""

    def __init__(self, item: Any, user: Any, how: NextItemContrast) -> None:
        super().__init__()
        self.item, self.user = item, user
        words = item.get_input_embeddings().weight
        with torch.random.fork_rng():
            torch.manual_seed(how.seed)
            drawn = torch.randn(words.shape[1]) * float(words.detach().float().std())
        self.token = nn.Parameter(drawn) if how.token else None
        self.log_scale = nn.Parameter(torch.tensor(-math.log(how.tau)))


class NextItemTask:
    """Windows of users' histories under both models."""

    def __init__(
        self, how: NextItemContrast, base: Base, examples: pa.Table, texts: pa.Table | None
    ) -> None:
        quiet()
        self.how, self.base = how, base
        if texts is None or not {"item_id", "text"} <= set(getattr(texts, "column_names", ())):
            raise TuneError(
                "NextItemContrast reads what items say: Tune(NextItemContrast(), examples, "
                "context=(Derive(ItemTexts(), items),))"
            )
        if base.layer != -1:
            raise TuneError(
                f"the encoder reads layer {base.layer}; all of them are tuned (leave out `?layer=`)"
            )
        ids = IdMap(tuple(texts["item_id"].to_pylist()))
        self.windows: list[np.ndarray] = []
        for history in examples["history"].to_pylist():
            known = ids.index(history)
            known = known[known > 0][-how.most - 1 :]
            if len(known) > 1:
                self.windows.append(known - 1)
        self.size = len(self.windows)
        self.left_out = examples.num_rows - self.size
        if not self.size:
            raise TuneError("no example has two items with a text of their own")
        dtype = "float32" if how.full else base.dtype
        self.tokenizer, item = load_encoder(base.folder, dtype)
        user = without_words(load_encoder(base.folder, dtype)[1])
        check_causal(user, base.folder)
        if not how.full:
            item = attach(item, how.lora, seed=how.seed, causal=False)
            user = attach(user, how.lora, seed=how.seed + 1, causal=False)
        self.module: Any = TwoModels(item, user, how).to(base.device)
        distinct = list(dict.fromkeys(texts["text"].to_pylist()))
        place = {text: n for n, text in enumerate(distinct)}
        self.text_of = np.array([place[t] for t in texts["text"].to_pylist()], np.int64)
        limit = min(base.max_length, how.max_tokens) - how.token
        self.tokens = token_ids(self.tokenizer, [base.prefix + t for t in distinct], limit)
        self.before = self.alike()
        if self.before > TOO_ALIKE:
            raise TuneError(
                f"{self.before:.0%} of the pairs of items have a cosine above same = {how.same}: "
                "nearly every negative would be left out and nothing learned; set same = 1, or "
                "tune another model"
            )

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "examples_used": self.size, "examples_left_out": self.left_out,
            "items": len(self.text_of), "texts": len(self.tokens),
            "scale": min(float(self.module.log_scale.detach().exp()), self.how.most_scale),
            "alike_before": round(self.before, 4), "alike_after": round(self.alike(), 4),
        }  # fmt: skip

    @torch.no_grad()
    def alike(self) -> float:
        """Return the share of pairs of items, among some, that are no negatives of each other.

        Where it changes, losses of epochs compare different sums.
        """
        training = self.module.training
        self.module.eval()
        step = max(1, len(self.tokens) // LOOKED_AT)
        first = np.unique(self.text_of, return_index=True)[1][::step]
        vectors = F.normalize(self.vectors(first), dim=1)
        self.module.train(training)
        close = (vectors @ vectors.T > self.how.same).float()
        count = len(vectors)
        return float((close.sum() - close.diagonal().sum()) / max(1, count * (count - 1)))

    def drawn(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """Return the negatives (M,) of a batch: they follow from seed, epoch and rows alone."""
        rng = np.random.default_rng([self.how.seed, epoch, *rows.tolist()])
        count = min(self.how.negatives, len(self.text_of))
        return rng.choice(len(self.text_of), count, replace=False)

    def vectors(self, items: np.ndarray) -> Tensor:
        """Return float32 (n, E) of items; equal texts pass through the model once."""
        texts, back = np.unique(self.text_of[items], return_inverse=True)
        lengths = np.array([len(self.tokens[t]) for t in texts])
        order, parts = [], []
        for rows in batches(lengths, self.base.tokens):
            ids, mask = padded([self.tokens[texts[r]] for r in rows],
                               self.tokenizer.pad_token_id or 0, self.base.device)  # fmt: skip
            if self.how.recompute and torch.is_grad_enabled():
                part: Any = checkpoint(self._encode, ids, mask, use_reentrant=False)
            else:
                part = self._encode(ids, mask)
            order.append(rows)
            parts.append(part)
        at = np.argsort(np.concatenate(order))[back]
        return torch.cat(parts)[torch.from_numpy(at).to(self.base.device)]

    def _encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        with self._mixed():
            own = item_vectors(self.module.item, ids, mask, self.module.token, self.base.pooling)
        return F.normalize(own, dim=1) if self.base.normalize else own

    def _mixed(self) -> Any:
        mixed = self.how.full and self.base.dtype != "float32"
        kind = torch.device(self.base.device).type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=mixed)

    def user_states(self, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return float32 (B, L, E) of item vectors (L_b, E), padded on the right, and bool (B, L).

        A state hangs on the items up to its own position alone.
        """
        given, mask = stacked(rows)
        with self._mixed():
            given = given.to(next(self.module.user.parameters()).dtype)
            out = self.module.user(inputs_embeds=given, attention_mask=mask.long(), use_cache=False)
        return out.last_hidden_state.float(), mask

    def backward(self, rows: np.ndarray, epoch: int) -> float:
        """Add the gradients of the mean loss over all positions of ``rows``; return it."""
        loss = self.loss([self.windows[r] for r in rows], self.drawn(rows, epoch))
        loss.backward()
        return float(loss.detach())

    def loss(self, windows: Sequence[np.ndarray], negatives: np.ndarray) -> Tensor:
        """Return the mean loss of windows of items against shared negatives."""
        with torch.no_grad():  # the bound, before the scale is used
            self.module.log_scale.clamp_(max=math.log(self.how.most_scale))
        items, back = np.unique(np.concatenate([*windows, negatives]), return_inverse=True)
        whole = self.vectors(items)[torch.from_numpy(back).to(self.base.device)]
        own = whole[: len(back) - len(negatives)].split([len(w) for w in windows])
        states, mask = self.user_states([o[:-1] for o in own])
        told = np.concatenate([w[1:] for w in windows])
        itself = torch.from_numpy(told[:, None] == negatives[None]).to(self.base.device)
        return sampled_info_nce(
            states[mask], torch.cat([o[1:] for o in own]), whole[-len(negatives) :],
            self.module.log_scale.exp(), same=self.how.same, left_out=itself,
        )  # fmt: skip

    def publish(self, folder: Path) -> None:
        """Write the item model as an adapter of the encoder, and the user model beside it."""
        save = save_whole if self.how.full else save_adapter
        save(self.module.item, folder / "adapter")
        if self.module.token is not None:
            save_token(self.module.token, folder / "adapter")
        save(self.module.user, folder / "user")


class UserModel:
    """The tuned user model: item vectors in, the states of the last position out."""

    def __init__(self, model: Any, device: str) -> None:
        self.model, self.device = model, torch.device(device)

    @torch.inference_mode()
    def __call__(self, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return float32 (B, E) of what enters and after each layer: n layers give n + 1."""
        given, mask = stacked([r.to(self.device) for r in rows])
        given = given.to(next(self.model.parameters()).dtype)
        out = self.model(inputs_embeds=given, attention_mask=mask.long(), use_cache=False,
                         output_hidden_states=True)  # fmt: skip
        row = torch.arange(len(rows), device=self.device)
        return tuple(h[row, mask.sum(1) - 1].float() for h in out.hidden_states)


def load_user_model(base: Base, folder: Path) -> UserModel:
    """Return the user model of the files that ``NextItemTask.publish`` wrote."""
    quiet()
    model = without_words(load_encoder(base.folder, base.dtype)[1])
    model = with_adapter(model, folder).to(base.device).eval().requires_grad_(False)
    return UserModel(model, base.device)


def user_states(base: Base, folder: Path, sequences: Sequence[np.ndarray]) -> np.ndarray:
    """Return float32 (n, E): the state after each sequence of item vectors (L, E)."""
    model = load_user_model(base, folder)
    out = np.zeros((len(sequences), sequences[0].shape[1]), np.float32)
    order = np.argsort([len(s) for s in sequences], kind="stable")
    for at in range(0, len(order), ROWS):
        rows = order[at : at + ROWS]
        given = [torch.from_numpy(np.ascontiguousarray(sequences[r])) for r in rows]
        out[rows] = model(given)[-1].cpu().numpy()
    return out


def stacked(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return (vectors (B, L, E), bool (B, L)) of sequences (L_b, E), padded on the right."""
    given = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(r) for r in rows], device=given.device)
    return given, torch.arange(given.shape[1], device=given.device) < lengths[:, None]


def without_words(model: Any) -> Any:
    """Return ``model`` without its table of words: vectors come in their place."""
    model.set_input_embeddings(nn.Identity())
    return model


@torch.inference_mode()
def check_causal(model: Any, folder: Path) -> None:
    """Raise ``TuneError`` for a model that lets an earlier state read a later item."""
    width = model.config.hidden_size
    one = torch.linspace(-1, 1, 3 * width, dtype=model.dtype).reshape(1, 3, width)
    two = one.clone()
    two[:, 2] = one[:, 0].flip(-1)
    first, second = (model.eval()(inputs_embeds=x).last_hidden_state[:, :2] for x in (one, two))
    if not torch.allclose(first, second, atol=1e-6):
        raise TuneError(
            f"{folder.name} reads later positions as well, so a user's state would know the item "
            "that it is to tell; name a causal model as encoder"
        )
