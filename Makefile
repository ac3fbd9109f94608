# Everything runs in .venv, which is made from requirements.lock. Needed: make and Python 3.11 or newer.

PYTHON ?= python3
# Passed on to the command of demo, test, soak, crash and lock: make test ARGS="-m 'not slow' tests/unit"
ARGS ?=

BIN := .venv/bin
STAMP := .venv/.installed
LOCK_BIN := .venv-lock/bin

.DEFAULT_GOAL := help
.PHONY: help demo test soak crash lint format lock clean

help: ## Show this list
	@echo "Usage: make TARGET [PYTHON=python3.12] [ARGS=...]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## Run the demo on the embedded PostgreSQL (ARGS are options of tally demo)
	@$(BIN)/tally demo $(ARGS)

test: $(STAMP) ## Run the tests (ARGS are options of pytest)
	@$(BIN)/python -m pytest $(ARGS)

soak: $(STAMP) ## Run the property tests for an hour, seeds printed (ARGS="--minutes 5")
	@$(BIN)/python -m tests.property.soak $(ARGS)

crash: $(STAMP) ## Kill the server under load, 20 times on each version (ARGS are options of pytest)
	@TALLY_KILLS=20 $(BIN)/python -m pytest -n 0 tests/crash $(ARGS)

lint: $(STAMP) ## Check style, format, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Format the code and fix what can be fixed by itself
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# The lock names packages and hashes only, never where they were found, so that it fits any mirror.
lock: $(LOCK_BIN)/uv ## Compile requirements.lock anew, keeping its versions (ARGS=--upgrade: take the newest)
	$(LOCK_BIN)/uv pip compile pyproject.toml --extra demo --extra metrics --group dev --output-file requirements.lock \
		--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --quiet $(ARGS)
	@if grep -nE '/|--(extra-)?index|--find-links' requirements.lock; then \
		echo "requirements.lock holds an address or a path (above)" >&2; exit 1; fi

clean: ## Remove environments, caches and build products
	rm -rf .venv .venv-lock .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find src tests bench examples -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# The set-up runs again only when the lock or the project's own metadata changes.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "tallystick needs Python 3.11 or newer, this is " + sys.version.split()[0] + ". Run: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m pip --disable-pip-version-check check
	@touch $@

$(LOCK_BIN)/uv:
	$(PYTHON) -m venv .venv-lock
	$(LOCK_BIN)/python -m pip install --quiet --disable-pip-version-check uv
