# Two commands on a fresh machine: `make demo` and `make test`. Each does all of its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYFASTCDC_REQUIRE_CYTHON = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-again test-full bench simulate check generate lock clean help
.DEFAULT_GOAL := help

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "calque needs Python 3.11 or later; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements/runtime.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/runtime.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.runtime

demo: $(VENV)/.runtime ## run the main job from end to end on real parts
	$(BIN)/calque demo

test: $(VENV)/.dev ## pass the tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not full"

test-again: $(VENV)/.dev ## run what failed in the last run once more, one after the other
	$(BIN)/python -m pytest -m "not full" --last-failed --last-failed-no-failures none

test-full: $(VENV)/.dev ## pass the tests that take long too
	$(BIN)/python -m pytest -n 2 --dist loadgroup

bench: $(VENV)/.dev ## measure speed and memory, and write docs/benchmarks.md (CASES="replay start" for some)
	$(BIN)/python -m tests.bench $(CASES)

SEEDS := 20000
simulate: $(VENV)/.dev ## run many seeds of the simulator: make simulate SEEDS=20000; the report goes to build/
	@mkdir -p build
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --report build/simulation.json

check: $(VENV)/.dev ## lint, strict types, import rules, generated documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m schemas.generate --check
	$(BIN)/python -m hub.client.make_sync --check
	$(BIN)/python -m hub.cli.pages --check
	$(BIN)/python -m tests.bench --check

generate: $(VENV)/.dev ## make the published schemas and the reference pages anew
	$(BIN)/python -m schemas.generate
	$(BIN)/python -m hub.client.make_sync
	$(BIN)/python -m hub.cli.pages
	$(BIN)/python -m hub.manifest.reference docs/template.schema.json

lock: ## renew the hash-locked requirements (needs uv)
	./requirements/compile.sh

clean: ## remove what the build made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
