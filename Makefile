# Fresh machine: Python 3.10 or newer and make. Everything is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
# byte code is made when a module is first imported, and kept, whatever the machine's default: compiling Lightning takes a process 15 seconds
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test coverage lint install clean

demo: install
	$(BIN)/diet demo

# a worker that dies is a failed test (with `--dist loadfile` the run would wait for it), and half an hour ends the run
PYTEST := $(BIN)/python tests/limited.py 1800 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

test: install
	$(PYTEST)

# by itself, as it slows the tests
coverage: install
	$(PYTEST) --cov=diet_lightning --cov-report=term-missing:skip-covered --cov-fail-under=95

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	# of most files byte code is never needed, and of all it takes a minute
	$(BIN)/python -m pip install --quiet --no-compile --editable ".[timm,hf,onnx,tensorboard]" --group dev
	touch $@

clean:
	rm -rf .venv
