# `make help` lists the targets. Everything lands in .venv and in the cache folder; nothing is installed system-wide,
# but for Java where it is missing and you are root.

# The system's interpreter before one of the PATH: distributions build theirs with profiles, pyenv by default does not,
# and a third of all CPU time of the stack is the interpreter's (docs/architecture.md).
PYTHON ?= $(shell for p in $(foreach v,3.11 3.12 3.13 3,/usr/bin/python$v) python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
UV_VERSION := $(shell sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements.lock)
BIN := .venv/bin
CACHE := $(or $(SLUICE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sluice)
ARGS ?=
SEED ?= 1
ROUNDS ?= 20

.PHONY: help setup demo test test-unit test-compose chaos check format lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-13s %s\n", $$1, $$2}'

setup: .venv/.ready ## environment from the lock file, and the servers
	@$(BIN)/sluice install

.venv/.ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 with venv is missing; on Debian and Ubuntu: sudo apt-get install python3 python3-venv"; exit 1; }
# One whose making was interrupted has neither; later, pip may be gone.
	@test -x $(BIN)/python && { test -x $(BIN)/uv || $(BIN)/python -m pip --version >/dev/null 2>&1; } \
		|| $(PYTHON) -m venv --clear .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@

demo: setup ## start everything, drop a month, watch it reach gold  (ARGS="--source sample --rows 100000")
	@$(BIN)/sluice demo $(ARGS)

test: setup check ## lint, types, unit tests, and integration tests on a stack of their own
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder $(ARGS)

test-unit: .venv/.ready ## the tests that start no server
	$(BIN)/python -m pytest --numprocesses 2 -m "not services and not stack" $(ARGS)

test-compose: setup ## the stack in containers, built and started on ports of its own  (needs Docker; minutes)
	tests/compose/run.sh $(ARGS)

chaos: setup ## seeded faults on a stack of its own  (SEED=1 ROUNDS=20)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python libfaketime==3.0.0 || echo "without it, no clock will jump"
	$(BIN)/python -m tests.chaos --seed $(SEED) --rounds $(ROUNDS) $(ARGS)

check: .venv/.ready ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --cache-dir $(CACHE)/mypy

format: .venv/.ready ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv/.ready ## resolve the dependencies anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--group dev --upgrade --output-file requirements.lock pyproject.toml

clean: ## remove the environment; a stack's data stays
	rm -rf .venv
