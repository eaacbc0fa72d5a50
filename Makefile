# make demo    from nothing to a reconstruction and its table
# make test    what must pass before a commit: lint, types, tests, coverage
# make lint    style and types only
# make clean   forget the environment and all caches

PYTHON ?= python3
BIN := .venv/bin
# written after a complete installation, so that it is repeated only when what is installed has changed
STAMP := .venv/.installed

.PHONY: demo test lint clean .venv

demo: .venv
	$(BIN)/bingan demo

test: lint
	$(BIN)/pytest --cov=kornia_bingan --cov-fail-under=90

lint: .venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf .venv .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
