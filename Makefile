# SPDX-License-Identifier: GPL-3.0-or-later
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
TREE := $(CURDIR)/.tree
CACHE := $(CURDIR)/.cache
HERE := $(TREE)/ansible_collections/shipshape/deploy
INVENTORY ?= examples/studio/inventory.yml
# What the controller's Python has to be able to do: ansible-core 2.19 wants 3.11.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)

export LC_ALL ?= C.UTF-8
export PATH := $(BIN):$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(TREE)
export ANSIBLE_HOME := $(CACHE)/ansible
# Neither a cow nor colours have a place in a log.
export ANSIBLE_NOCOWS := 1
export ANSIBLE_NOCOLOR := 1
export NO_COLOR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

# --- Two commands ----------------------------------------------------------------------------------------------------

.PHONY: deploy
deploy: engine ## Deploy the example: environment, engine, images, containers; prints the URL
	@examples/studio/images/build
	@ansible-playbook playbooks/deploy.yml -i $(INVENTORY) | tee $(CACHE)/deploy.log
	@.ci/summary $(CACHE)/deploy.log

# Stage 1 runs two parts at a time, each part's output in one piece; stage 2 is one pytest run over everything else.
PARTS := sanity integration-targets molecule lint docs-lint units-ansible

.PHONY: test
test: $(VENV)/.dev $(HERE) ## Run every check: lint, sanity, units, integration on the real engine, molecule, short faults
	@rc=0; \
	$(MAKE) --jobs=2 --keep-going --output-sync=target $(PARTS) || rc=$$?; \
	$(MAKE) pytest || rc=$$?; \
	exit $$rc

.PHONY: setup
setup: $(VENV)/.dev $(HERE) ## Make the environment for working on the collection
	@:

.PHONY: engine
engine: $(VENV)/.deploy $(HERE) ## Put Docker on the inventory's hosts
	@ansible-playbook playbooks/engine.yml -i $(INVENTORY)

# --- Parts of `make test` --------------------------------------------------------------------------------------------

.PHONY: lint
lint: $(VENV)/.dev $(HERE) ## ruff, mypy, yamllint, ansible-lint, shellcheck, REUSE, changelog
	@.ci/part lint

.PHONY: sanity
sanity: $(VENV)/.dev ## ansible-test sanity on a real copy of the collection
	@.ci/part sanity

.PHONY: units
units: $(VENV)/.dev $(HERE) ## The unit tests alone, in seconds
	@pytest tests/unit

.PHONY: units-ansible
units-ansible: $(VENV)/.dev ## The unit tests as ansible-test runs them
	@.ci/part units-ansible

.PHONY: integration
integration: $(VENV)/.dev $(HERE) ## The integration tests alone, on the real engine
	@pytest tests/integration -m "not long"

.PHONY: integration-targets
integration-targets: $(VENV)/.dev ## Each module's story, as ansible-test runs it
	@.ci/part integration-targets

.PHONY: molecule
molecule: $(VENV)/.dev $(HERE) ## The roles' scenarios
	@.ci/part molecule

.PHONY: docs-lint
docs-lint: $(VENV)/.dev $(HERE) ## Check the documentation of modules, roles and playbooks
	@.ci/part docs-lint

.PHONY: galaxy
galaxy: $(VENV)/.dev $(HERE) ## Build the collection, install it in a clean place, deploy with it
	@pytest tests/integration/test_galaxy.py

.PHONY: pytest
pytest: $(VENV)/.dev $(HERE) ## Units, integration and the short pass of the fault suites in one run
	@pytest -n 2 --dist loadfile -m "not long" --durations=10 tests || { rc=$$?; [ $$rc = 1 ] || exit $$rc; \
		echo "== What failed, once more and alone: suites side by side on two cores can starve each other of time"; \
		pytest --last-failed --last-failed-no-failures none -m "not long" tests; }

# --- Longer ones -----------------------------------------------------------------------------------------------------

.PHONY: faults
faults: $(VENV)/.dev $(HERE) ## Every fault suite with its long repetitions, and what else is too long for `make test`
	@pytest tests/faults && pytest -m long tests/integration

.PHONY: bench
bench: $(VENV)/.dev $(HERE) $(CURDIR)/.deps/.peers ## Compare with the peers: prints a table, writes .cache/bench.json
	@python tests/bench/run.py --json $(CACHE)/bench.json

.PHONY: docs
docs: $(VENV)/.dev $(HERE) ## Build the HTML documentation in .cache/docs/
	@.ci/part docs

.PHONY: clean
clean: ## Remove what the targets above made: the example's containers, volumes and images, environments, caches
	@.ci/part clean
	@rm -rf .venv .tree .deps .cache .work dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .ansible tests/output
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# --- Environments ----------------------------------------------------------------------------------------------------

$(BIN)/python:
	@.ci/venv "$(PYTHON)" $(VENV)

$(VENV)/.deploy: requirements.txt | $(BIN)/python
	@echo "Installing $< into .venv"
	@pip install --quiet --requirement $<
	@mkdir -p $(CACHE)
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt | $(BIN)/python
	@echo "Installing $< into .venv"
	@pip install --quiet --requirement $<
	@mkdir -p $(CACHE)
	@touch $@ $(VENV)/.deploy

# The collection under its own name, straight from this checkout.
$(HERE):
	@mkdir -p $(@D) && ln -sfn "$(CURDIR)" $@

# The peers to compare with; the collection itself depends on none of them.
$(CURDIR)/.deps/.peers: | $(BIN)/python
	@echo "Installing community.docker and friends into .deps"
	@pip install --quiet --no-deps --upgrade --target $(CURDIR)/.deps 'ansible~=12.0'
	@touch $@
