# Everything goes through .venv, which `make setup` builds from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup quickstart test docs check format

setup: .venv/ready

# torch comes first: anything that depends on it would otherwise pull another build.
.venv/ready: pyproject.toml constraints.txt
	@echo 'installing into .venv; pip shows its progress'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --constraint constraints.txt torch
	$(BIN)/pip install --constraint constraints.txt --editable '.[dev]'
# Tests compare with its losses, file by file; its dependencies would pull torchvision.
	$(BIN)/pip install --constraint constraints.txt --no-deps lightly
	touch $@

# A new folder each time, so that an earlier report stays.
quickstart: setup
	$(BIN)/midway quickstart --folder quickstart/$$(date +%Y%m%d-%H%M%S)

test: setup
	$(BIN)/pytest -n auto

# Into build/site; a broken link, a missing name of the API or any other warning is an error.
docs: setup
	$(BIN)/zensical build --strict --clean

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(MAKE) docs
	$(MAKE) test

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
