# gansuite: `make help` lists what there is. Without an active environment everything goes into .venv.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.PHONY: help exp named compare test fast lint format bench docs report clean

ifneq ($(VIRTUAL_ENV),)
ENV := $(VIRTUAL_ENV)
else ifneq ($(CONDA_PREFIX),)
ENV := $(CONDA_PREFIX)
else
ENV := .venv
endif
BIN := $(ENV)/bin
# the first Python >= 3.10 on the path
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && { command -v $$p; break; }; done)

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

exp: named $(ENV)/.gansuite-run ## train an experiment, or resume it: make exp NAME=cyclegan_coats [ARGS="seed=1 ..."]
	@$(BIN)/gansuite exp $(NAME) $(ARGS)

named:
	@[ -n "$(NAME)" ] || { echo 'Say which: make exp NAME=cyclegan_coats ("gansuite list" shows all)'; exit 2; }

NAMES ?= compare_coats
compare: $(ENV)/.gansuite-run ## train what is missing, and compare: make compare [NAMES=compare_coats] [SEEDS="0 1 2"] [ARGS="jobs=2 ..."]
	@$(BIN)/gansuite compare $(NAMES) $(if $(strip $(SEEDS)),seeds=$(shell echo $(SEEDS) | tr -s ' ' ,)) $(ARGS)

test: $(ENV)/.gansuite-test ## all tests that need no network
	$(BIN)/python -m pytest -m "not network and not slurm" $(ARGS)

fast: $(ENV)/.gansuite-test ## the tests that take seconds
	$(BIN)/python -m pytest -m fast $(ARGS)

lint: $(ENV)/.gansuite-dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(ENV)/.gansuite-run ## our training step against the published loops, ten minutes on two quiet cores: make bench [ARGS="--methods cyclegan --size 64 128 256"]
	$(BIN)/python benchmarks/official.py --out build/bench $(ARGS)

docs: $(ENV)/.gansuite-docs ## the documentation as a site, into build/site
	$(BIN)/python -m sphinx -E -W --keep-going -q -b html docs build/site
	@echo "build/site/index.html"

format: $(ENV)/.gansuite-dev ## let ruff rewrite the files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove caches (runs and data stay)
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# one stamp per set of dependencies; pyproject.toml says what they are
$(ENV)/.gansuite-run: EXTRAS =
$(ENV)/.gansuite-test: EXTRAS = [test]
$(ENV)/.gansuite-docs: EXTRAS = [docs]
$(ENV)/.gansuite-dev: EXTRAS = [dev]
$(ENV)/.gansuite-%: pyproject.toml | $(BIN)/python
	@echo "Installing gansuite$(EXTRAS) into $(ENV) (once; PyTorch is large)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".$(EXTRAS)"
	@touch $@

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "gansuite needs Python 3.10 or newer; none was found on the path"; exit 2; }
	@$(PYTHON) -m venv $(ENV)
