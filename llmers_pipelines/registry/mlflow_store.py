"""The one owner of MLflow: where its store lies, runs of trainings, model versions, the champion.

MLflow reads its own switches from the environment when it is imported; ``config`` sets them from
``mlflow_environment``. With usage reporting on this module refuses to work.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .manifest import CONFIG, read_manifest, write_model_list
from .training_run import TrainingRun, flat_params, tag_value

if TYPE_CHECKING:
    from ..config import Settings

CHAMPION, PREVIOUS = "champion", "previous"
BUNDLE_TAG = "llmers.bundle"


class NoChampion(LookupError):
    """No version of a model has passed the gate yet."""


def model_name(dataset: str, task: str) -> str:
    """The registered model (and experiment) of one data set and task."""
    return f"llmers-{dataset}-{task}"


def version_page(name: str, version: str) -> str:
    """Return the address of a version below the UI's."""
    return f"#/models/{name}/versions/{version}"


def mlflow_environment(settings: Settings) -> dict[str, str]:
    """Variables that every process with MLflow needs before it imports it."""
    return {
        "MLFLOW_TRACKING_URI": settings.mlflow_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # the UI's job workers cost 0.2 GB each and serve no feature of ours
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }


@dataclass(frozen=True)
class MlflowStore:
    """A tracking store and registry at one place.

    ``tracking_uri`` is ``sqlite:////absolute/path`` or a server's address. ``artifact_root`` is the
    absolute folder of artifacts; None lets a server decide.
    """

    tracking_uri: str
    artifact_root: Path | None = None

    def __post_init__(self) -> None:
        local = self.tracking_uri.startswith("sqlite:")
        if local and not self.tracking_uri.startswith("sqlite:////"):
            raise ValueError(
                f"MLflow store {self.tracking_uri!r} depends on the current folder; "
                "use sqlite:////absolute/path/mlflow.db"
            )
        if local and (self.artifact_root is None or not self.artifact_root.is_absolute()):
            raise ValueError(
                f"artifact_root {self.artifact_root}: a sqlite store needs an absolute folder, or "
                "artifacts land in the current one"
            )

    @classmethod
    def from_settings(cls, settings: Settings) -> MlflowStore:
        uri = settings.mlflow_uri
        local = uri.startswith("sqlite:")
        return cls(uri, settings.mlflow_folder.resolve() / "artifacts" if local else None)

    def mlflow(self) -> Any:
        """Import MLflow and point it at this store."""
        import mlflow
        from mlflow.telemetry import get_telemetry_client

        if get_telemetry_client() is not None:
            raise RuntimeError(
                "MLflow was imported with usage reporting on; call Settings.apply_environment() "
                "(or set MLFLOW_DISABLE_TELEMETRY=true) before anything imports mlflow"
            )
        if self.artifact_root is not None:
            self.artifact_root.mkdir(parents=True, exist_ok=True)
            Path(self.tracking_uri.removeprefix("sqlite:///")).parent.mkdir(
                parents=True, exist_ok=True
            )
        mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.set_registry_uri(self.tracking_uri)
        return mlflow

    def client(self) -> Any:
        return self.mlflow().MlflowClient(self.tracking_uri, self.tracking_uri)

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, created with an explicit artifact folder."""
        from mlflow.exceptions import MlflowException

        client = self.client()
        found = client.get_experiment_by_name(name)
        if found is None:
            place = (self.artifact_root / name).as_uri() if self.artifact_root else None
            try:
                return client.create_experiment(name, artifact_location=place)
            except MlflowException:
                # another process made it in between
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
        return found.experiment_id

    @contextmanager
    def training_run(
        self,
        *,
        dataset: str,
        task: str,
        asset_key: str,
        params: Mapping[str, Any],
        data_versions: Mapping[str, str],
        dagster_run_id: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> Iterator[TrainingRun]:
        """Open the run of one training; an exception ends it as FAILED with the reason as tag.

        ``params`` may be nested; ``data_versions`` maps asset keys to the versions trained on.
        """
        experiment = self.experiment(model_name(dataset, task))
        client = self.client()
        marks = {
            "dagster.asset_key": asset_key, "dagster.run_id": dagster_run_id,
            "dataset": dataset, "task": task, **(tags or {}),
        }  # fmt: skip
        run = client.create_run(
            experiment, run_name=asset_key, tags={k: tag_value(v) for k, v in marks.items() if v}
        )
        opened = TrainingRun(client, run.info.run_id, experiment)
        try:
            opened.log_params(flat_params(params))
            opened.log_inputs(data_versions)
            yield opened
        except BaseException as error:
            client.set_tag(opened.run_id, "failure", tag_value(f"{type(error).__name__}: {error}"))
            client.set_terminated(opened.run_id, "FAILED")
            raise
        client.set_terminated(opened.run_id, "FINISHED")

    def register_bundle(
        self,
        folder: Path,
        name: str,
        tags: Mapping[str, str] | None = None,
        *,
        run_id: str | None = None,
    ) -> str:
        """Register a served bundle as a pyfunc model and return its version.

        An equal bundle is registered once: its version is returned again, with ``tags`` renewed.
        ``run_id`` is the training's run; without it a run named ``register`` holds the model.
        """
        folder = Path(folder)
        content = read_manifest(folder)["content_hash"]
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        client = self.client()
        marks = {k: tag_value(v) for k, v in (tags or {}).items()}
        known = client.search_model_versions(
            f"name = '{name}' and tag.`{BUNDLE_TAG}` = '{content}'"
        )
        if known:
            version = max(known, key=lambda v: int(v.version)).version
            for key, value in marks.items():
                client.set_model_version_tag(name, version, key, value)
            return str(version)
        marks |= {BUNDLE_TAG: content, "dataset": config["dataset"], "task": config["task"],
                  "model": config["model"]}  # fmt: skip
        if run_id is None:
            run_id = client.create_run(self.experiment(name), run_name="register").info.run_id
        mlflow = self.mlflow()
        from .pyfunc_frame import input_example, requirements, signature

        with mlflow.start_run(run_id=run_id, nested=mlflow.active_run() is not None):
            info = mlflow.pyfunc.log_model(
                name=re.sub(r"[/:.%\"']", "-", config["model"]),  # these are refused in names
                python_model=str(Path(__file__).parent / "pyfunc_model.py"),
                artifacts={"bundle": str(folder)}, signature=signature(),
                input_example=input_example(folder), pip_requirements=requirements(config),
            )  # fmt: skip
        client.set_tag(run_id, BUNDLE_TAG, content)
        with contextlib.redirect_stderr(io.StringIO()):  # it congratulates on stderr
            made = mlflow.register_model(info.model_uri, name, tags=marks)
        if self.artifact_root is not None:
            # MLflow marks its files by no checksum; those of a server are the server's.
            write_model_list(Path(mlflow.artifacts.download_artifacts(info.model_uri)))
        return str(made.version)

    def version_tags(self, *, aliased: bool = False) -> list[dict[str, str]]:
        """Return the tags of every registered model version (asset, data_version, dataset).

        With ``aliased`` of those alone that an alias (champion, previous, ...) points at.
        """
        client, out = self.client(), []
        for model in _pages(client.search_registered_models):
            stands = {str(v) for v in model.aliases.values()}
            for version in _pages(client.search_model_versions, f"name = '{model.name}'"):
                if not aliased or str(version.version) in stands:
                    out.append(dict(version.tags))
        return out

    def champion_version(self, name: str) -> str | None:
        """Return the version that serves, or None where none passed the gate yet."""
        return self.aliases(name).get(CHAMPION)

    def champion(self, name: str, *, cache: Path | None = None) -> tuple[str, Path]:
        """Return the champion's version and its bundle folder; ``NoChampion`` where there is none.

        With a local store the folder is the stored one. ``cache`` keeps what a server sends.
        """
        version = self.champion_version(name)
        if version is None:
            raise NoChampion(
                f"no version of {name!r} is champion: none is registered, or the gate refused all; "
                "run the champion asset of this data set and task and read its reasons"
            )
        return version, self.bundle_folder(name, version, cache=cache)

    def newest_of(self, name: str, asset: str) -> str:
        """Return the newest version that was made from ``asset``; ``LookupError`` without one."""
        found = _pages(self.client().search_model_versions, f"name = '{name}'")
        by_asset: dict[str, int] = {}
        for version in found:
            made_from = str(version.tags.get("asset", ""))
            by_asset[made_from] = max(by_asset.get(made_from, 0), int(version.version))
        if asset not in by_asset:
            there = ", ".join(sorted(a.partition("/")[2] for a in by_asset if a)) or "none"
            raise LookupError(f"no version of {name!r} was made from {asset}; there are: {there}")
        return str(by_asset[asset])

    def bundle_folder(self, name: str, version: str, *, cache: Path | None = None) -> Path:
        """Return the folder of a version's served bundle."""
        mlflow = self.mlflow()
        kept = cache / name / version if cache and self.artifact_root is None else None
        if kept is not None and not (kept / "complete").is_file():
            kept.mkdir(parents=True, exist_ok=True)
            mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=str(kept))
            (kept / "complete").touch()
        model = kept or mlflow.artifacts.download_artifacts(f"models:/{name}/{version}")
        flavor = mlflow.models.Model.load(str(model)).flavors["python_function"]
        return Path(model) / flavor["artifacts"]["bundle"]["path"]

    def set_champion(self, name: str, version: str) -> str | None:
        """Move the alias to ``version`` and return the version that it left (kept as previous)."""
        client = self.client()
        before = self.champion_version(name)
        if before == version:
            return before
        if before is not None:
            client.set_registered_model_alias(name, PREVIOUS, before)
        client.set_registered_model_alias(name, CHAMPION, version)
        return before

    def tag_version(self, name: str, version: str, tags: Mapping[str, Any]) -> None:
        """Tag a version and, where it has one, its run: the verdict is found from either side."""
        client = self.client()
        run_id = client.get_model_version(name, version).run_id
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, tag_value(value))
            if run_id:
                client.set_tag(run_id, key, tag_value(value))

    def aliases(self, name: str) -> dict[str, str]:
        """Return alias -> version of a registered model; empty where there is none."""
        from mlflow.exceptions import MlflowException

        try:
            found = self.client().get_registered_model(name).aliases
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
        return {alias: str(version) for alias, version in found.items()}


def _pages(search: Callable[..., Any], query: str | None = None) -> Iterator[Any]:
    """Yield the results of an MLflow search, page after page."""
    token = None
    while True:
        page = search(query, max_results=200, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
