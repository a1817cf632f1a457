# What people type. `make` alone prints help; every target makes the virtual environment it needs first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# PyTorch's own index of CPU builds, so that a machine without an NVIDIA GPU downloads no CUDA.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := torch>=2.9,<2.14
DEMO_ARGS ?=
OUTPUT_SYNC := $(if $(filter output-sync,$(.FEATURES)),-Otarget)

.DEFAULT_GOAL := help
SEEDS ?= 5
LINKS := build/links
# A file stays in one process, so that its servers start once.
TWO_AT_ONCE := -n 2 --dist loadfile

.PHONY: help links demo test chaos mutants check check-static check-tests format install install-dev docs clean

help: ## Show this help
	@echo "freshet: streaming sales forecasts. Targets:"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

demo: $(VENV)/.installed ## Run everything on this machine: a simulated shop, live forecasts, a web page (DEMO_ARGS="...")
	$(BIN)/freshet demo $(DEMO_ARGS)

test: $(VENV)/.installed-dev ## Run all tests (those that need Kafka or Chromium skip where there is none)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TWO_AT_ONCE) tests

chaos: $(VENV)/.installed-dev ## Hurt Kafka, Redis and ingest in every way, SEEDS=5 times each, and count again (needs KAFKA_HOME)
	CHAOS_SEEDS=$(SEEDS) CHAOS_REPORT=1 $(BIN)/python -m pytest -q tests/integration/faults
	MODEL_EXAMPLES=2000 $(BIN)/python -m pytest -q tests/integration/test_model.py

mutants: $(VENV)/.installed-dev ## Plant one-line faults in critical modules: which do the tests notice? (half an hour)
	$(BIN)/pip install -q -c constraints.txt -e '.[mutants]'
	$(BIN)/python -m bench.mutants

check: $(VENV)/.installed-dev ## Lint, format, types, doctests, unit tests, import layering
	@$(MAKE) --no-print-directory -j2 $(OUTPUT_SYNC) check-static check-tests

links: ## Show the folders as the one package they are, for editors and mypy (build/links/freshet)
	@mkdir -p $(LINKS)/freshet
	@cd $(LINKS)/freshet && ln -sfn $(addprefix ../../../,stream model online dashboard $(filter-out %__pycache__,$(wildcard freshet/*))) .

check-static: links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(LINKS) $(BIN)/mypy --strict -p freshet
	$(BIN)/python -m docs.generate --check
	$(BIN)/python -m pytest -q --doctest-modules $(LINKS)/freshet

check-tests:
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(TWO_AT_ONCE) -m "not slow" tests --ignore=tests/integration --ignore=tests/e2e

format: $(VENV)/.installed-dev ## Rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-dev ## Write the generated pages again (configuration, JSON Schemas)
	$(BIN)/python -m docs.generate

install: $(VENV)/.installed ## Make the virtual environment with what running needs

install-dev: $(VENV)/.installed-dev ## The same with what developing needs

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"freshet needs Python 3.11 to 3.13, {sys.executable} is {v[0]}.{v[1]}; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: | $(BIN)/python
	@if command -v nvidia-smi >/dev/null 2>&1 || [ "$$(uname -s)" != Linux ]; then \
	  $(BIN)/pip install -c constraints.txt "$(TORCH)"; \
	elif $(BIN)/pip install -q -c constraints.txt --no-index --no-deps "$(TORCH)" 2>/dev/null; then \
	  echo "torch comes from pip's own find-links"; \
	else \
	  $(BIN)/pip install -c constraints.txt --no-deps --index-url $(TORCH_INDEX) "$(TORCH)"; \
	fi
	@touch $@

$(VENV)/.installed: pyproject.toml setup.py constraints.txt | $(VENV)/.torch
	$(BIN)/pip install -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml setup.py constraints.txt | $(VENV)/.torch
	$(BIN)/pip install -c constraints.txt -e '.[dev,bench,train]'
	@touch $(VENV)/.installed $@
