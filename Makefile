# Every target works on a fresh clone with nothing but python3 and make: it makes .venv from the lock file first.

PYTHON ?= python3
PRESET ?= standard
OUT ?=
FUZZ_SECONDS ?= 600
# Most of the time goes into compiling kernels, on one core each; more than four would compile the same ones.
ACROSS := -n auto --maxprocesses 4 --dist worksteal
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --no-emit-index-url --no-header --no-annotate

.DEFAULT_GOAL := help
.PHONY: help report test lint bench fuzz coverage train peers lock clean

help:  ## What there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18
	@echo "  PRESET=quick|standard|full says how long the report may measure: 2, 16 or 60 minutes; OUT=folder where to"
	@echo "  The first time it compiles for some minutes more"
	@echo "  After make peers the report compares with the frameworks too, and takes two to three times as long"

report: $(READY)  ## Prove and time every backend, train on MNIST, write the page
	$(BIN)/python -m bench report --preset $(PRESET) $(if $(OUT),--out $(OUT))

test: $(READY)  ## All tests, doctests, and each benchmark once
	$(BIN)/python -m pytest -q $(ACROSS)

lint: $(READY)  ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## The benchmarks as pytest-benchmark's tables
	$(BIN)/python -m pytest --benchmark-only -q

fuzz: $(READY)  ## Make up calls for FUZZ_SECONDS and keep those that led somewhere new
	$(BIN)/python -W error -m tests.fuzz $(FUZZ_SECONDS)

# Nothing is found compiled, so that the code that makes the kernels counts. An interrupt that hits coverage's own code leaves its
# lock held for good: the test that interrupts this process is left to make test.
coverage: $(READY)  ## Lines and branches of pooling/ that the tests run: at least 95%
	POOLING_CACHE_DIR=$$(mktemp -d) $(BIN)/python -m pytest -q $(ACROSS) -k 'not interrupt_in_a_long_call' --cov --cov-report=term tests pooling

train: $(READY)  ## Train LeNet on MNIST with max pooling
	$(BIN)/python -m bench train

peers: $(PEERS)  ## Install the frameworks that the report compares with when they are there

lock: $(READY)  ## Choose the newest versions anew
	$(INSTALL) uv
	$(COMPILE) --extra bench --extra test --extra lint -o requirements.lock pyproject.toml
# What a framework's own wheel pins (its CUDA libraries, where it has any) is left to that wheel.
	$(COMPILE) --extra peers -c requirements.lock -o requirements-peers.lock pyproject.toml
	sed -i.old -E '/^(cuda|nvidia)-|^triton=/d' requirements-peers.lock && rm requirements-peers.lock.old

clean:  ## Remove what was made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .coverage reports/local

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
		{ echo "$(PYTHON) can't make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Installing the locked versions into $(VENV)"
	@$(INSTALL) -r requirements.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(PEERS): requirements-peers.lock $(READY)
	$(INSTALL) -r requirements-peers.lock
	@touch $@
