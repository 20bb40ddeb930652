# `make serve` and `make test` need Python 3.11+, make and a package index, and bring the rest into .venv by themselves.
# What they installed is remembered in stamp files there, so that a second run starts at once.

# How many processes run tests at a time: most of a test is waiting. `make test JOBS=0` runs them in one, for a debugger.
JOBS ?= 4
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
STUBS := client/comity/v1/__init__.py
POLYGLOT := tests/polyglot/node_modules/.package-lock.json
TYPESCRIPT := client/typescript
NPM := $(BIN)/python tests/polyglot/install.py
CODE := $(wildcard client server tests examples benchmarks)

# The folder is in the list too, for a proto that was removed.
PROTOS := protos/comity/v1 $(wildcard protos/comity/v1/*.proto)

# Tests start hundreds of processes, each of which would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test check breaking polyglot typescript bytecode proto docs bench soak clean FORCE

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/.serve ## run the server (ARGS="--listen 127.0.0.1:7171 --store sqlite:PATH")
	@exec $(BIN)/comity serve $(ARGS)

test: $(VENV)/.stubs ## run every check, then the tests (ARGS="-k watch -x" goes to pytest)
	@$(MAKE) --no-print-directory --jobs 2 check polyglot typescript bytecode
	$(BIN)/python -m pytest tests --numprocesses $(JOBS) --dist loadgroup $(ARGS)

check: $(VENV)/.stubs ## lint, format, types, and the wire contract
	$(BIN)/ruff check hatch_build.py $(CODE)
	$(BIN)/ruff format --check hatch_build.py $(CODE)
	$(BIN)/mypy --strict hatch_build.py $(CODE)
	$(BIN)/buf lint
	@$(MAKE) --no-print-directory breaking

# The contract may grow but not break. It is held against the last release, or before the first one against the commit
# that brought the protos to main. A shallow clone has only what it has: the oldest commit there stands in.
breaking: $(VENV)/.dev
	@base=$$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null); \
	for branch in main origin/main HEAD; do \
		test -n "$$base" || base=$$(git log --reverse --format=%H $$branch -- protos 2>/dev/null | head -n 1); \
	done; \
	if test -z "$$base" || test -z "$$(git ls-tree --name-only "$$base" protos/ 2>/dev/null)"; then \
		echo 'buf breaking: skipped, there are no earlier protos to compare with'; \
	else \
		echo "buf breaking: against $$base"; \
		git archive --format=tar "$$base" protos | $(BIN)/buf breaking --against '-#format=tar,subdir=protos'; \
	fi

polyglot: $(POLYGLOT)
	@:

# Beside the checks, of which the longest has but one processor. Else each of the processes that run tests would do it.
bytecode: $(VENV)/.stubs
	@$(BIN)/python -m pytest tests --collect-only --quiet > /dev/null || true

typescript: $(TYPESCRIPT)/src/gen/.made ## check the types of the TypeScript client
	$(NPM) $(TYPESCRIPT) run --silent check

proto: $(VENV)/.dev ## generate client/comity/v1 from protos/
	$(BIN)/python hatch_build.py
	@touch $(VENV)/.serve $(VENV)/.stubs

docs: $(VENV)/.stubs ## write the table of settings in docs/server.md anew
	$(BIN)/python -m tests.deploy.settings_table

bench: $(VENV)/.bench ## measure Comity beside its peers (ARGS goes to benchmarks/)
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/.stubs ## run the long form of the tests that have one
	COMITY_SOAK=1 $(BIN)/python -m pytest tests -m "soak or long" --timeout 0 $(ARGS)

clean: ## remove everything that make made
	rm -rf $(VENV) client/comity/v1 tests/polyglot/node_modules build dist
	rm -rf $(TYPESCRIPT)/node_modules $(TYPESCRIPT)/src/gen $(TYPESCRIPT)/dist
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov
	find $(CODE) -type d -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Comity needs Python 3.11 or newer, and '$(PYTHON)' is not. Name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv --upgrade-deps $(VENV)

# Installing runs hatch_build.py, so this brings the stubs too. A clone that is only served from has no protoc of its own.
$(VENV)/.serve: pyproject.toml hatch_build.py $(PROTOS) | $(BIN)/pip
	$(PIP) install --editable '.[server]'
	@touch $@

# Has all that serving needs as well, so these two keep both stamps.
$(VENV)/.dev: pyproject.toml hatch_build.py | $(BIN)/pip
	$(PIP) install --editable '.[dev]'
	@touch $(VENV)/.serve $@

$(VENV)/.stubs: $(VENV)/.dev $(PROTOS)
	$(BIN)/python hatch_build.py
	@touch $(VENV)/.serve $@

$(VENV)/.bench: $(VENV)/.stubs
	$(PIP) install --editable '.[bench]'
	@touch $@

# Where the stubs were cleaned away, no stamp counts.
ifeq ($(wildcard $(STUBS)),)
$(VENV)/.serve $(VENV)/.stubs: FORCE
endif

$(POLYGLOT): tests/polyglot/package.json tests/polyglot/package-lock.json | $(VENV)/.dev
	$(NPM) tests/polyglot ci --no-progress
	@touch $@

$(TYPESCRIPT)/node_modules/.package-lock.json: $(TYPESCRIPT)/package.json $(TYPESCRIPT)/package-lock.json | $(VENV)/.dev
	$(NPM) $(TYPESCRIPT) ci --no-progress
	@touch $@

$(TYPESCRIPT)/src/gen/.made: $(TYPESCRIPT)/node_modules/.package-lock.json $(TYPESCRIPT)/generate.py $(PROTOS)
	$(NPM) $(TYPESCRIPT) run --silent generate
	@touch $@
