# Two commands matter to a newcomer: `make quickstart` and `make test`. Both may be repeated at will:
# stamps inside $(VENV) remember what is already installed.
#
#   make quickstart                        train, evaluate, simulate, report; at most 8 minutes with the installation
#   make quickstart ARGS="--minutes 2"     the same, shorter
#   make test | test-slow | docs | lint | clean
#
# PIP_ARGS reaches every `pip install`. On Linux the default torch wheel carries CUDA; for the small
# CPU-only one:  make quickstart PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
ARGS ?=
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt
# One thread per process: the tests run in $(WORKERS) processes, and threads that share cores with
# them make small tensor operations several times slower.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: quickstart install test test-slow docs lint clean

quickstart: install
	$(BIN)/equipoise quickstart $(ARGS)

install: $(VENV)/.installed

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	    f"Equipoise needs Python 3.11 or newer, {sys.executable} is {v.major}.{v.minor}; try: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch by itself and first: it is the large download, and it only changes with constraints.txt.
$(VENV)/.torch: constraints.txt | $(VENV)/.python
	@echo "installing torch (the large download, once) ..."
	$(PIP) torch
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.torch
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(VENV)/.torch
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.installed

test: $(VENV)/.installed-test
	$(ONE_THREAD) $(BIN)/python -m pytest -x -q -n $(WORKERS) -m "not slow and not docs"

# pytest exits with 5 when no test is marked slow, which is no failure.
test-slow: $(VENV)/.installed-test
	$(ONE_THREAD) $(BIN)/python -m pytest -x -q -n $(WORKERS) -m "slow and not docs" || [ $$? -eq 5 ]

docs: $(VENV)/.installed-test
	$(ONE_THREAD) $(BIN)/python -m pytest -x -q -n $(WORKERS) -m docs tests/test_docs.py

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .

# Leaves runs/ alone: a run folder is somebody's work.
clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -not -path './.git/*' -exec rm -rf {} +
