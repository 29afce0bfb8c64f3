"""Recommendations from a served bundle. Imports no language model, no encoder, no tracking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .bundle import Bundle, load_bundle
from .explain import Explainer
from .explore import NO_PLACE, Explore, mixed, tree_of
from .ranker import Ranker, load_ranker

if TYPE_CHECKING:
    from .index import ItemIndex

BLOCK = 4_000_000  # scores held at once

NOTES = {
    "popularity": "nothing is known of this user, so these are the most popular items",
    "history": "unknown user: the model scored the given history",
    "similar_items": "unknown user, and the model reads no history: items near the given history",
}
UNKNOWN = ("{} items were added after the training and this method knows nothing of them: they are "
           "not recommended")  # fmt: skip


@dataclass(frozen=True)
class _Request:
    """One request in positions; ``mode`` is "model" or the fallback that answers."""

    user_id: str | None
    user: int
    history: np.ndarray  # int64, oldest first
    signal: np.ndarray | None
    seen: np.ndarray  # int64, never recommended
    ignored: list[str]  # ids of the given history that the catalog does not have
    mode: str
    note: str | None


@dataclass(frozen=True)
class Scorer:
    """Answers requests for one model version."""

    bundle: Bundle
    ranker: Ranker
    version: str
    reads: frozenset[str]  # see Ranker.reads
    index: ItemIndex | None = None

    @classmethod
    def load(
        cls, folder: Path, *, version: str | None = None, verify: bool = True, gpu: bool = False
    ) -> Scorer:
        """Load a bundle and rebuild its model. ``version`` defaults to the bundle's hash."""
        bundle = load_bundle(Path(folder), verify=verify)
        config = bundle.config
        ranker = load_ranker(
            config["model_config"], bundle.arrays, config["task"], bundle.n_items
        )
        index = None
        if config["index"]:
            from .index import load_index

            vectors = ranker.search_vectors(config["index"]["unit"])
            index = load_index(bundle.index_file, vectors, config["index"], gpu=gpu)
        reads = ranker.reads(bundle.by_popularity)
        return cls(bundle, ranker, version or bundle.content_hash, reads, index)

    def recommend(
        self,
        user_id: str | None,
        k: int = 10,
        *,
        history: Sequence[str] | None = None,
        exclude_seen: bool = True,
        explain: bool = False,
        explore: Explore | None = None,
    ) -> dict[str, Any]:
        """Return the k best items of one user.

        ``history`` (item ids, oldest first) replaces the stored one, which holds all known rows.
        The answer has ``user, model, version, items`` and says in ``fallback`` when it is not the
        plain model's: ``popularity`` (nothing is known), ``history`` (unknown user, the model
        scored the given history), ``similar_items`` (unknown user, the model reads no history).
        Ids that the catalog lacks are in ``ignored``. With ``explain`` each item has ``why``.
        ``explore`` gives the end of the list to items near the user in the model's tree, marked
        ``explored``; ValueError where the model keeps no tree.
        """
        return self.recommend_many(
            [user_id], k, histories=[history], exclude_seen=exclude_seen, explain=explain,
            explore=explore,
        )[0]  # fmt: skip

    def recommend_many(
        self,
        user_ids: Sequence[str | None],
        k: int = 10,
        *,
        histories: Sequence[Sequence[str] | None] | None = None,
        exclude_seen: bool = True,
        explain: bool = False,
        explore: Explore | None = None,
    ) -> list[dict[str, Any]]:
        """Return ``recommend`` for each user; the model scores them together."""
        if k < 1:
            raise ValueError(f"k = {k}; at least 1 is needed")
        if explore is not None:
            tree_of(self.ranker.served.net)
        if histories is None:
            histories = [None] * len(user_ids)
        requests = [
            self._request(u, h, exclude_seen) for u, h in zip(user_ids, histories, strict=True)
        ]
        answers: list[dict[str, Any]] = []
        step = max(1, BLOCK // (self.bundle.n_items + 1))
        for start in range(0, len(requests), step):
            part = requests[start : start + step]
            for request, (items, scores) in zip(part, self._best(part, k), strict=True):
                new = 0
                if explore is not None:
                    items, scores, new = self._explored(request, items, scores, k, explore)
                answers.append(self._answer(request, items, scores, explain))
                for row in answers[-1]["items"][len(items) - new :]:
                    row["explored"] = True
                if explore is not None and not (request.user and request.mode == "model"):
                    told = answers[-1]
                    told["note"] = "; ".join(filter(None, [told["note"], NO_PLACE]))
        return answers

    @cached_property
    def unknown(self) -> np.ndarray:
        """Positions int64 of items that were added after the training and have no vector."""
        told = self.bundle.config.get("unknown_items", ())
        return np.array([self.bundle.items.position(str(i)) for i in told], np.int64)

    @cached_property
    def explainer(self) -> Explainer:
        return Explainer(self.bundle, self.ranker.item_vectors)

    def _request(
        self, user_id: str | None, given: Sequence[str] | None, exclude_seen: bool
    ) -> _Request:
        bundle = self.bundle
        user = bundle.users.position(str(user_id)) if user_id not in (None, "") else 0
        known = bundle.seen[bundle.rows(user)].astype(np.int64)
        signal = None if bundle.signal is None else bundle.signal[bundle.rows(user)]
        history, ignored = known, []
        if given is not None:
            found = [(i, bundle.items.position(str(i))) for i in given]
            ignored = [i for i, p in found if not p]
            history = np.array([p for _, p in found if p], np.int64)
            # a history without ratings counts as liked
            liked = bundle.config["liked_signal"]
            signal = None if liked is None else np.full(len(history), liked, np.float32)
        mode, note = self._mode(user, history)
        if mode == "model" and given is not None and "history" not in self.reads:
            note = "the model reads no history of a known user: the given one only excludes items"
        seen = np.unique(np.concatenate([known, history])) if exclude_seen else history[:0]
        if len(self.unknown):
            seen = np.union1d(seen, self.unknown)
        return _Request(user_id, user, history, signal, seen, ignored, mode, note)

    def _mode(self, user: int, history: np.ndarray) -> tuple[str, str | None]:
        if user and ("user" in self.reads or len(history)):
            return "model", None
        if not len(history):
            return "popularity", NOTES["popularity"]
        mode = "history" if "visitor" in self.reads else "similar_items"
        return mode, NOTES[mode]

    def _best(self, requests: list[_Request], k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (positions, scores) per request, best first, at most k."""
        modelled = [r for r in requests if r.mode in ("model", "history")]
        if self.index is not None and modelled:
            ranked = self._search(self.index, modelled, k)
        else:
            ranked = self._scan(modelled, k)
        by_model = iter(ranked)
        return [
            next(by_model) if r.mode in ("model", "history") else self._without_model(r, k)
            for r in requests
        ]

    def _scan(self, requests: list[_Request], k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        if not requests:
            return []
        signals = [r.signal for r in requests if r.signal is not None]
        scores = self.ranker.scores(
            [r.user for r in requests], [r.history for r in requests], signals or None
        )
        return [top(row, r.seen, k) for row, r in zip(scores, requests, strict=True)]

    def _search(
        self, index: ItemIndex, requests: list[_Request], k: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ask the index where k and all that was seen are no more than its recall was measured at
        and than a quarter of the catalog; scan for the other requests."""
        most = self.bundle.n_items // 4
        most = min(most, index.most) if index.most else most
        far = [k + len(r.seen) > most for r in requests]
        scanned = iter(self._scan([r for r, f in zip(requests, far, strict=True) if f], k))
        near = iter(self._near(index, [r for r, f in zip(requests, far, strict=True) if not f], k))
        return [next(scanned if f else near) for f in far]

    def _near(
        self, index: ItemIndex, requests: list[_Request], k: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ask the index for as many items as its recall was measured at."""
        if not requests:
            return []
        wanted = max(index.most, k + max(len(r.seen) for r in requests))
        states = self.ranker.states([r.user for r in requests], [r.history for r in requests])
        out = []
        _, found = index.search(states, wanted)
        for r, state, ids in zip(requests, states, found, strict=True):
            ids = np.sort(ids[(ids > 0) & ~np.isin(ids, r.seen)])
            scores = self.ranker.rescore(state, ids)
            order = np.argsort(-scores, kind="stable")[:k]
            short = len(order) < k  # an approximate index may run dry in the cells it visits
            out.append(self._scan([r], k)[0] if short else (ids[order], scores[order]))
        return out

    def _explored(
        self, r: _Request, items: np.ndarray, scores: np.ndarray, k: int, how: Explore
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Return (positions, scores, how many at the end are explored)."""
        if not (r.user and r.mode == "model"):
            return items, scores, 0
        chosen, new = mixed(self.ranker.served.net, r.user, items, r.seen, k, how)
        if not new:
            return items, scores, 0
        own = self.ranker.rescore(self.ranker.states([r.user], [r.history])[0], chosen[-new:])
        return chosen, np.concatenate([scores[: len(chosen) - new], own]), new

    def _without_model(self, r: _Request, k: int) -> tuple[np.ndarray, np.ndarray]:
        if r.mode == "popularity":
            order = self.bundle.by_popularity
            items = order[~np.isin(order, r.seen)][:k]
            return items, self.bundle.popularity[items].astype(np.float32)
        near = np.full(self.bundle.n_items + 1, -np.inf, np.float32)
        near[1:] = self.explainer.likeness_to_all(r.history)
        return top(near, r.seen, k)

    def _note(self, r: _Request) -> str | None:
        told = UNKNOWN.format(len(self.unknown)) if len(self.unknown) else ""
        return "; ".join(filter(None, [r.note, told])) or None

    def _answer(
        self, r: _Request, items: np.ndarray, scores: np.ndarray, explain: bool
    ) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        for item, score in zip(items.tolist(), scores.tolist(), strict=True):
            row = {"item_id": self.bundle.items.id(item), "title": self.bundle.title(item),
                   "score": score}  # fmt: skip
            if explain and r.mode == "popularity":
                row["why"] = {"by": "popularity", "interactions": int(score)}
            elif explain:
                row["why"] = self.explainer.why(item, r.history)
            rows.append(row)
        return {
            "user": r.user_id, "model": self.bundle.config["model"], "version": self.version,
            "fallback": None if r.mode == "model" else r.mode, "note": self._note(r),
            "ignored": r.ignored, "items": rows,
        }  # fmt: skip


def top(scores: np.ndarray, seen: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (positions, scores) of the k best of ``scores`` (N + 1,), equal ones by position.

    Padding, seen items and scores of -inf are left out.
    """
    scores = scores.copy()
    scores[0] = -np.inf
    scores[seen] = -np.inf
    items = np.flatnonzero(scores > -np.inf)
    values = scores[items]
    if len(items) > k:
        best = values >= np.partition(values, len(items) - k)[len(items) - k]
        items, values = items[best], values[best]
    order = np.argsort(-values, kind="stable")[:k]
    return items[order], values[order]
