# `make demo` and `make test` on a bare machine: Python 3.10 or later and make are all they need.
# Set PIP_FLAGS to reach another package source, PYTHON to choose an interpreter, JOBS for tests side by side (each
# takes a core and some 2 GiB).

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint clean

demo: $(STAMP)
	$(BIN)/dpmesh predict examples --out demo-out --overwrite

test: lint
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/basedpyright

# The CPU build of torch is asked for by its local version first; where only the plain one can be had, that one.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(PIP_FLAGS) 'torch==$(TORCH)+cpu' || $(BIN)/pip install -q $(PIP_FLAGS) 'torch==$(TORCH)'
	$(BIN)/pip install -q $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	touch $(STAMP)

TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

clean:
	rm -rf $(VENV) demo-out
