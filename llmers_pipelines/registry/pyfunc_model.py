"""The file that MLflow stores as the registered model's code and runs when the model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import yaml

from llmers_pipelines.registry.pyfunc_frame import recommend_frame
from llmers_pipelines.registry.scorer import Scorer


class Recommender(mlflow.pyfunc.PythonModel):
    """A served bundle behind MLflow's pyfunc interface."""

    def load_context(self, context: Any) -> None:
        folder = Path(context.artifacts["bundle"])
        # MLflow writes this file beside the model when it resolves a registered version
        meta = folder.parents[1] / "registered_model_meta"
        version = yaml.safe_load(meta.read_text())["model_version"] if meta.is_file() else None
        self.scorer = Scorer.load(folder, version=version and str(version))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        return recommend_frame(self.scorer, model_input, params)


mlflow.models.set_model(Recommender())
