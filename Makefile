# The two commands for a fresh machine are `make demo` and `make test`. Arguments for pytest: make test ARGS='-k undo';
# WORKERS=0 runs the tests in one process, as a debugger wants it. More workers than cores, because each waits for containers
# half of the time; not many more, because the rest is processor time: of docker starting containers, of database servers
# being made, and of some thousand commands of ours and docker's. The tests marked `thorough` take most of it (a kill at every
# step, every major release, everybody writing at once): CI and `make test-all` run those as well.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test test-all servers check bench clean lab matrix docs pictures schema man devcontainer
ARGS ?=
HELPER = src/safe_compose/native/built
# The launcher has the words compiled in.
WORDS = $(addprefix src/safe_compose/fastpath/,first_look.py launch.py)
WORKERS ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores < 4 ? cores + 2 : 6)))
# Each command of ours would compile the program anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null || \
		sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1  \2/p' Makefile

demo: ## the story on a throwaway project: refused, backed up and deleted, undone
	examples/dating/demo $(ARGS)

# What the demo runs: safe-compose alone, with the native programs if a C compiler is there. It installs none.
build/demo/ready: pyproject.toml hatch_build.py $(wildcard native/*) $(WORDS)
	testing/venv build/demo

PYTEST = .venv/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=12

test: .venv/ready $(HELPER) lab ## the tests for every change, against a real engine: about ten minutes on two cores
	$(PYTEST) -m 'not thorough' $(ARGS)

test-all: .venv/ready $(HELPER) lab ## every test but those of `make servers`, as CI runs them
	$(PYTEST) -m 'not servers' $(ARGS)

servers: .venv/ready $(HELPER) lab ## other versions and brands of database servers, whose images it builds first
	$(PYTEST) -m servers $(ARGS)

check: .venv/ready $(HELPER) ## lint, types, and who may import whom
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --strict
	.venv/bin/lint-imports --no-cache
	.venv/bin/python -m pytest -q tests/contracts/test_imports.py

# A big database, only the ways of copying it, 2 rounds: make bench ARGS='copies --rows 2200000 --long-rounds 2' (20 min, 25 GB)
bench: .venv/ready $(HELPER) lab ## measure what safe-compose costs, pairwise against bare docker
	@if [[ -x bench/run ]]; then bench/run $(ARGS); else echo 'make bench: there is no bench/run yet' >&2; exit 1; fi

lab: ## bring up the engine, Compose and the images that the tests need
	testing/up

matrix: .venv/ready $(HELPER) lab ## what depends on engine and Compose, on each stack: make matrix STACKS='oldest today --save'
	.venv/bin/python -m testing.matrix $(STACKS) -- --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

docs: build/docs/ready ## build the documentation's site in build/site; warnings are faults
	NO_MKDOCS_2_WARNING=1 build/docs/bin/mkdocs build --clean

build/docs/ready: pyproject.toml
	python3 -m venv build/docs
	build/docs/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	build/docs/bin/python -m pip install --quiet --group docs
	@touch $@

pictures: .venv/ready $(HELPER) lab ## make the README's pictures anew, from a real run of examples/dating
	.venv/bin/python -m testing.pictures

schema: .venv/ready ## write docs/schema, the JSON Schemas of the settings files
	.venv/bin/python -m testing.settings_schema

man: .venv/ready ## write the manual pages into build/man
	.venv/bin/python -m testing.manual_pages

devcontainer: .venv/ready ## make the feature for development containers, with the wheel, in build/devcontainer
	rm -rf build/devcontainer && mkdir -p build/devcontainer
	cp -R integrations/devcontainer/safe-compose build/devcontainer/
	.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/devcontainer/safe-compose .

clean: ## remove .venv, all caches and what the demo left
	examples/dating/demo --clean
	rm -rf .venv .lab dist build src/safe_compose/native .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.venv/ready: pyproject.toml hatch_build.py native/build.py native/launcher.c $(WORDS) | $(HELPER)
	testing/venv

$(HELPER): $(wildcard native/*)
	@testing/compilers || true
	@python3 native/build.py $(@D) || echo 'make: going on without the volume helper' >&2
	@touch $@
