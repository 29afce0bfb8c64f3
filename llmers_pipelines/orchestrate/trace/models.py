"""Which assets and models were made from a version, by the manifests of what is stored now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...store.manifests import Manifest
from .entities import holds
from .form import Metric, ModelUse, Onward
from .stored import MODELS, Stored, verb_of

Aliases = Callable[[str], Mapping[str, str]]  # registered model -> alias -> version
_DATA = ("table", "generate", "embed", "derive", "pin", "teach")
_BRIEF = 160


@dataclass
class Consumers:
    """What reads one version of an asset, directly or over others."""

    stored: Stored
    start: Manifest

    @cached_property
    def found(self) -> dict[str, tuple[Manifest, bool, tuple[str, ...]]]:
        """Name -> (manifest, made from this very version, its inputs that lead here)."""
        now = {m.name: m for m in self.stored.all()} | {self.start.name: self.start}
        led: dict[str, tuple[bool, tuple[str, ...]]] = {self.start.name: (True, ())}

        def lead(name: str) -> tuple[bool, tuple[str, ...]]:
            if name not in led:
                inputs = _inputs(now[name]) if name in now else {}
                ways = {n: lead(n)[0] and now[n].data_version == v for n, v in inputs.items()
                        if lead(n)[1] or n == self.start.name}  # fmt: skip
                led[name] = (any(ways.values()), tuple(ways))
            return led[name]

        told = {name: (m, *lead(name)) for name, m in now.items() if name != self.start.name}
        return {name: entry for name, entry in told.items() if entry[2]}

    def onward(self, entity: str, row_id: str) -> tuple[Onward, ...]:
        """Return every consumer; of assets that hold rows also what they say of this entity."""
        out = []
        for manifest, same, through in self.found.values():
            verb = verb_of(manifest)
            here, told = False, ""
            if verb in _DATA and self.stored.folder(manifest).is_dir():
                artifact = self.stored.load(manifest)
                here = holds(artifact, entity, row_id)
                told = brief(artifact, entity, row_id) if here else ""
            out.append(Onward(manifest.name, verb, manifest.data_version,
                              self.start.name in through, same, here, told))  # fmt: skip
        return tuple(out)

    def models(self, aliases: Aliases) -> tuple[ModelUse, ...]:
        """Return the trained models among the consumers, the registered and best first."""
        uses = [
            self._use(manifest, same, through, aliases)
            for name, (manifest, same, through) in self.found.items()
            if name.split("/")[0] in MODELS
        ]
        return tuple(sorted(uses, key=lambda u: (
            "champion" not in u.aliases, not u.current, u.task,
            -(u.metric.value or 0.0) if u.metric else 0.0, u.asset,
        )))  # fmt: skip

    def _use(
        self, manifest: Manifest, same: bool, through: tuple[str, ...], aliases: Aliases
    ) -> ModelUse:
        slug = manifest.name.split("/", 1)[1]
        evaluation = self.stored.newest(f"evaluations/{slug}")
        if evaluation is not None and _version(evaluation, manifest.name) != manifest.data_version:
            evaluation = None  # its figures are those of other weights
        register = self.stored.newest(f"registry/{slug}")
        if register is not None and register.info.get("train_version") != manifest.data_version:
            register = None
        flags = {*manifest.flags, *(evaluation.flags if evaluation else ())}
        task = str(evaluation.info.get("task", "")) if evaluation else ""
        use: dict[str, Any] = {}
        if register is not None:
            name, version = str(register.info["model_name"]), str(register.info["version"])
            use = {"registered": name, "version": version,
                   "aliases": tuple(a for a, v in sorted(aliases(name).items()) if v == version)}
            use |= self._gate(name, manifest.name, version)  # fmt: skip
        return ModelUse(
            manifest.name, manifest.data_version, same, through, task, tuple(sorted(flags)),
            metric_of(self.stored, evaluation) if evaluation else None, **use,
        )  # fmt: skip

    def _gate(self, model: str, asset: str, version: str) -> dict[str, Any]:
        for manifest in self.stored.all():
            if verb_of(manifest) == "champion" and manifest.info.get("model_name") == model:
                for verdict in manifest.info.get("verdicts", ()):
                    if verdict["asset"] == asset and str(verdict["version"]) == version:
                        told = "promoted" if verdict["promoted"] else (
                            "stands" if verdict.get("stands") else "refused")  # fmt: skip
                        return {"gate": told, "gate_reasons": tuple(verdict["reasons"])}
        return {}


def _inputs(manifest: Manifest) -> dict[str, str]:
    if not manifest.inputs and manifest.info.get("asset"):  # a pin
        return {str(manifest.info["asset"]): str(manifest.info["data_version"])}
    return {name: version.split(" ")[0] for name, version in manifest.inputs.items()}


def _version(manifest: Manifest, name: str) -> str:
    return manifest.inputs.get(name, "").split(" ")[0]


def metric_of(stored: Stored, evaluation: Manifest) -> Metric | None:
    """Return the primary test metric over all rows of an evaluation, with base and interval."""
    if not stored.folder(evaluation).is_dir():
        return None
    table = stored.load(evaluation)
    primary = evaluation.info.get("primary")
    if not isinstance(table, pa.Table) or not primary:
        return None
    here = pc.and_(pc.equal(table["metric"], primary), pc.equal(table["slice"], "all"))
    rows = table.filter(here).to_pylist()
    if not rows:
        return None
    row = rows[0]
    alone = evaluation.info.get("base") is None  # a baseline is compared with itself
    told = {} if alone else {
        "base": row["base"], "base_model": row["base_method"], "difference": row["difference"],
        "low": row["low"], "high": row["high"],
    }  # fmt: skip
    return Metric(
        str(primary), row["enhanced"], users=row["users"],
        verdict="baseline" if alone else str(evaluation.info.get("verdict", "")),
        reasons=tuple(evaluation.info.get("reasons") or ()), **told,
    )  # fmt: skip


def brief(artifact: Any, entity: str, row_id: str) -> str:
    """Return what an artifact says of an entity in one line: its answer, or how many rows."""
    if not isinstance(artifact, pa.Table):
        return ""
    rows = artifact.filter(pc.equal(artifact[f"{entity}_id"], row_id))
    if "status" in rows.column_names:
        row = rows.slice(0, 1).to_pylist()[0]
        if row["text"] is None:
            return _short(f"{row['status']}: {row['reason'] or ''}")
        return _short(" ".join(str(row["text"]).split()))
    if rows.num_rows == 1:
        row = rows.to_pylist()[0]
        cells = (f"{k} {v}" for k, v in row.items()
                 if v is not None and k not in (f"{entity}_id", "title"))  # fmt: skip
        return _short("; ".join(cells))
    return f"{rows.num_rows} rows"


def _short(text: str) -> str:
    return text if len(text) <= _BRIEF else f"{text[:_BRIEF]} ..."
