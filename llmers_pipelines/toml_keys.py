"""The names that ``llmers.toml`` has for the fields of ``config.Settings``."""

from __future__ import annotations

# section.key -> field
KEYS = {
    "llmers.dataset": "dataset", "llmers.home": "home", "llmers.data_root": "data_root",
    "llmers.offline": "offline", "llmers.dvc": "dvc", "llm.adapter": "adapter",
    "llm.engine": "engine", "llm.model": "model", "llm.revision": "model_revision",
    "llm.max_tokens": "max_tokens", "llm.temperature": "temperature", "llm.seed": "llm_seed",
    "llm.recorded_first": "recorded_first", "llm.dtype": "dtype",
    "train.checkpoint_seconds": "checkpoint_seconds",
    "vllm.quantization": "quantization", "vllm.tensor_parallel": "vllm_tensor_parallel",
    "vllm.gpu_memory_utilization": "vllm_gpu_memory_utilization",
    "vllm.max_model_len": "vllm_max_model_len", "vllm.max_num_seqs": "vllm_max_num_seqs",
    "vllm.kv_cache_gib": "vllm_kv_cache_gib", "vllm.enforce_eager": "vllm_enforce_eager",
    "llm.batch_tokens": "batch_tokens", "llm.accept_contaminated": "accept_contaminated",
    "llm.endpoint": "endpoint", "llm.api_key_env": "api_key_env",
    "llm.concurrency": "concurrency", "llm.requests_per_minute": "requests_per_minute",
    "llm.tokens_per_minute": "tokens_per_minute", "llm.timeout_seconds": "timeout_seconds",
    "llm.attempts": "attempts", "llm.throttle_seconds": "throttle_seconds",
    "llm.schema_form": "schema_form", "llm.token_limit": "token_limit",
    "llm.images": "llm_images", "llm.image_tokens": "image_tokens",
    "encoder.name": "encoder", "ui.lineage_url": "lineage_url", "ui.mlflow_url": "mlflow_ui",
    "budget.calls": "budget_calls", "budget.tokens": "budget_tokens",
    "budget.money": "budget_money", "budget.calls_per_day": "budget_calls_per_day",
    "budget.tokens_per_day": "budget_tokens_per_day", "batch.requests": "batch_requests",
    "budget.money_per_day": "budget_money_per_day", "batch.megabytes": "batch_megabytes",
    "train.device": "device", "train.threads": "threads", "train.compile": "compile",
    "train.warm_start": "warm_start", "train.extend": "extend",
    "tables.quarantine_share": "quarantine_share", "evaluation.seeds": "seeds",
    "tables.view": "view",
    "evaluation.controls": "controls", "refresh.enabled": "refresh",
    "refresh.seconds": "refresh_seconds",
}  # fmt: skip
