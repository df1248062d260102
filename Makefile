# `make demo` and `make test` on a bare machine: Python 3.11 or later and make are all they need.
# Set PIP_FLAGS to reach another package source, PYTHON to choose an interpreter, JOBS for tests side by side (each
# takes a core and some 2 GiB).

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOWEST := .venv-lowest

.PHONY: demo test test-slow test-lowest fuzz lint clean

demo: $(STAMP)
	$(BIN)/dpmesh predict examples --out demo-out --overwrite

test: lint
	$(BIN)/python -m pytest -m "not slow" --numprocesses $(JOBS) --dist worksteal

# Those that train or export for ten seconds and more; the rest is `make test`.
test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow --numprocesses $(JOBS) --dist worksteal

# Damaged files by the thousand (tests/fuzz/run.py --help). SECONDS bounds the whole run, MUTATIONS each kind.
fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/run.py --mutations $(MUTATIONS) --seconds $(FUZZ_SECONDS)

MUTATIONS ?= 2000
FUZZ_SECONDS ?= 1200

# With the lowest versions that pyproject.toml promises: what depends on other packages most. The stored keypoints that
# one test compares with are of today's onnxruntime and OpenCV: the lowest move an unsure joint by 1.8 px.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest tests/inference tests/render tests/body tests/test_io.py tests/test_checkpoint.py \
		tests/data/test_noise.py tests/data/test_shards.py --deselect tests/inference/test_detector.py::test_examples_agree_with_float32

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install -q $(PIP_FLAGS) 'torch==$(TORCH_LOWEST)+cpu' || $(LOWEST)/bin/pip install -q $(PIP_FLAGS) 'torch==$(TORCH_LOWEST)'
	$(LOWEST)/bin/pip install -q $(PIP_FLAGS) -c constraints-lowest.txt -e '.[data]' pytest beartype
	touch $@

TORCH_LOWEST := $(shell sed -n 's/^torch==//p' constraints-lowest.txt)

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
	rm -rf $(VENV) $(LOWEST) demo-out
