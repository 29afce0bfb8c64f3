"""A served model that scores the whole catalog, whatever kind of model it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.tasks import FIELD_TASKS
from .manifest import BundleError

if TYPE_CHECKING:
    from ..models.served import Served

Users = Sequence[int] | np.ndarray  # positions, 0 = unknown
PAIRS = 1024  # (user, item) pairs that a click model is asked at once


@dataclass(frozen=True)
class Ranker:
    """Scores for every item from user positions and histories (item positions, oldest first).

    ``signals`` are the ratings (or labels) of the history rows; only click models read them.
    """

    served: Served
    clicks: bool  # a model of the click, or the rating, of one (user, item) pair
    n_items: int

    def scores(
        self,
        users: Users,
        histories: Sequence[np.ndarray],
        signals: Sequence[np.ndarray] | None = None,
    ) -> np.ndarray:
        """Return float32[B, N + 1]; column 0 is -inf, seen items are not masked."""
        if not self.clicks:
            return self.served.scores(np.asarray(users, np.int64), histories)
        out = np.full((len(users), self.n_items + 1), -np.inf, np.float32)
        for row, user in enumerate(users):
            signal = None if signals is None else signals[row]
            for start in range(1, self.n_items + 1, PAIRS):
                items = np.arange(start, min(start + PAIRS, self.n_items + 1))
                out[row, items] = self._clicks(user, items, histories[row], signal)
        return out

    def _clicks(
        self, user: int, items: np.ndarray, history: np.ndarray, signal: np.ndarray | None
    ) -> np.ndarray:
        n = len(items)
        return self.served.predict(
            np.full(n, user, np.int64), items, [history] * n,
            None if signal is None else [signal] * n,
        )  # fmt: skip

    def reads(self, popular: np.ndarray) -> frozenset[str]:
        """What changes the scores, found by asking the model.

        ``user``: who asks; ``history``: a known user's history; ``visitor``: that of an unknown.
        ``popular`` int64[M] are items to ask with: the model surely knows something of them.
        """
        nothing, some, items = popular[:0], popular[:3], popular[:32]
        visitor, known = self._probe(0, nothing, items), self._probe(1, nothing, items)
        asked = {
            "user": (visitor, known),
            "history": (known, self._probe(1, some, items)),
            "visitor": (visitor, self._probe(0, some, items)),
        }
        return frozenset(
            name for name, (a, b) in asked.items() if not np.allclose(a, b, rtol=1e-5, atol=1e-7)
        )

    def _probe(self, user: int, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        if self.clicks:
            return self._clicks(user, items, history, None)
        return self.served.scores(np.array([user]), [history])[0, 1:]

    @cached_property
    def item_vectors(self) -> np.ndarray | None:
        """float32[N + 1, D], the served item table, or None where the model has none."""
        import torch

        from ..models.ranking_net import device_of

        net = self.served.net
        if not hasattr(net, "item_output"):
            return None
        with torch.no_grad():
            if not self.clicks:
                return net.item_output().float().cpu().numpy()
            # models of news make vectors of given items alone
            ids = torch.arange(self.n_items + 1, device=device_of(net))
            return net.item_output(ids).float().cpu().numpy()

    def states(self, users: Users, histories: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32[B, D], the vectors whose dot product with an item's is its score."""
        import torch

        from ..models.ranking_net import device_of, scoring_batch

        net = self.served.net
        batch = scoring_batch(
            np.asarray(users, np.int64), list(histories), getattr(net, "max_len", None),
            device_of(net),
        )  # fmt: skip
        with torch.no_grad():
            return net.user_state(batch).float().cpu().numpy()

    def fits(self) -> bool:
        """Return whether the weights have a place for each of the N items and for no more."""
        nothing, last = np.zeros(0, np.int64), self.n_items
        if not self.clicks:
            return self.served.scores(np.array([0]), [nothing]).shape[1] == last + 1
        return self._has(last) and not self._has(last + 1)

    def _has(self, item: int) -> bool:
        try:
            self._clicks(0, np.array([item]), np.zeros(0, np.int64), None)
        except IndexError:
            return False
        return True

    def rescore(self, state: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the model's own scores float32[K] of ``items`` for one user's state (D,)."""
        import torch

        from ..models.ranking_net import device_of

        net = self.served.net
        with torch.no_grad():
            given = torch.from_numpy(state[None]).to(device_of(net))
            ids = torch.from_numpy(items).to(given.device)
            return net.score(given, ids)[0].float().cpu().numpy()

    def search_vectors(self, unit: bool) -> np.ndarray:
        """Return the vectors to search, float32[N + 1, D]: item vectors, or those at length 1."""
        vectors = None if self.clicks else self.item_vectors
        if vectors is None:
            name = type(self.served.net).__name__
            raise BundleError(f"{name} has no item vectors to search; leave the index out")
        if not unit:
            return vectors
        norm = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(norm, 1e-12)

    def searched_by(self, users: Users, histories: Sequence[np.ndarray]) -> bool:
        """Return whether vectors of length 1 are searched (cosine) or plain ones (dot product).

        Raises ``BundleError`` where neither ranks as the model does, so that no index can.
        """
        width = self.search_vectors(unit=False).shape[1]
        states, scores = self.states(users, histories), self.scores(users, histories)[:, 1:]
        if states.ndim == 2 and states.shape[1] == width:
            for unit in (False, True):
                dots = states @ self.search_vectors(unit)[1:].T
                # a positive factor per user leaves the ranking as it is
                factor = (dots * scores).sum(1) / np.maximum((dots * dots).sum(1), 1e-12)
                near = np.allclose(factor[:, None] * dots, scores, rtol=1e-3, atol=1e-4)
                if near and (factor > 0).all():
                    return unit
        raise BundleError(
            f"{type(self.served.net).__name__} scores neither by dot product nor by cosine of user "
            "state and item output, so an index would rank differently; leave the index out"
        )


def load_ranker(
    config: Mapping[str, Any], arrays: Mapping[str, np.ndarray], task: str, n_items: int
) -> Ranker:
    """Rebuild an exported model; ``BundleError`` where its network is not ours or a plug-in's."""
    from ..models.served import load_served

    try:
        served = load_served(config, arrays)
    except ValueError as error:
        raise BundleError(f"the bundle cannot be read: {error}") from error
    if served.reads_times:
        raise BundleError(
            f"{type(served.net).__name__} reads the times of a history, which a bundle lacks; "
            "train it without (time_buckets = 0) to serve it"
        )
    ranker = Ranker(served, task in FIELD_TASKS, n_items)
    if not ranker.fits():
        raise BundleError(
            f"the weights are not those of a catalog of {n_items} items; write the bundle with the "
            "log that the model was trained on"
        )
    return ranker
