# Fresh machine: Python 3.10 or newer and make. Everything is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := timm,hf,onnx,tensorboard
# byte code is made when a module is first imported, and kept, whatever the machine's default: compiling Lightning takes a process 15 seconds
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-lowest test-python coverage lint install clean

demo: install
	$(BIN)/diet demo

# a worker that dies is a failed test (with `--dist loadfile` the run would wait for it), and half an hour ends the run
LIMITED_PYTEST = $(1)/python tests/limited.py 1800 $(1)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

test: install
	$(call LIMITED_PYTEST,$(BIN))

# all lower bounds at once, with the oldest Python; these versions warn of newer ones of what they use. ONNX needs a newer torch
LOWEST_PYTHON ?= 3.10
test-lowest: install
	$(BIN)/uv venv --quiet --clear --python $(LOWEST_PYTHON) .venv-lowest
	$(BIN)/uv pip install --quiet --python .venv-lowest --resolution lowest-direct --editable ".[timm,hf,tensorboard]" --group test
	$(call LIMITED_PYTEST,.venv-lowest/bin) -o filterwarnings=default

# `make test-python TEST_PYTHON=3.13`: another Python, with the newest versions
test-python: install
	$(BIN)/uv venv --quiet --clear --python $(TEST_PYTHON) .venv-python
	$(BIN)/uv pip install --quiet --python .venv-python --editable ".[$(EXTRAS)]" --group test
	$(call LIMITED_PYTEST,.venv-python/bin)

# by itself, as it slows the tests
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
	# of most files byte code is never needed, and of all it takes a minute
	$(BIN)/python -m pip install --quiet --no-compile --editable ".[$(EXTRAS)]" --group dev
	touch $@

clean:
	rm -rf .venv .venv-lowest .venv-python
