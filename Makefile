# The two commands for a fresh machine are `make demo` and `make test`. Arguments for pytest: make test ARGS='-k undo';
# WORKERS=0 runs the tests in one process, as a debugger wants it. More workers than cores, because each waits for containers
# half of the time; not many more, because the rest is processor time: of docker starting containers, of database servers
# being made, and of some thousand commands of ours and docker's. The tests marked `thorough` take most of it (a kill at every
# step, every major release, everybody writing at once): CI and `make test-all` run those as well.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test test-all check bench clean lab
ARGS ?=
WORKERS ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores < 4 ? cores + 1 : 4)))
# Each command of ours would compile the program anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null || \
		sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1  \2/p' Makefile

demo: .venv/ready lab ## the story on a throwaway project: refused, backed up and deleted, undone
	examples/dating/demo

PYTEST = .venv/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=12

test: .venv/ready lab ## the tests for every change, against a real engine: a quarter of an hour on two cores
	$(PYTEST) -m 'not thorough' $(ARGS)

test-all: .venv/ready lab ## every test, as CI runs them
	$(PYTEST) $(ARGS)

check: .venv/ready ## lint, types, and which room may import what
	.venv/bin/ruff check .
	.venv/bin/mypy --strict
	.venv/bin/python -m pytest -q tests/test_imports.py

# A big database, only the ways of copying it, 2 rounds: make bench ARGS='ways --rows 2200000 --long-rounds 2' (20 min, 25 GB)
bench: .venv/ready lab ## measure what safe-compose costs, pairwise against bare docker
	@if [[ -x bench/run ]]; then bench/run $(ARGS); else echo 'make bench: there is no bench/run yet' >&2; exit 1; fi

lab: ## bring up the engine, Compose and the images that tests and demo need
	tests/lab/up

clean: ## remove .venv, all caches and the demo's containers and volumes
	examples/dating/demo --clean
	rm -rf .venv .lab dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.venv/ready: pyproject.toml
	tests/lab/venv
