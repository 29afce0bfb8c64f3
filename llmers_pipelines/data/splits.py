"""The log of one task: positions, splits, labels and fields, ready for training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from .catalog import Catalog
from .codes import coded_by_entity, coded_fields, coded_rows, coded_texts
from .description import Description
from .log import Log, compact, prepare_log
from .protocols import DROPPED, RUN, cut_history
from .rules import parse_rule
from .schema import ITEM_ID, RATING, USER_ID, DataError, require_columns
from .split_spec import SplitSpec
from .tasks import FIELD_TASKS, TEXT_TASKS
from .training import HISTORY, SPLIT_NAMES, TEST, TRAIN, VALID, TrainingData


def build_training_data(
    tables: Catalog | Mapping[str, pa.Table], description: Description, task: str
) -> TrainingData:
    """Return the training data of the split ``task`` (a name below ``[splits]``).

    ``tables`` holds valid tables "items", "interactions" and, where there are any, "users".
    Raises ``DataError`` when the split is not declared or leaves nothing to train on or to test.
    """
    spec = description.split(task)
    if isinstance(tables, Catalog):
        tables = {"items": tables.items, "interactions": tables.interactions, "users": tables.users}
    table = tables["interactions"]
    require_columns(table, (USER_ID, ITEM_ID), "interactions")
    log, drops, facts = prepare_log(tables, spec)
    part, more = RUN[spec.protocol](log, spec, table)
    facts |= more
    if (part == DROPPED).any():
        drops["no_part"] = int((part == DROPPED).sum())
        log = compact(log.take(part != DROPPED), universe=spec.universe)
        part = part[part != DROPPED]
    if spec.history:
        part, more = cut_history(log, part, spec.history)
        facts |= more
    label = parse_rule(spec.label).holds(table)[0][log.row] if spec.label else None
    rating = table[RATING].to_numpy()[log.row] if RATING in table.column_names else None
    if rating is not None and np.isnan(rating).all():
        rating = None
    train = part == TRAIN
    item_fields: dict = {}
    user_fields: dict = {}
    if spec.task in FIELD_TASKS:
        item_fields, facts["item_fields"] = coded_fields(
            tables["items"], description.items, ITEM_ID, log.items, log.item[train]
        )
        user_fields, facts["user_fields"] = coded_fields(
            tables.get("users"), description.users, USER_ID, log.users, log.user[train]
        )
    texts: dict = {}
    if spec.task in TEXT_TASKS:
        texts = coded_texts(
            tables["items"], description.items, ITEM_ID, log.items, log.item[train]
        )
        facts["item_texts"] = {n: len(f.vocabulary) - 1 for n, f in texts.items()}
    scenario = impression = None
    if spec.scenario:
        sides = {"item": (item_fields, log.item), "user": (user_fields, log.user)}
        side = spec.scenario.partition(".")[0] if "." in spec.scenario else ""
        if side in sides:
            where = f"split {spec.name!r}"
            fields, place = sides[side]
            scenario = coded_by_entity(fields, spec.scenario, place, train, where)
        else:
            scenario = coded_rows(table, spec.scenario, log.row, train, spec.name)
        if not scenario.vocabulary:
            raise DataError(
                f"split {spec.name!r}: column {spec.scenario!r} has no value in the training rows"
            )
        rows = np.bincount(scenario.codes, minlength=len(scenario.vocabulary) + 1).tolist()
        facts["scenarios"] = dict(zip(("unknown", *scenario.vocabulary), rows, strict=True))
    if spec.impression:
        every = np.ones(len(log), bool)
        impression = coded_rows(table, spec.impression, log.row, every, spec.name).codes
    info = _info(description, spec, log, part, drops, label) | facts
    _require_parts(info, spec)
    if spec.task == "rating" and rating is None:
        raise DataError(f"split {spec.name!r}: the interactions have no ratings to predict")
    return TrainingData(
        task=spec.task, users=log.users, items=log.items,
        user=log.user, item=log.item, time=log.time, split=part,
        rating=None if rating is None else rating.astype(np.float32),
        label=None if label is None else label.astype(np.float32),
        item_fields=item_fields, user_fields=user_fields, item_texts=texts, scenario=scenario,
        impression=None if impression is None else impression.astype(np.int64), info=info,
    )  # fmt: skip


def _info(
    description: Description,
    spec: SplitSpec,
    log: Log,
    part: np.ndarray,
    drops: dict[str, int],
    label: np.ndarray | None,
) -> dict[str, Any]:
    counts = {"users": len(log.users), "items": len(log.items), "interactions": len(log)}
    rows, users, positive = {}, {}, {}
    for code, name in enumerate(SPLIT_NAMES):
        here = part == code
        rows[name] = int(here.sum())
        users[name] = _distinct(log.user[here])
        if label is not None and here.any():
            positive[name] = round(float(label[here].mean()), 6)
    counts |= {"items_in_log": _distinct(log.item), "rows": rows, "users_with_rows": users}
    info: dict[str, Any] = {
        "dataset": description.name,
        "split": spec.name,
        "protocol": spec.protocol,
        "options": spec.options(),
        "clock": log.clock,
        "counts": counts,
        "drops": drops,
        "time_range": [int(log.time.min()), int(log.time.max())],
        "coverage": _coverage(log, part),
    }
    if label is not None:
        info["label"] = spec.label
        info["positive_share"] = positive
    return info


def _distinct(positions: np.ndarray) -> int:
    return int(np.count_nonzero(np.bincount(positions)))


def _coverage(log: Log, part: np.ndarray) -> dict[str, float]:
    """Shares that tell how warm and how time-consistent the test rows are."""
    known = (part == TRAIN) | (part == HISTORY)
    test = part == TEST
    item_known = np.zeros(len(log.items) + 1, bool)
    item_known[log.item[known]] = True
    user_known = np.zeros(len(log.users) + 1, bool)
    user_known[log.user[known]] = True
    last = np.full(len(log.users) + 1, np.iinfo(np.int64).min)
    np.maximum.at(last, log.user[known], log.time[known])
    first = np.full(len(log.users) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, log.user[test], log.time[test])
    both = user_known & (first < np.iinfo(np.int64).max)

    def share(mask: np.ndarray) -> float:
        return round(float(mask.mean()), 6) if len(mask) else 0.0

    return {
        "test_rows_with_known_item": share(item_known[log.item[test]]),
        "test_rows_with_known_user": share(user_known[log.user[test]]),
        "users_tested_after_training": share(last[both] <= first[both]),
    }


def _require_parts(info: dict, spec: SplitSpec) -> None:
    rows = info["counts"]["rows"]
    for code, mend in (
        (TRAIN, "the shares, cutoffs or values leave no row to learn from"),
        (TEST, "choose a protocol that fits the log, or lower min_length"),
    ):
        if not rows[SPLIT_NAMES[code]]:
            raise DataError(
                f"split {spec.name!r} ({spec.protocol}) has no {SPLIT_NAMES[code]} rows: {mend}; "
                f"rows: {rows}, dropped: {info['drops']}"
            )
    if not rows[SPLIT_NAMES[VALID]]:
        info["warnings"] = ["no validation rows: models cannot be selected"]
