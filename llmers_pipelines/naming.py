"""Names of components as they stand in asset keys: lower case, digits and underscores."""

from __future__ import annotations

import hashlib
import re
from typing import Any


def snake(name: str) -> str:
    """Return ``LLMInit`` as ``llm_init``, ``SASRec`` as ``sasrec``, ``DeepFM`` as ``deepfm``."""
    known = {"SASRec": "sasrec", "LightGCN": "lightgcn", "DeepFM": "deepfm", "ItemKNN": "itemknn",
             "TextKNN": "textknn", "BPRMF": "bprmf", "KNNBlend": "knnblend", "EASE": "ease",
             "GRU4Rec": "gru4rec", "PCA": "pca", "DCNv2": "dcnv2", "AutoInt": "autoint",
             "XDeepFM": "xdeepfm", "FiBiNET": "fibinet", "MMoE": "mmoe", "BERT4Rec": "bert4rec",
             "SRGNN": "srgnn", "ComiRec": "comirec"}  # fmt: skip
    if name in known:
        return known[name]
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


def safe(value: Any) -> str:
    return re.sub(r"[^a-z0-9]+", "_", str(value).lower()).strip("_")


def bounded(slug: str, most: int = 140) -> str:
    """Return ``slug``, or where it is longer than ``most`` its start and a mark of the whole.

    Chains of assets name their first source, so that long chains would outgrow what file systems
    and trackers take as a name.
    """
    if len(slug) <= most:
        return slug
    mark = hashlib.sha256(slug.encode()).hexdigest()[:8]
    return f"{slug[: most - 10].rstrip('_')}__{mark}"


def marked(slug: str, mark: str) -> str:
    """Return ``slug`` with ``mark`` behind it; before ``__template``, which stays the end."""
    head = slug.removesuffix("__template")
    tail = f"__{mark}{slug[len(head) :]}"
    return bounded(head, 140 - len(tail)) + tail
