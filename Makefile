# make up      install baton with real vLLM into .venv and run recipes/tiny-local.yaml, proven, until Ctrl-C
# make test    install everything and run all checks and all tests
# make deploy  write deploy/ and the recipes' pages anew; the tests hold them equal
# make check   only the checks that need no engine: ruff, mypy, import-linter
# make clean   remove .venv and caches
#
# PYTHON        the interpreter .venv is made with (3.11 or newer)
# RECIPE        what `make up` runs
# TORCH_INDEX   a package index with CPU builds of torch, where pip sees none by itself:
#                   make up TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
TORCH_INDEX ?=
RECIPE ?= recipes/tiny-local.yaml

ifneq ($(strip $(TORCH_INDEX)),)
export PIP_EXTRA_INDEX_URL := $(TORCH_INDEX)
endif
export PIP_DISABLE_PIP_VERSION_CHECK := 1

BIN := .venv/bin
# One install at a time: a second make waits here, and pip then finds little to do. The lock goes with its process.
LOCKED := $(shell command -v flock >/dev/null 2>&1 && echo flock .venv.lock)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help up test deploy check lint clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

up: .venv/.installed
	@exec $(BIN)/baton up $(RECIPE) --install

test: .venv/.installed-local lint
	$(BIN)/python -m pytest

deploy: .venv/.installed-dev
	@for recipe in recipes/*.yaml; do $(BIN)/baton settings $$recipe > $${recipe%.yaml}.md.new && \
	  mv $${recipe%.yaml}.md.new $${recipe%.yaml}.md || exit 1; done
	@for recipe in recipes/deepseek-*.yaml; do for target in kubernetes dynamo dynamo-v1beta1; do \
	  $(BIN)/baton render $$recipe --target $$target -o deploy/$$(basename $$recipe .yaml)/$$target || exit 1; done; done

check: .venv/.installed-dev lint

# The stamps are written last, so an install that was interrupted is done again; pip makes that quick.
.venv/.installed: pyproject.toml
	@$(LOCKED) $(SHELL) -eu -c '$(call install,.) && touch $@'

.venv/.installed-dev: pyproject.toml
	@$(LOCKED) $(SHELL) -eu -c '$(call install,.[dev]) && touch $@'

.venv/.installed-local: pyproject.toml
	@echo "installing baton, its tools, and vLLM for CPU with NIXL (minutes, once)"
	@$(LOCKED) $(SHELL) -eu -c '$(call install,.[dev$(comma)local]) && $(BIN)/python -m baton.local.install && touch $@ .venv/.installed .venv/.installed-dev'

comma := ,
# An interpreter that does not run means that making .venv was interrupted.
install = { $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv; } && $(BIN)/python -m pip install --quiet --editable "$(1)"

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv .venv.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find src tests -name __pycache__ -prune -exec rm -rf {} +
