# Each target sets up what it needs. `make help` lists them.
PYTHON ?= python3
LOWEST_PYTHON ?= $(PYTHON)
PYTEST_FLAGS ?= -n auto

BIN := .venv/bin
LOWEST := .venv-lowest/bin

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.venv/runtime: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tsfc needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/dev: .venv/runtime
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv-lowest/test: pyproject.toml tools/lowest.py
	$(LOWEST_PYTHON) -m venv .venv-lowest
	$(LOWEST)/python tools/lowest.py > .venv-lowest/constraints.txt
	$(LOWEST)/pip install --quiet --disable-pip-version-check --constraint .venv-lowest/constraints.txt --editable '.[test]'
	@touch $@

.PHONY: run
run: .venv/runtime ## run all four jobs once, on this machine's tailscaled or on a recorded one
	@$(BIN)/python tools/run_once.py

.PHONY: test
test: .venv/dev ## all tests but those of `make e2e`
	$(BIN)/python -bb -m pytest $(PYTEST_FLAGS) --ignore=tests/e2e
	@echo "tests/e2e are run by \`make e2e\`: they take root, Go and four minutes."

.PHONY: test-lowest
test-lowest: .venv-lowest/test ## the tests of the program, on the lowest versions that are supported
	$(LOWEST)/python -bb -m pytest $(PYTEST_FLAGS) tests/core tests/shell tests/offline tests/units

.PHONY: test-nix
test-nix: .venv/dev ## the NixOS modules and the flake, evaluated; needs Debian's nix-bin
	$(BIN)/python -bb -m pytest $(PYTEST_FLAGS) tests/nix

.PHONY: test-systemd
test-systemd: .venv/dev ## the units under a systemd of their own; needs root, systemd, dbus and Debian's Python
	$(BIN)/python -bb -m pytest $(PYTEST_FLAGS) tests/systemd

# Most of what these do is to wait, each on a tailnet of its own: hence more of them at once than there are processors.
.PHONY: e2e
e2e: .venv/dev ## tests on a real tailnet; need root, Go, iproute2 and nftables, and what test-systemd does
	@$(BIN)/python -m lab build
	$(BIN)/python -bb -m pytest -n 8 tests/e2e

.PHONY: lab
lab: .venv/dev ## bring such a tailnet up, to look around in
	@$(BIN)/python -m lab up

.PHONY: lab-down
lab-down: .venv/dev ## and take it down
	@$(BIN)/python -m lab down

.PHONY: cover
cover: .venv/dev ## branch coverage of the core; less than 100 % fails
	$(BIN)/coverage run -m pytest -q tests/core tests/offline/test_replay.py tests/offline/test_simulate.py
	$(BIN)/coverage report

.PHONY: lint
lint: .venv/dev ## ruff and import-linter
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports

.PHONY: types
types: .venv/dev ## pyright and mypy, both strict
	$(BIN)/pyright
	$(BIN)/mypy

.PHONY: fmt
fmt: .venv/dev ## format, and mend what can be mended
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: golden
golden: .venv/dev ## write the expected outputs in tests/fixtures anew; read the diff
	TSFC_WRITE_GOLDEN=1 $(BIN)/python -m pytest -q tests/core/test_golden.py

.PHONY: dashboard
dashboard: .venv/dev ## write mixin/dashboard.json anew
	$(BIN)/python mixin/dashboard.py > mixin/dashboard.json.new
	@mv mixin/dashboard.json.new mixin/dashboard.json

.PHONY: docs
docs: .venv/dev ## write docs/metrics.md anew
	$(BIN)/python tools/metrics_reference.py > docs/metrics.md.new
	@mv docs/metrics.md.new docs/metrics.md

.PHONY: fixtures
fixtures: .venv/dev ## record the statuses in tests/fixtures anew on a real tailnet; then `make golden`
	@$(BIN)/python -m lab fixtures

.PHONY: measure
measure: .venv/dev ## measure on a real tailnet what docs/tailscale.md has; an hour
	@$(BIN)/python -m lab measure

.PHONY: mutants
mutants: .venv/dev ## mutation testing of core/watchdog and core/paths; each survivor has its reason in tests/mutants.toml
	$(BIN)/python tools/mutants.py

.PHONY: bench
bench: .venv/dev ## what each job costs, as ratios within one run
	$(BIN)/python tools/bench.py

.PHONY: sandbox-costs
sandbox-costs: .venv/dev ## what each directive of a sandbox costs a start; needs what test-systemd does
	PYTHONPATH=tests $(BIN)/python tools/sandbox_costs.py

.PHONY: clean
clean: ## remove all that the other targets made
	rm -rf .venv .venv-lowest run mutants .coverage .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
