# Every target sets up what it needs. STACK=onedl (default) or STACK=openmmlab.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

STACK ?= onedl
PYTHON ?= python3
# Processes and more arguments of the test suite: make test PYTEST_ARGS='-k matcher'
WORKERS ?= 2
PYTEST_ARGS ?=
BENCH_ARGS ?=

VENV := .venv$(if $(filter openmmlab,$(STACK)),-openmmlab)
BIN := $(VENV)/bin

DEMO_DATA := data/shapes
DEMO_DIR := work_dirs/demo

# Two processes with one thread each: more threads than cores make a small model slower.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
# Tests marked gpu run only with a CUDA device.
GPU = $$($(BIN)/python -c 'import torch; print("(gpu or not gpu)" if torch.cuda.is_available() else "not gpu")')

# Instruction sets for `make test-isa`, by settings of torch, oneDNN and MKL. If the CPU lacks one,
# the default is used.
ISAS ?= ONEDNN_MAX_CPU_ISA=AVX2 ONEDNN_MAX_CPU_ISA=AVX512_CORE ATEN_CPU_CAPABILITY=default \
    ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=COMPATIBLE

.PHONY: help setup test test-isa test-slow smoke bench lint format docs demo clean

help: ## print this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo 'Variables: STACK=onedl|openmmlab, PYTHON=python3, WORKERS=2, PYTEST_ARGS=, BENCH_ARGS='

setup: ## install torch, mmcv with its ops, mmengine, mmdet, mim and this package into .venv
	@STACK=$(STACK) PYTHON=$(PYTHON) scripts/setup.sh

test: setup ## run the tests that are not marked slow
	$(PYTEST) -m "not slow and $(GPU)" $(PYTEST_ARGS)

test-isa: setup ## make test with each instruction set in ISAS
	@for isa in $(ISAS); do \
	    echo "$$isa"; env $$isa $(PYTEST) -m "not slow and $(GPU)" $(PYTEST_ARGS); \
	done

test-slow: setup ## run all tests
	$(PYTEST) -m "$(GPU)" $(PYTEST_ARGS)

smoke: setup ## run the subset of tests that CI runs on the second stack
	$(PYTEST) -m "smoke and $(GPU)" $(PYTEST_ARGS)

bench: setup ## compare speed and memory with mmdet; BENCH_ARGS='--device cuda --json rows.json'
	$(BIN)/python -m benchmarks.compare $(BENCH_ARGS)

lint: setup ## run ruff, mypy, codespell and the list of banned words
	@status=0; \
	for check in 'ruff check .' 'ruff format --check .' mypy codespell \
	    'python -m pytest -q tests/test_readme.py -k plain_words'; do \
	    echo "$$check"; $(BIN)/$$check || status=1; \
	done; \
	exit $$status

format: setup ## fix and format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Needs neither torch nor mmdet: the API reference is read from the source.
.venv-docs/done: pyproject.toml requirements/constraints.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check -c requirements/constraints.txt '.[docs]'
	touch $@

docs: .venv-docs/done ## build the site of docs/ in build/site; fails on a broken link
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

demo: setup ## render a dataset, train and test a small detector, draw its predictions
	$(BIN)/python -m fastdetr_mmdet demo --data-root $(DEMO_DATA) --work-dir $(DEMO_DIR)

clean: ## remove caches and builds; keeps environments, data and trained models
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
