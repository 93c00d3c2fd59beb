# Fresh machine: Python 3.10 or newer and make. Everything is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := timm,hf,onnx,tensorboard,images,heic
# keep byte code, whatever the machine's default: without it each process compiles Lightning for 15 seconds
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-fast test-lowest test-python coverage lint install clean

demo: install
	$(BIN)/diet demo

# a worker that dies fails its test (with `--dist loadfile` the run would hang), and the run ends after half an hour
LIMITED_PYTEST = $(1)/python tests/limited.py 1800 $(1)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

test: install
	$(call LIMITED_PYTEST,$(BIN))

# without the tests that start processes or train for long: two minutes on two cores
test-fast: install
	$(call LIMITED_PYTEST,$(BIN)) -m "not slow"

# all lower bounds at once, with the oldest Python; old versions issue other warnings, and ONNX needs a newer torch
LOWEST_PYTHON ?= 3.10
test-lowest: install
	$(BIN)/uv venv --quiet --clear --python $(LOWEST_PYTHON) .venv-lowest
	$(BIN)/uv pip install --quiet --python .venv-lowest --resolution lowest-direct --editable ".[timm,hf,tensorboard,images,heic]" --group test
	$(call LIMITED_PYTEST,.venv-lowest/bin) -o filterwarnings=default

# `make test-python TEST_PYTHON=3.13`: another Python, with the newest versions
test-python: install
	$(BIN)/uv venv --quiet --clear --python $(TEST_PYTHON) .venv-python
	$(BIN)/uv pip install --quiet --python .venv-python --editable ".[$(EXTRAS)]" --group test
	$(call LIMITED_PYTEST,.venv-python/bin)

# a target of its own, since it slows the tests
coverage: install
	$(call LIMITED_PYTEST,$(BIN)) --cov=diet_lightning --cov-report=term-missing:skip-covered --cov-fail-under=95

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	# compiling all files takes a minute, and most are never imported
	$(BIN)/python -m pip install --quiet --no-compile --editable ".[$(EXTRAS)]" --group dev
	touch $@

clean:
	rm -rf .venv .venv-lowest .venv-python
