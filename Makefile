# Targets install what they need into .venv. `make help` lists them.
PYTHON ?= python3
LOWEST_PYTHON ?= $(PYTHON)
PACKAGE_PYTHON ?= /usr/bin/python3
PYTEST_FLAGS ?= -n auto

BIN := .venv/bin
LOWEST := .venv-lowest/bin

.DEFAULT_GOAL := help

.PHONY: help
help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.venv/runtime: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tsfc needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv --upgrade-deps .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/dev: .venv/runtime
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv-lowest/test: pyproject.toml tools/lowest.py
	$(LOWEST_PYTHON) -m venv --upgrade-deps .venv-lowest
	$(LOWEST)/python tools/lowest.py > .venv-lowest/constraints.txt
	$(LOWEST)/pip install --quiet --disable-pip-version-check --constraint .venv-lowest/constraints.txt --editable '.[test]'
	@touch $@

.PHONY: run
run: .venv/runtime ## run all four jobs once; uses a recorded status if tailscaled is unavailable
	@$(BIN)/python tools/run_once.py

.PHONY: demo
demo: .venv/runtime ## play a day of a simulated tailnet in a minute; LISTEN=127.0.0.1:9199 adds a page
	@$(BIN)/python tools/demo.py $(if $(LISTEN),--listen $(LISTEN))

.PHONY: test
test: .venv/dev ## run all tests except those of `make e2e`, `make test-packages` and `make soak`
	$(BIN)/python -bb -m pytest $(PYTEST_FLAGS) --ignore=tests/e2e --ignore=tests/packages --ignore=tests/soak
	@echo "\`make e2e\` runs tests/e2e; it needs root and Go, and takes four minutes."

.PHONY: soak
soak: .venv/dev ## test with random signals and damaged input for minutes; CONTRIBUTING.md has the settings
	$(BIN)/python -bb -m pytest $(PYTEST_FLAGS) -rP tests/soak

.PHONY: quick
quick: .venv/dev ## run the fast tests of core and view, in under 30 seconds
	$(BIN)/python -bb -m pytest $(PYTEST_FLAGS) -m "not slow" tests/core tests/view tests/test_mirror.py

.PHONY: check
check: lint types quick ## check a change before a commit: lint, types and the fast tests

.PHONY: test-lowest
test-lowest: .venv-lowest/test ## run the tests of the program with the lowest supported versions
	$(LOWEST)/python -bb -m pytest $(PYTEST_FLAGS) -m "not slow" tests/core tests/shell tests/agent tests/offline tests/units

.PHONY: test-nix
test-nix: .venv/dev ## test the NixOS modules and the flake; needs nix-bin
	$(BIN)/python -bb -m pytest $(PYTEST_FLAGS) tests/nix

.PHONY: test-systemd
test-systemd: .venv/dev ## test the units under their own systemd; needs root, systemd, dbus and Debian's Python
	$(BIN)/python -bb -m pytest $(PYTEST_FLAGS) tests/systemd

.PHONY: test-packages
test-packages: .venv/dev ## build and test the packages; needs root, mmdebstrap, a mirror and what test-systemd needs
	$(BIN)/python -bb -m pytest tests/packages

# These tests mostly wait, each on its own tailnet, so more of them run at once than there are
# processors.
.PHONY: e2e
e2e: .venv/dev ## test on a real tailnet; needs root, Go, iproute2, nftables and what test-systemd needs
	@$(BIN)/python -m lab build
	$(BIN)/python -bb -m pytest -n 8 tests/e2e

.PHONY: lab
lab: .venv/dev ## start a tailnet in the background, and print how to use it
	@$(BIN)/python -m lab up

.PHONY: lab-down
lab-down: .venv/dev ## stop the tailnet of `make lab`
	@$(BIN)/python -m lab down

.PHONY: cover
cover: .venv/dev ## measure branch coverage of the core; fails below 100 %
	$(BIN)/coverage run -m pytest -q -m "not slow" tests/core
	$(BIN)/coverage report

.PHONY: lint
lint: .venv/dev ## run ruff and import-linter
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports

.PHONY: types
types: .venv/dev ## run pyright and mypy, both strict
	$(BIN)/pyright
	$(BIN)/mypy

.PHONY: fmt
fmt: .venv/dev ## format the code, and apply automatic fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: golden
golden: .venv/dev ## regenerate the expected outputs in tests/fixtures; review the diff
	TSFC_WRITE_GOLDEN=1 $(BIN)/python -m pytest -q tests/core/test_golden.py tests/view/test_screen.py

.PHONY: dashboard
dashboard: .venv/dev ## regenerate the dashboard of `tsfc mixin`
	$(BIN)/python tools/dashboard.py > src/tsfc/mixin/files/dashboard.json.new
	@mv src/tsfc/mixin/files/dashboard.json.new src/tsfc/mixin/files/dashboard.json

.PHONY: docs
docs: .venv/dev ## regenerate docs/metrics.md
	$(BIN)/python tools/metrics_reference.py > docs/metrics.md.new
	@mv docs/metrics.md.new docs/metrics.md

.PHONY: deb
deb: .venv/runtime ## build the Debian package in dist/, for PACKAGE_PYTHON; needs dpkg-deb
	$(BIN)/python -m tools.packages.build --python $(PACKAGE_PYTHON) deb

.PHONY: pyz
pyz: .venv/runtime ## build the zipapp in dist/, for PACKAGE_PYTHON
	$(BIN)/python -m tools.packages.build --python $(PACKAGE_PYTHON) pyz

.PHONY: pictures
pictures: .venv/dev ## make the pictures of docs/ again; takes two minutes
	PYTHONPATH=tests $(BIN)/python tools/pictures.py

.PHONY: fixtures
fixtures: .venv/dev ## record the statuses in tests/fixtures on a real tailnet; then run `make golden`
	@$(BIN)/python -m lab fixtures

.PHONY: measure
measure: .venv/dev ## repeat the measurements in docs/tailscale.md on a real tailnet; takes an hour
	@$(BIN)/python -m lab measure

.PHONY: mutants
mutants: .venv/dev ## run mutation tests of decision and files; tests/mutants.toml explains the survivors
	$(BIN)/python tools/mutants.py

.PHONY: policy-search
policy-search: .venv/dev ## search the parameters of the guarded policy, and draw docs/policy-search.svg; takes hours
	$(BIN)/python tools/policy_search.py

.PHONY: bench
bench: .venv/dev ## measure the cost of each job, as ratios within one run
	$(BIN)/python tools/bench.py

.PHONY: sandbox-costs
sandbox-costs: .venv/dev ## measure the cost of each sandbox directive; needs what test-systemd needs
	PYTHONPATH=tests $(BIN)/python tools/sandbox_costs.py

.PHONY: clean
clean: ## remove everything that the other targets created
	rm -rf .venv .venv-lowest run mutants .coverage .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
