# `make demo` and `make test` are the two commands to know; both start from a bare clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Nothing is compiled ahead: that takes longer than the installation, and most modules are never imported.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# The version of torch that constraints.txt names, installed first and alone, so that no other package's wish for it picks another build.
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

# The C++ kernels for the CPU, which an installation builds where there is a compiler.
KERNELS := setup.py $(wildcard src/roslin/engine/cpu/*.cpp src/roslin/engine/cpu/*.h src/roslin/engine/cpu/*.inl)

.PHONY: demo test test-full docs lint format clean

demo: $(VENV)/.core
	@$(BIN)/roslin demo $(ARGS)

# Two workers of one thread each: more threads than cores make every test slower.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test: $(VENV)/.dev lint
	@$(PYTEST) -m "not full and not real"

test-full: $(VENV)/.dev lint
	@$(PYTEST)

# The documentation site, into site/: open site/index.html. The tests build it too.
docs: $(VENV)/.dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(VENV)/.dev
	@$(BIN)/ruff check src tests bench notebooks
	@$(BIN)/ruff format --check src tests bench notebooks
	@$(BIN)/mypy

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix src tests bench notebooks
	@$(BIN)/ruff format src tests bench notebooks

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Roslin needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; two to five minutes, most of it PyTorch) …" >&2
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.core: $(VENV)/.python pyproject.toml constraints.txt $(KERNELS)
	@$(PIP) $(TORCH)
	@$(PIP) -e '.[serve]'
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@$(PIP) -e '.[dev]'
	@touch $@

clean:
	rm -rf src/roslin/engine/cpu/_kernels.* $(VENV) build dist site *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
