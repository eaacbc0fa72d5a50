# make demo    from nothing to a reconstruction and its table
# make test    what must pass before a commit: lint, types, tests, coverage
# make lint    style and types only
# make bench   every protocol on the data at hand (DATA=../shared/data SPLIT=validate), then the page and the tables
# make report  the page of all results, and the tables of the README, from the JSON files alone
# make clean   forget the environment and all caches

PYTHON ?= python3
BIN := .venv/bin
# written after a complete installation, so that it is repeated only when what is installed has changed
STAMP := .venv/.installed

DATA ?= ../shared/data
SPLIT ?= validate

.PHONY: demo test lint bench report clean .venv

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

# what is described or matched once is kept in bench/cache, so that a killed run goes on
bench: .venv
	$(BIN)/python -m eval thresholds $(DATA)/validate
	$(BIN)/python -m eval m95 $(DATA)/$(SPLIT)
	$(BIN)/python -m eval hpatches $(DATA)/$(SPLIT)
	$(BIN)/python -m eval pairs $(DATA)/pairs/$(SPLIT) --scenes $(DATA)/$(SPLIT) --out eval/results/pairs-$(SPLIT).json
	$(BIN)/python -m eval sfm $(DATA)/$(SPLIT) --peers rootsift,hashsift256,teblid256,orb \
		--out eval/results/sfm-$(SPLIT).json
	$(MAKE) report

report: .venv
	$(BIN)/python -m eval tables
	$(BIN)/python -m eval report

clean:
	rm -rf .venv .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
