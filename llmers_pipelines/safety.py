"""The ``[safety]`` section of ``llmers.toml``: which generated texts are checked for what.

Without the section nothing is checked and every table stays as it is.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ACTIONS = ("keep", "mask", "hold")
# check -> its own settings with their defaults, and the assets that it reads unless told otherwise
CHECKS: dict[str, dict[str, Any]] = {
    "protected_attributes": {"categories": [], "words": [], "mentions": False,
                             "packaged": True, "assets": ["user_profiles"]},
    "toxicity": {"words": [], "classifier": "", "threshold": 0.5},
    "pii": {"kinds": []},
    "refusal": {},
    "boilerplate": {"share": 0.05, "least_rows": 5},
    "language": {"expected": "en", "least_words": 12},
}  # fmt: skip
_SPANS = ("protected_attributes", "toxicity", "pii", "refusal")  # findings that a mask can cover
_COMMON = {"action": "keep", "blocking": False, "max_share": 0.05, "assets": []}
REVISION = 1  # of the detectors; raise it when one finds other things


@dataclass(frozen=True)
class SafetyCheck:
    """One check: what it looks for, and what happens to a text in which it finds something.

    ``keep`` only reports, ``mask`` replaces what was found by its kind in brackets, ``hold`` keeps
    the row with status "held" and without its text. The asset check fails where more than
    ``max_share`` of the texts have a finding; ``blocking`` then holds everything downstream.
    """

    name: str
    action: str = "keep"
    blocking: bool = False
    max_share: float = 0.05
    assets: tuple[str, ...] = ()  # asset prefixes; none = everything that is generated
    options: Mapping[str, Any] = field(default_factory=dict)

    def reads(self, prefix: str) -> bool:
        return not self.assets or prefix in self.assets


@dataclass(frozen=True)
class Safety:
    """All checks in force."""

    checks: tuple[SafetyCheck, ...] = ()

    def of(self, prefix: str) -> tuple[SafetyCheck, ...]:
        """Return the checks of assets below ``prefix`` (``user_profiles``)."""
        return tuple(check for check in self.checks if check.reads(prefix))

    def version(self, prefix: str) -> str:
        """Return a hash of the settings, word files and detectors that judge ``prefix``; "" = none.

        Limits and blocking are part of it: they decide what the checks say.
        """
        checks = self.of(prefix)
        if not checks:
            return ""
        told = [str(REVISION), *(repr(check) for check in checks)]
        told += [Path(file).read_text(encoding="utf-8") for check in checks
                 for file in check.options.get("words", ())]  # fmt: skip
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def default_safety() -> Safety:
    """Return every check that needs nothing of the user, each only reporting."""
    return read_safety("the defaults", {}, Path("."))


def read_safety(where: str, body: Mapping[str, Any], folder: Path) -> Safety:
    """Return the checks of a ``[safety]`` table; files are relative to ``folder``.

    ``checks`` names those in force; without it they are all but toxicity, and each that has a table
    of its own. Raises ``ValueError`` that names the place of a fault.
    """
    tables = {name: value for name, value in body.items() if isinstance(value, Mapping)}
    for name in body:
        if name not in {"assets", "checks", *CHECKS}:
            raise ValueError(_unknown(f"{where}: [safety]", name, ["assets", "checks", *CHECKS]))
        if name in CHECKS and name not in tables:
            raise ValueError(f"{where}: [safety] {name} must be a table [safety.{name}]")
    for key in ("checks", "assets"):
        _texts(f"{where}: [safety]", key, body.get(key, []))
    chosen = body.get("checks", [n for n in CHECKS if n != "toxicity"])
    for name in chosen:
        if name not in CHECKS:
            raise ValueError(_unknown(f"{where}: [safety] checks", str(name), list(CHECKS)))
    prefixes = body.get("assets", [])
    return Safety(tuple(
        _check(f"{where}: [safety.{name}]", name, tables.get(name, {}), prefixes, folder)
        for name in CHECKS if name in chosen or name in tables
    ))  # fmt: skip


def _check(
    where: str, name: str, given: Mapping[str, Any], prefixes: Any, folder: Path
) -> SafetyCheck:
    defaults = {**_COMMON, **({"assets": prefixes} if prefixes else {}), **CHECKS[name]}
    if prefixes:
        defaults["assets"] = prefixes
    for key, value in given.items():
        if key not in defaults:
            raise ValueError(_unknown(where, key, list(defaults)))
        wanted = type(defaults[key])
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not wanted:
            raise ValueError(f"{where}: {key} = {value!r}; expected a {wanted.__name__}")
        if wanted is list:
            _texts(where, key, value)
        defaults[key] = value
    if defaults["action"] not in ACTIONS:
        raise ValueError(f"{where}: action = {defaults['action']!r}; one of {', '.join(ACTIONS)}")
    if defaults["action"] == "mask" and name not in _SPANS:
        raise ValueError(
            f"{where}: {name} judges a whole text, which no mask mends; use keep, hold"
        )
    if not 0 <= defaults["max_share"] <= 1:
        raise ValueError(f"{where}: max_share = {defaults['max_share']}; expected 0 to 1")
    if name == "toxicity" and not (defaults["words"] or defaults["classifier"]):
        raise ValueError(f'{where}: give words = ["file"] or classifier = "module:function"')
    if defaults.get("classifier") and defaults["action"] == "mask":
        raise ValueError(f"{where}: a classifier judges a whole text; use keep or hold")
    files = tuple(str((folder / file).expanduser().resolve()) for file in defaults.get("words", []))
    for file in files:
        if not Path(file).is_file():
            raise ValueError(f"{where}: words: no file {file}")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in defaults.items()
               if k not in _COMMON}  # fmt: skip
    if "words" in options:
        options["words"] = files
    return SafetyCheck(name, defaults["action"], defaults["blocking"], defaults["max_share"],
                       tuple(defaults["assets"]), options)  # fmt: skip


def _texts(where: str, key: str, value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{where}: {key} = {value!r}; expected a list of texts")


def _unknown(where: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
    return f"{where}: unknown {name!r}{hint}"
