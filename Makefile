# Everything runs from `.venv`, made from the pinned requirements. `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
UV_VERSION := 0.13.8
PORT ?= 8501
STAMP := .venv/.ready
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

# Byte code is kept, but beside the environment and not in the tree: dozens of processes of the tests would each
# compile the sources of every package anew.
export PYTHONPYCACHEPREFIX ?= $(CURDIR)/.pycache

.PHONY: help env app test tests lint types shots validate bench requirements clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

env: $(STAMP) ## build the environment in .venv from the pinned requirements

# uv from the PATH if there is one, else its own little environment in .uv.
.uv/path:
	@mkdir -p .uv
	@if command -v uv >/dev/null 2>&1; then command -v uv > $@; else \
	  echo "Fetching uv $(UV_VERSION)"; \
	  (python3 -m venv .uv/env && .uv/env/bin/python -m pip install --quiet uv==$(UV_VERSION) && echo "$(CURDIR)/.uv/env/bin/uv" > $@) || \
	  (python3 -m pip install --quiet --target .uv/lib uv==$(UV_VERSION) && echo "$(CURDIR)/.uv/lib/bin/uv" > $@) || \
	  (rm -f $@; echo "No uv, and it could not be fetched: a python3 with venv or pip is needed." >&2; exit 1); fi

$(STAMP): requirements-dev.txt pyproject.toml .python-version .uv/path
	@uv="$$(cat .uv/path)"; \
	test -x .venv/bin/python || "$$uv" venv --quiet .venv 2>/dev/null || "$$uv" venv --quiet --python '>=3.12' .venv; \
	"$$uv" pip sync --quiet --require-hashes --python .venv requirements-dev.txt && \
	"$$uv" pip install --quiet --python .venv --no-deps --no-build-isolation --editable . && touch $@

app: env ## start the app on http://localhost:$(PORT)
	.venv/bin/hbm serve --port $(PORT)

test: lint ## lint, check types, run all tests
	@$(MAKE) --no-print-directory --keep-going --jobs 2 types tests

tests: env ## all tests; check types beside them with `make test`
	.venv/bin/python -m pytest $(PYTEST_ARGS)

lint: env ## ruff: style and format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: env ## mypy
	.venv/bin/mypy

shots: env ## screenshots of every page, 1280 and 400 wide, light and dark, into shots/
	.venv/bin/python -m tests.browser.shots

validate: env ## the long statistical proofs (hours); writes docs/validation.md
	.venv/bin/python -m benchmarks.validate

bench: env ## the project beside its peers, one run, one table
	.venv/bin/python -m benchmarks

requirements: .uv/path ## pin anew what pyproject.toml asks for
	@uv="$$(cat .uv/path)"; for set in "requirements.txt:" "requirements-dev.txt:--group dev"; do \
	  "$$uv" pip compile pyproject.toml $${set#*:} --universal --generate-hashes --no-emit-index-url --no-annotate \
	    --python-version 3.12 --quiet --upgrade --custom-compile-command "make requirements" -o "$${set%%:*}"; done

clean: ## remove the environment and what was generated
	rm -rf .venv .uv .pycache shots .pytest_cache .mypy_cache .ruff_cache *.egg-info
