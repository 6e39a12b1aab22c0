# The loop of a change: `make check` while working, `make test` before a commit that matters.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
CHAOS_ARGS ?=

.DEFAULT_GOAL := check
.PHONY: check test bytecode lint types arrows unit fuzz simulate chaos scale format lock image clean

# The virtual environment, exactly as locked, with the project itself installed in place.
$(VENV)/.ready: requirements-dev.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Compiled once, as by pip and in the image, also where PYTHONDONTWRITEBYTECODE is set: nodes start in numbers.
bytecode: $(VENV)/.ready
	$(BIN)/python -m compileall -q consensus discovery node parvada serving training tui tests benchmarks

## ruff, mypy --strict, import-linter and the fast tests
check: lint types arrows unit

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

arrows: $(VENV)/.ready
	$(BIN)/lint-imports

unit: bytecode
	$(BIN)/python -m pytest tests/unit -q $(PYTEST_ARGS)

## every test that this machine can run, cheap ones first: real processes, real Ray, and Docker where there is one
test: bytecode
	$(BIN)/python -m pytest tests $(PYTEST_ARGS)

## parsers under hostile input, FUZZ times as long as in a usual run
FUZZ ?= 50
fuzz: $(VENV)/.ready
	FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/unit/fuzz -q --timeout=3600 $(PYTEST_ARGS)

## whole clusters in virtual time, from a seed each: make simulate SEEDS=n FIRST=k
SEEDS ?= 2000
FIRST ?= 0
simulate: bytecode
	PYTHONHASHSEED=0 $(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST)

## real processes, then real containers, under kill -9, pauses, partitions and power cuts; prints one ledger
chaos: bytecode
	$(BIN)/python -m tests.chaos.whole --seconds 600 --power-cuts 20 $(CHAOS_ARGS)

## figures of the control plane with up to 30 nodes; wants a quiet machine
scale: bytecode
	for what in formation idle writes growth restart election; do $(BIN)/python -m benchmarks.scale $$what || exit 1; done

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

## pins with hashes for every platform; needs uv
lock:
	uv pip compile --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --quiet pyproject.toml --output-file requirements.lock
	uv pip compile --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --quiet pyproject.toml --extra dev --constraint requirements.lock \
		--output-file requirements-dev.lock

image:
	docker compose build

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
