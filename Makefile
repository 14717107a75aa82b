# Every target works on a fresh clone with nothing but python3 and make: it makes .venv from the lock file first.

PYTHON ?= python3
PRESET ?= standard
OUT ?= reports/local
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers

.DEFAULT_GOAL := help
.PHONY: help report test lint bench train peers lock clean

help:  ## What there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18
	@echo "  PRESET=quick|standard|full sets how long the report measures: 2, 15 or 60 minutes"

report: $(READY)  ## Prove and time every backend, train on MNIST, write the page
	$(BIN)/python -m bench report --preset $(PRESET) --out $(OUT)

test: $(READY)  ## All tests, doctests, and each benchmark once
	$(BIN)/python -m pytest -q

lint: $(READY)  ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## pytest's own benchmark tables
	$(BIN)/python -m pytest --benchmark-only -q

train: $(READY)  ## Train LeNet on MNIST with max pooling
	$(BIN)/python -m bench train

peers: $(PEERS)  ## Install the frameworks that the report compares with, if they are there

lock: $(READY)  ## Choose the newest versions anew
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --no-emit-index-url --no-header --no-annotate --upgrade \
		--extra bench --extra test --extra lint -o requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --no-emit-index-url --no-header --no-annotate --upgrade \
		--extra peers -c requirements.lock -o requirements-peers.lock pyproject.toml

clean:  ## Remove what was made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks reports/local

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(PEERS): $(READY) requirements-peers.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-peers.lock
	@touch $@
