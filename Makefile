# Everything sets up .venv by itself from requirements.txt; `make` alone lists the targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv/bin
DEMO ?= demo
DATA ?= $(AMURO_DATA_DIR)
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: .venv/ready  ## create .venv with everything pinned

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(VENV)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(VENV)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch .venv/ready

demo: .venv/ready  ## the whole study on the nursery, offline: raise, fine-tune, evaluate, report; goes on where it stopped
	$(VENV)/amuro nursery --out $(DEMO)/nursery --threads 2
	$(VENV)/python -m amuro.demo --out $(DEMO)
	$(VENV)/python -m analysis.report --runs $(DEMO)/runs --out $(DEMO)/report

test: .venv/ready  ## all tests
	$(VENV)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/ready  ## formatting, lint and types
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy

bench: .venv/ready  ## speed of the engine, and the whole path on real rows (an hour); DATA=a mirror of the datasets, with text/
	OMP_NUM_THREADS=1 $(VENV)/python bench/eval_speed.py --data_dir "$(DATA)"
	$(VENV)/python bench/mirror.py --data_dir "$(DATA)" --out $(DEMO)/mirror

clean:  ## remove what the demo wrote
	rm -rf $(DEMO)
