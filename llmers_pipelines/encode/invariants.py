"""What every embedding asset must satisfy, as checks over stored artifacts and given metrics.

Numbers in the docstrings are those of the list of invariants. No check raises on bad data: it
returns ``passed=False`` and the numbers behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.text import Texts
from ..data.training import IdMap
from ..data.vectors import VectorTable
from .encoder import Encoder
from .geometry import (
    anisotropy,
    category_purity,
    constant_columns,
    duplicate_rate,
    effective_rank,
)

SAMPLE = 4096  # rows of a geometry report
TOLERANCE = {"float32": 1e-5, "float64": 1e-5}  # of 1 - cosine; 1e-3 for half precisions
LANGUAGE_MODULES = (
    "transformers", "vllm", "peft", "sentence_transformers", "tokenizers", "llama_cpp", "openai",
    "llmers_pipelines.llm", "llmers_pipelines.encode", "llmers_pipelines.prompts",
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """Outcome of one invariant; ``details`` is JSON-ready."""

    name: str
    passed: bool
    details: dict[str, Any] = field(default_factory=dict)


def row_identity(table: VectorTable, ids: IdMap, *, stored: Path, seed: int = 0) -> Check:
    """1. The row aligned to an id is the vector stored under it (first, last, random rows)."""
    kept = VectorTable.load(stored)
    aligned, _ = table.aligned(ids)
    row_of = {value: row for row, value in enumerate(kept.ids)}
    known = [i for i in ids.ids if i in row_of]
    draw = np.random.default_rng(seed).integers(0, max(1, len(known)), 8)
    sample = {known[i] for i in (0, -1, *draw)} if known else set()
    wrong = [
        i for i in sorted(sample)
        if not np.array_equal(aligned[ids.index([i])[0]], kept.vectors[row_of[i]])
    ]  # fmt: skip
    hashes = {"in_memory": table.content_hash(), "stored": kept.content_hash()}
    same = hashes["in_memory"] == hashes["stored"]
    details = {**hashes, "checked": len(sample), "wrong_ids": wrong, "known": len(known)}
    # A table without rows is in order; whether rows are missing is for ``coverage`` to say.
    compared = bool(known) or not kept.ids
    return Check("row_identity", same and not wrong and compared, details)


def padding(aligned: np.ndarray, mask: np.ndarray | None = None) -> Check:
    """2. Row 0 is padding: all zero, never knowledge (initial and trained tables alike)."""
    zero = bool((np.asarray(aligned[0]) == 0).all())
    flagged = bool(mask[0]) if mask is not None else False
    return Check("padding", zero and not flagged, {"row_0_zero": zero, "row_0_mask": flagged})


def coverage(table: VectorTable, ids: Sequence[str], *, max_fallback: float = 1.0) -> Check:
    """3. One finite row per entity of the catalog; the share of fallback rows is reported."""
    missing, extra = set(ids) - set(table.ids), set(table.ids) - set(ids)
    repeated = len(table.ids) - len(set(table.ids))
    broken = int((~np.isfinite(table.vectors).all(1)).sum()) if len(table.ids) else 0
    share = float((~table.mask).mean()) if len(table.ids) else 0.0
    passed = not missing and not extra and not repeated and not broken and share <= max_fallback
    return Check("coverage", passed, {
        "rows": len(table.ids), "missing": len(missing), "extra": len(extra), "repeated": repeated,
        "not_finite": broken, "fallback_share": share, "examples": sorted(missing | extra)[:5],
    })  # fmt: skip


def determinism(table: VectorTable, texts: Texts, encoder: Encoder, *, sample: int = 8) -> Check:
    """4. Texts encoded alone, together and in the asset have the same vector."""
    row_of = {value: row for row, value in enumerate(table.ids)}
    filled = [(t, row_of[i]) for i, t in zip(texts.ids, texts.texts, strict=True)
              if t and i in row_of]  # fmt: skip
    tolerance = TOLERANCE.get(encoder.info.dtype, 1e-3)
    if not filled:
        return Check("determinism", True, {"checked": 0, "tolerance": tolerance})
    at = np.unique(np.linspace(0, len(filled) - 1, sample).astype(int))
    chosen = [filled[i] for i in at]
    batch = encoder.encode([t for t, _ in chosen])
    alone = np.concatenate([encoder.encode([t]) for t, _ in chosen])
    stored = np.asarray(table.vectors[[row for _, row in chosen]])
    worst = max(_worst(batch, alone), _worst(batch, stored))
    details = {"checked": len(chosen), "worst_1_minus_cosine": worst, "tolerance": tolerance}
    return Check("determinism", worst <= tolerance, details)


def incrementality(encoded: int, missing: int) -> Check:
    """5a. No text was encoded but those that the store lacked at the start.

    Fewer are fine: another process may have stored some of them meanwhile.
    """
    details = {"encoded": encoded, "missing from the store": missing}
    return Check("incrementality", encoded <= missing, details)


def unchanged_rows(before: VectorTable, after: VectorTable, changed: Collection[str] = ()) -> Check:
    """5b. Entities present in both versions, other than ``changed``, keep their vector.

    For embeddings and for reducers alike: a re-fit would move every row. Fallback rows hold a mean
    and may move.
    """
    if before.dim != after.dim:
        return Check("unchanged_rows", False, {"dim_before": before.dim, "dim_after": after.dim})
    old = {i: r for r, i in enumerate(before.ids) if before.mask[r] and i not in changed}
    pairs = [(old[i], r) for r, i in enumerate(after.ids) if i in old and after.mask[r]]
    if not pairs:
        return Check("unchanged_rows", True, {"compared": 0})
    a, b = np.array(pairs).T
    x, y = np.asarray(before.vectors)[a], np.asarray(after.vectors)[b]
    size = np.maximum(np.linalg.norm(x, axis=1), 1e-6)
    worst = float((np.linalg.norm(x - y, axis=1) / size).max())
    details = {"compared": len(pairs), "worst_relative_move": worst}
    return Check("unchanged_rows", worst <= 1e-3, details)


def reducer_hygiene(info: Mapping[str, Any], fit_ids_sha256: str | None = None) -> Check:
    """6. A fitted reducer logged its explained variance and saw the allowed rows alone.

    ``info`` is what ``apply`` returned, ``fit_ids_sha256`` the hash of the allowed ids.
    """
    share = info.get("explained_variance")
    logged = share is not None and 0.0 <= share <= 1.0 + 1e-9
    allowed = fit_ids_sha256 is None or info.get("fit_ids_sha256") == fit_ids_sha256
    details = {"explained_variance": share, "fit_rows": info.get("fit_rows"),
               "reused": info.get("reused"), "rows_allowed": allowed}  # fmt: skip
    return Check("reducer_hygiene", logged and allowed, details)


def sign_convention(components: np.ndarray) -> Check:
    """6b. The largest-magnitude loading of every axis (row) is positive; zero rows are exempt."""
    peak = components[np.arange(len(components)), np.abs(components).argmax(1)]
    wrong = np.flatnonzero(peak < 0).tolist()
    return Check("sign_convention", not wrong, {"axes": len(components), "wrong": wrong})


def geometry(
    table: VectorTable,
    categories: Mapping[str, Collection[str]] | None = None,
    *,
    k: int = 5,
    max_duplicates: float = 0.5,
) -> Check:
    """7. Report of the rows with a text of their own (at most SAMPLE, evenly spaced).

    Fails where nothing can be told apart: rank 1, or more duplicates than ``max_duplicates``.
    """
    rows = np.flatnonzero(table.mask)
    if len(rows) > SAMPLE:
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(int))]
    x = np.asarray(table.vectors[rows], np.float32)
    report: dict[str, Any] = {
        "rows": len(rows), "dim": table.dim, "anisotropy": anisotropy(x),
        "effective_rank": effective_rank(x), "duplicate_rate": duplicate_rate(x),
        "constant_columns": constant_columns(x),
    }  # fmt: skip
    if categories is not None:
        found = category_purity(x, [categories.get(table.ids[r], ()) for r in rows], k)
        report |= {"category_purity": found[0], "purity_by_chance": found[1]} if found else {}
    rank, repeated = report["effective_rank"], report["duplicate_rate"]
    passed = rank is not None and (rank > 1.5 or len(rows) < 2) and repeated <= max_duplicates
    return Check("geometry", bool(passed), report)


def permutation_control(
    vanilla: float, enhanced: float, controls: Mapping[str, float],
    noise: Mapping[str, tuple[float, float]] | None = None,
) -> Check:  # fmt: skip
    """9. No control (permuted rows, matched Gaussians) beats vanilla, nor reaches the enhanced run.

    Metrics are higher-is-better. ``noise`` maps a control to what its differences must exceed to be
    more than noise: the one over vanilla, which it must not, and that of enhanced over it, which it
    must; both 0 where a control is not named.
    """
    margins = {c: (noise or {}).get(c, (0.0, 0.0)) for c in controls}
    beats = sorted(c for c, value in controls.items() if value - vanilla > margins[c][0])
    reaches = sorted(c for c, value in controls.items() if not enhanced - value > margins[c][1])
    details: dict[str, Any] = {"vanilla": vanilla, "enhanced": enhanced, **controls}
    details |= {f"noise of {c}": list(margins[c]) for c in controls}
    details |= {"better than vanilla": beats, "not below enhanced": reaches}
    return Check("permutation_control", not beats and not reaches, details)


def matched_budget(base: Mapping[str, Any], enhanced: Mapping[str, Any]) -> Check:
    """10. Base and enhanced share width, loss, negatives, trainings (all keys of either)."""
    keys = sorted({*base, *enhanced})
    differ = {k: [base.get(k), enhanced.get(k)] for k in keys if base.get(k) != enhanced.get(k)}
    return Check("matched_budget", not differ, {"compared": keys, "differ": differ})


def no_language_model(modules: Iterable[str]) -> Check:
    """11. No module of a served bundle belongs to a language-model library.

    Give the names in ``sys.modules`` of a serving process, or ``module_names(model)``.
    """
    found = sorted({
        m for m in modules if any(m == bad or m.startswith(f"{bad}.") for bad in LANGUAGE_MODULES)
    })  # fmt: skip
    return Check("no_language_model", not found, {"found": found[:10]})


def module_names(model: Any) -> set[str]:
    """Return where the classes of a model and of its submodules are defined."""
    parts = model.modules() if hasattr(model, "modules") else [model]
    return {base.__module__ for part in parts for base in type(part).__mro__}


def _worst(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest 1 - cosine of paired rows; rows that are zero in both agree."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norm = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    both_zero = ~x.any(1) & ~y.any(1)
    cos = np.where(both_zero, 1.0, (x * y).sum(1) / np.maximum(norm, 1e-30))
    return float(max(0.0, (1 - cos).max()))
