"""What a recommender trains on: one log with id maps and splits, as plain numpy arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

TRAIN, VALID, TEST, HISTORY = 0, 1, 2, 3  # HISTORY rows feed prompts and histories, never a label
SPLIT_NAMES = ("train", "valid", "test", "history")


@dataclass(frozen=True)
class IdMap:
    """Entity ids (strings) and their positions 1..n; 0 means padding or unknown."""

    ids: tuple[str, ...]

    @cached_property
    def _position(self) -> dict[str, int]:
        return {value: i for i, value in enumerate(self.ids, start=1)}

    def __len__(self) -> int:
        return len(self.ids)

    def index(self, ids: Sequence[str]) -> np.ndarray:
        """Return int64 positions of ``ids``, 0 where unknown."""
        get = self._position.get
        return np.fromiter((get(str(i), 0) for i in ids), np.int64, count=len(ids))


@dataclass(frozen=True)
class Field:
    """A categorical field: codes int32[n + 1] (row 0 = 0, code 0 = missing) and its vocabulary."""

    codes: np.ndarray
    vocabulary: tuple[str, ...]  # vocabulary[c - 1] is the value of code c


@dataclass(frozen=True)
class TrainingData:
    """The log of one data set and task.

    Rows are sorted by user, then time, then original row order. ``user`` and ``item`` are int64
    positions 1..U and 1..N. ``split`` is int8 (TRAIN, VALID, TEST, HISTORY). ``label`` is float32
    in {0, 1} for click tasks and None elsewhere; ``rating`` is float32 or None; ``time`` is int64
    seconds (or the stored order where the data set has no clock). ``scenario`` has a code per row
    (0 = unknown); ``impression`` int64[R] is equal for rows that were shown together, 0 = unknown.
    ``item_texts`` hold an item's words in their order, int32[N + 1, L], 0 = none, 1 = unknown word.
    """

    task: str
    users: IdMap
    items: IdMap
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    split: np.ndarray
    rating: np.ndarray | None = None
    label: np.ndarray | None = None
    item_fields: dict[str, Field] = field(default_factory=dict)
    user_fields: dict[str, Field] = field(default_factory=dict)
    item_texts: dict[str, Field] = field(default_factory=dict)
    scenario: Field | None = None
    impression: np.ndarray | None = None
    info: dict[str, object] = field(default_factory=dict)  # protocol, counts, cutoff, drops

    @property
    def n_users(self) -> int:
        return len(self.users)

    @property
    def n_items(self) -> int:
        return len(self.items)

    @cached_property
    def user_start(self) -> np.ndarray:
        """Offsets int64[U + 2]: rows of user u are ``user_start[u]:user_start[u + 1]``."""
        return np.searchsorted(self.user, np.arange(self.n_users + 2))

    @cached_property
    def train_counts(self) -> np.ndarray:
        """Training interactions per item, int64[N + 1]."""
        return np.bincount(self.item[self.split == TRAIN], minlength=self.n_items + 1)

    def content_hash(self) -> str:
        """Hash of everything a model can see; independent of how it is stored."""
        h = hashlib.sha256()
        h.update(json.dumps([self.task, self.users.ids, self.items.ids]).encode())
        for a in (self.user, self.item, self.time, self.split, self.rating, self.label):
            h.update(b"-" if a is None else np.ascontiguousarray(a).tobytes())
        for fields in (self.item_fields, self.user_fields):
            for name in sorted(fields):
                h.update(name.encode())
                h.update(np.ascontiguousarray(fields[name].codes, dtype=np.int32).tobytes())
                h.update(json.dumps(fields[name].vocabulary).encode())
        more = {f"text.{n}": f for n, f in self.item_texts.items()}
        if self.scenario is not None:
            more["scenario"] = self.scenario
        for name in sorted(more):  # what a log lacks leaves no trace: older hashes stay as they are
            h.update(json.dumps([name, more[name].vocabulary]).encode())
            h.update(np.ascontiguousarray(more[name].codes, dtype=np.int32).tobytes())
        if self.impression is not None:
            h.update(b"impression" + np.ascontiguousarray(self.impression).tobytes())
        return h.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write ``log.npz`` and ``log.json`` (no pickles)."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"user": self.user, "item": self.item, "time": self.time, "split": self.split}
        if self.rating is not None:
            arrays["rating"] = self.rating
        if self.label is not None:
            arrays["label"] = self.label
        vocab: dict[str, dict[str, tuple[str, ...]]] = {"item": {}, "user": {}}
        for side, fields in (("item", self.item_fields), ("user", self.user_fields)):
            for name, f in fields.items():
                arrays[f"{side}_field.{name}"] = f.codes.astype(np.int32)
                vocab[side][name] = f.vocabulary
        for name, f in self.item_texts.items():
            arrays[f"text.{name}"] = f.codes.astype(np.int32)
            vocab.setdefault("text", {})[name] = f.vocabulary
        if self.scenario is not None:
            arrays["scenario"] = self.scenario.codes.astype(np.int32)
            vocab["scenario"] = {"": self.scenario.vocabulary}
        if self.impression is not None:
            arrays["impression"] = self.impression
        np.savez(folder / "log.npz", **arrays)
        meta = {
            "task": self.task, "users": self.users.ids, "items": self.items.ids,
            "vocabulary": vocab, "info": self.info,
        }  # fmt: skip
        (folder / "log.json").write_text(json.dumps(meta, ensure_ascii=False))

    @classmethod
    def load(cls, folder: Path) -> TrainingData:
        meta = json.loads((folder / "log.json").read_text())
        with np.load(folder / "log.npz", allow_pickle=False) as z:
            arrays = {name: z[name] for name in z.files}

        def fields(side: str) -> dict[str, Field]:
            return {
                name: Field(arrays[f"{side}_field.{name}"], tuple(words))
                for name, words in meta["vocabulary"][side].items()
            }

        texts = {
            name: Field(arrays[f"text.{name}"], tuple(words))
            for name, words in meta["vocabulary"].get("text", {}).items()
        }
        scenario = None
        if "scenario" in arrays:
            scenario = Field(arrays["scenario"], tuple(meta["vocabulary"]["scenario"][""]))
        return cls(
            task=meta["task"], users=IdMap(tuple(meta["users"])), items=IdMap(tuple(meta["items"])),
            user=arrays["user"], item=arrays["item"], time=arrays["time"], split=arrays["split"],
            rating=arrays.get("rating"), label=arrays.get("label"),
            item_fields=fields("item"), user_fields=fields("user"), item_texts=texts,
            scenario=scenario, impression=arrays.get("impression"), info=meta["info"],
        )  # fmt: skip
