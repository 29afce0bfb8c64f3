"""Names of components as they stand in asset keys: lower case, digits and underscores."""

from __future__ import annotations

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
