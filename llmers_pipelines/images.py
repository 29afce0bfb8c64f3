"""The ``[images]`` section of ``llmers.toml``: where pictures may come from and how large they are.

Without the section, pictures are files of the data set's own folder; none is fetched.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

TYPES = ("jpeg", "png", "webp")


@dataclass(frozen=True)
class ImageSettings:
    """Bounds of a picture, and whether addresses of the web are read.

    ``max_side``, ``max_megabytes``, ``max_pixels`` and ``types`` decide what a model sees; the rest
    how it is fetched. A picture over ``max_side`` is scaled down, one over another bound refused.
    """

    fetch: bool = False  # read http(s) addresses; needs llmers.offline = false as well
    max_megabytes: float = 10.0  # of a file, as it lies there or comes in (1 MB = 1,000,000 bytes)
    max_pixels: int = 40_000_000  # width times height of a file, before it is decoded
    max_side: int = 512  # pixels of the longer side of what a model sees
    types: tuple[str, ...] = TYPES
    timeout_seconds: float = 20.0  # of one fetch, redirects included
    redirects: int = 5
    refresh_days: float = 0.0  # ask again whether a fetched picture changed; 0 = never
    private_addresses: bool = False  # fetch from this machine and the local network as well

    @property
    def seen(self) -> str:
        """What of these settings decides the pixels that a model sees, for a version."""
        kinds = ",".join(sorted(self.types))
        return f"{self.max_side},{self.max_megabytes:g},{self.max_pixels},{kinds}"


def read_images(where: str, body: Mapping[str, Any]) -> ImageSettings:
    """Return the checked section; ``ValueError`` names the file, the setting and the mend."""
    known = {f.name: getattr(ImageSettings(), f.name) for f in fields(ImageSettings)}
    given: dict[str, Any] = {}
    for name, value in body.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            raise ValueError(f"{where} [images]: unknown setting {name!r}; {hint}")
        given[name] = _checked(f"{where} images.{name}", name, value, known[name])
    return ImageSettings(**given)


def _checked(where: str, name: str, value: Any, usual: Any) -> Any:
    if isinstance(usual, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{where} = {value!r}; write true or false")
        return value
    if isinstance(usual, tuple):
        if not isinstance(value, list) or not value or any(v not in TYPES for v in value):
            raise ValueError(f"{where} = {value!r}; a list of some of {', '.join(TYPES)}")
        return tuple(value)
    whole = isinstance(usual, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ValueError(f"{where} = {value!r}; write {'a whole' if whole else 'a'} number")
    least = 0 if name in ("redirects", "refresh_days") else 1 if whole else 1e-6
    if not least <= value < float("inf"):
        raise ValueError(f"{where} = {value!r}; at least {least:g}")
    return value if whole else float(value)
