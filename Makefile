# With python3 (3.11 or newer) and make alone: `make run` sets up and builds the miniature RS5M, `make test` sets up and tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: run test cluster-test fuzz check format bench chaos ack-step remake-mini clean help

help:
	@echo "make run    set up, build the miniature RS5M into build/mini, train a few steps on it, print its funnel"
	@echo "make test   set up and run the tests"
	@echo "make cluster-test  the miniature build through a real Slurm, a Ray cluster that loses nodes, and S3 with faults"
	@echo "make fuzz   the property tests on other examples than make test's, many more of them"
	@echo "make check  formatting, lint, types"
	@echo "make bench  measure each stage against its floor and against peers"
	@echo "make chaos  25 random kills of the mini build and 40 of a download, resumed to the same bytes"

run: $(VENV)/.run-ready
	@$(BIN)/python -m pipeline.world.wheels
	$(BIN)/rs5m-build run
	$(BIN)/rs5m-build train
	@$(BIN)/rs5m-build report

test: $(VENV)/.test-ready
	@$(BIN)/python -m pipeline.world.wheels
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

cluster-test: $(VENV)/.test-ready
	@$(PIP) --editable '.[test,cluster]'
	@$(BIN)/python -m pipeline.world.wheels
	$(BIN)/python -m pytest -m cluster tests/cluster

fuzz: $(VENV)/.test-ready
	RS5M_HYPOTHESIS=fuzz $(BIN)/python -m pytest --numprocesses 2 --dist loadgroup tests/manifests tests/stages

check: $(VENV)/.test-ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.test-ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.test-ready
	@$(PIP) --editable '.[test,bench]'
	$(BIN)/python benchmarks/filter.py
	$(BIN)/python benchmarks/download.py
	$(BIN)/python benchmarks/tars.py
	$(BIN)/python benchmarks/hash.py
	$(BIN)/python benchmarks/near_duplicates.py
	$(BIN)/python benchmarks/bench_memory.py
	$(BIN)/python benchmarks/caption.py
	$(BIN)/python benchmarks/geo.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/mini_cut.py
	$(BIN)/python benchmarks/score.py
	$(BIN)/python benchmarks/runner.py --sizes 6785
	$(BIN)/python benchmarks/scaling.py

chaos: $(VENV)/.test-ready
	@$(BIN)/python -m pipeline.world.wheels
	$(BIN)/python benchmarks/chaos.py
	$(BIN)/python benchmarks/chaos_download.py

remake-mini: $(VENV)/.test-ready
	$(BIN)/python -m pipeline.remake_mini --data $(DATA) --out manifests/models/mini

ack-step: $(VENV)/.test-ready
	$(BIN)/python -m manifests.steplock ack $(NAME)

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run-ready: pyproject.toml constraints.txt | $(VENV)/bin/python
	@start=$$(date +%s); $(PIP) --editable . && echo "set up in $$(( $$(date +%s) - start )) s, $$(du -sm $(VENV) | cut -f1) MB in $(VENV)" && touch $@

$(VENV)/.test-ready: pyproject.toml constraints.txt | $(VENV)/bin/python
	@start=$$(date +%s); $(PIP) --editable '.[test]' && echo "set up in $$(( $$(date +%s) - start )) s, $$(du -sm $(VENV) | cut -f1) MB in $(VENV)" && touch $@ $(VENV)/.run-ready
