# exeat.  `make demo` shows it at work; `make test` runs the tests.  Both install what they need.
.DEFAULT_GOAL := help
.PHONY: help demo test check format conformance conformance-clients interop bench docs fuzz fuzz-edge kills faults wheel lock clean image packaging
SHELL := /bin/bash
export PYTHON
# The tests and the demo start programs by the hundred: what Python compiled once is kept.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
READY := .venv/.stamp
BENCH_ARGS ?=
INTEROP_ARGS ?=
FAULTS_ARGS ?=
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
ENGINE ?= $(or $(shell command -v podman),docker)
FUZZ_ARGS ?=

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(READY): pyproject.toml requirements.lock scripts/bootstrap.sh scripts/trust.sh
	@bash scripts/bootstrap.sh

demo: $(READY) ## run the whole story against real MCP servers; checks itself (a minute or two)
	@$(BIN)/python demo/run.py

test: $(READY) ## run the tests, three files at a time
	@$(BIN)/python -m pytest -n 3 --dist loadfile

check: $(READY) ## lint, format, types, floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## rewrite the sources in the project's format
	@$(BIN)/ruff check --fix-only --quiet . && $(BIN)/ruff format .

conformance: $(READY) ## official MCP suite: directly and through the gateway (needs npm)
	@$(BIN)/python tests/conformance/run.py

conformance-clients: $(READY) ## the suite's scenarios for clients, with the gateway as the client (needs npm)
	@$(BIN)/python tests/conformance/client_suite.py

interop: $(READY) ## real clients with real servers through the gateway (needs npm)
	@$(BIN)/python tests/interop/run.py $(INTEROP_ARGS)
	@$(BIN)/python tests/interop/sign_in.py $(INTEROP_ARGS)
	@$(BIN)/python tests/interop/held.py $(INTEROP_ARGS)

bench: $(READY) ## measure exeat against nginx, FastMCP and mcp-proxy; BENCH_ARGS="--quick"
	@$(BIN)/python bench/run.py $(BENCH_ARGS)

docs: .tools/docs/.stamp ## build the documentation into out/site
	@NO_MKDOCS_2_WARNING=1 .tools/docs/bin/mkdocs build --quiet --strict --site-dir out/site && echo "out/site/index.html"

.tools/docs/.stamp: $(READY) requirements-dev.lock
	@$(BIN)/python -m venv --clear .tools/docs
	@. scripts/trust.sh && $(BIN)/uv pip sync --quiet --python .tools/docs/bin/python --require-hashes requirements-dev.lock
	@touch $@

fuzz: $(READY) ## the property tests with many more examples
	@PYTHONPATH=scripts $(BIN)/python -m pytest -p fuzz_profile tests/property

fuzz-edge: $(READY) ## mutated HTTP against the edge and the pool; FUZZ_ARGS="--minutes 5 --seed 1"
	@$(BIN)/python scripts/fuzz_edge.py $(FUZZ_ARGS)

kills: $(READY) ## kill the gateway 500 times under load and compare with the record
	@$(BIN)/python scripts/kills.py

faults: $(READY) ## hurt the gateway in every way (disk, clock, memory, database), idle and under load
	@$(BIN)/python scripts/faults.py $(FAULTS_ARGS)

wheel: $(READY) ## build dist/exeat-VERSION: sources, and a wheel from them
	@rm -f dist/exeat-*
	@. scripts/trust.sh && $(BIN)/uv build --quiet --no-build-isolation --python $(BIN)/python --out-dir dist
	@ls dist/exeat-*

image: wheel ## build the container image with podman or docker (ENGINE=)
	@$(ENGINE) build --file packaging/container/Containerfile --build-arg VERSION=$(VERSION) \
	  --tag exeat:$(VERSION) --tag exeat:latest .

packaging: $(READY) .tools/packaging/.stamp ## check wheel, unit, Containerfile and Helm chart
	@$(BIN)/python -m pytest tests/packaging

.tools/packaging/.stamp: $(READY) requirements-packaging.lock
	@$(BIN)/python -m venv --clear .tools/packaging
	@. scripts/trust.sh && $(BIN)/uv pip sync --quiet --python .tools/packaging/bin/python --require-hashes requirements-packaging.lock
	@touch $@

lock: $(READY) ## rewrite the lock files
	@bash scripts/lock.sh

clean: ## remove everything that make created
	rm -rf .venv .tools out dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
