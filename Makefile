# The loop of a change: `make check` while working, `make test` before a commit that matters; `make help` lists all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most tests wait more than they work, so twice as many run side by side as there are cores.
WORKERS ?= $(shell expr 2 \* `nproc`)
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)
PYTEST_ARGS ?=
CHAOS_ARGS ?=

.DEFAULT_GOAL := check
.PHONY: help check test proof soak bytecode static lint types arrows unit fuzz simulate chaos scale format generate lock image clean

## help: this list
help:
	@awk '/^## / {sub(/^## /, ""); name = $$1; sub(/^[^ ]* /, ""); printf "make %-10s %s\n", substr(name, 1, length(name) - 1), $$0}' $(MAKEFILE_LIST)

# The virtual environment, exactly as locked, with the project itself installed in place.
$(VENV)/.ready: requirements-dev.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Compiled once, as by pip and in the image, also where PYTHONDONTWRITEBYTECODE is set: nodes start in numbers.
bytecode: $(VENV)/.ready
	$(BIN)/python -m compileall -q consensus discovery node parvada serving training tui tests benchmarks

## check: ruff, mypy --strict, import-linter and the unit tests: about a minute, while working
check: static unit

## test: every test that this machine can run: real processes, real Ray, and Docker where there is one
test: bytecode
	$(PYTEST) tests $(PYTEST_ARGS)

## static: what `check` looks at without running a test
static: lint types arrows

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

arrows: $(VENV)/.ready
	$(BIN)/lint-imports

## unit: the unit tests alone
unit: bytecode
	$(PYTEST) tests/unit -q $(PYTEST_ARGS)

## soak: what is too long for every change, for whoever changes what it watches: proof, fresh seeds, chaos, figures of scale
FRESH ?= $(shell date +%s)0000
soak: proof
	$(MAKE) simulate SEEDS=30000 FIRST=$(FRESH)
	$(MAKE) fuzz
	$(MAKE) chaos
	$(MAKE) scale

## proof: the whole suite TIMES times in shuffled orders, two of them beside load that takes half of all cores
TIMES ?= 5
proof: bytecode
	$(BIN)/python -m tests.proof --times $(TIMES) -- -n $(WORKERS) $(PYTEST_ARGS)

## fuzz: parsers under hostile input, and all calls by schemathesis, FUZZ (50) times as long as in a usual run
FUZZ ?= 50
fuzz: $(VENV)/.ready
	FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/unit/fuzz tests/cluster/test_contract.py -q --timeout=3600 $(PYTEST_ARGS)

## simulate: SEEDS (2000) whole clusters in virtual time, from seed FIRST (0) on
SEEDS ?= 2000
FIRST ?= 0
simulate: bytecode
	@echo "FIRST=$(FIRST)"
	PYTHONHASHSEED=0 $(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST)

## chaos: real processes, then real containers, under kill -9, pauses, partitions and power cuts; prints one ledger
chaos: bytecode
	$(BIN)/python -m tests.chaos.whole --seconds 600 --power-cuts 20 $(CHAOS_ARGS)

## scale: figures of the control plane with up to 30 nodes; wants a quiet machine
scale: bytecode
	for what in formation idle writes growth restart election; do $(BIN)/python -m benchmarks.scale $$what || exit 1; done

## format: what `lint` would ask for
format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

## generate: parvada/client.py from parvada/aio.py
generate: $(VENV)/.ready
	$(BIN)/python -m tools.blocking_client

## lock: pins with hashes for every platform; needs uv
lock:
	uv pip compile --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --quiet pyproject.toml --output-file requirements.lock
	uv pip compile --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --quiet pyproject.toml --extra dev --constraint requirements.lock \
		--output-file requirements-dev.lock

## image: the container image
image:
	docker compose build

## clean: no environment, no caches
clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
