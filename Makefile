# Everything from a machine that has nothing but Python 3.11 or newer: `make test`, `make demo`.
# The first call makes .venv and installs into it; later calls start at once, until pyproject.toml changes.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

# Threads that wait shall sleep, not spin: on cores that are busy with something else small models are tens of times faster.
export OMP_WAIT_POLICY ?= PASSIVE

.DELETE_ON_ERROR:
.PHONY: help check test demo clean

help:
	@echo "make test    install what it needs, then run the tests (about ten minutes)"
	@echo "make check   lint and type check"
	@echo "make demo    generate pictures, train a small model, and put both into demo/"
	@echo "make clean   remove .venv and what the commands above made"

check: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/pyright

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest

demo: $(VENV)/installed-plot
	$(BIN)/python examples/demo.py --out demo

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .ruff_cache .hypothesis

# The stamps. The development tools include what the demo needs, so that one installation serves both.
$(VENV)/installed-dev: pyproject.toml | $(BIN)/pip
	$(PIP) install --editable '.[dev]'
	@touch $(VENV)/installed-plot $@

$(VENV)/installed-plot: pyproject.toml | $(BIN)/pip
	$(PIP) install --editable '.[plot]'
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=$$($(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null || echo missing); \
	  echo "djepa needs Python 3.11 or newer; '$(PYTHON)' is $$found. Name another: make PYTHON=python3.12 ..." >&2; \
	  exit 1; }
	@echo "Making $(VENV) and installing into it; torch is large, so the first time takes minutes."
	$(PYTHON) -m venv $(VENV)
