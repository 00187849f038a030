# `make serve` and `make test` are all a new machine needs; both rest on `make setup`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-stamp

.DEFAULT_GOAL := help
.PHONY: help setup serve test check static format lint types imports proto proto-check results lock clean

help: ## Show what can be made.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv and install everything (idempotent); leaves .venv/bin/baton.

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Baton needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
	  { echo "Could not create $(VENV). On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

serve: setup ## Start a cluster with the demo model, ask it one question, serve until Ctrl-C.
	@exec $(BIN)/baton serve

test: setup ## Run all tests.
	$(BIN)/python -m pytest

check: static test ## What CI runs: formatting, lint, types, imports, generated code, tests.

static: format lint types imports proto-check ## All of that but the tests.

format: setup
	$(BIN)/ruff format --check .

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

proto: setup ## Regenerate proto/gen from proto/baton.
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=proto/gen --pyi_out=proto/gen \
	  --grpc_python_out=proto/gen proto/baton/v1/*.proto

proto-check: setup
	$(BIN)/python -m pytest -q tests/test_proto_drift.py

TRACES ?=
results: setup ## Run what shows each claim (an hour or so) and write docs/results.md; TRACES=DIR has published traces.
	$(BIN)/baton results run $(if $(TRACES),--traces $(TRACES))

lock: setup ## Write the versions installed now to constraints.txt.
	{ head -1 constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu//'; } > constraints.new && mv constraints.new constraints.txt

clean: ## Remove what setup made.
	rm -rf $(VENV)
