# Every target sets up what it needs first. Run `make` alone for the list.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test slow lint types docs notebooks bench

PY := .venv/bin/python
# One thread for each process: the tests are spread over processes instead, and results do not depend on the machine.
ONE := OMP_NUM_THREADS=1 MPLBACKEND=Agg
# Measured data beside the checkout are used where nothing else is named.
ifneq ($(wildcard ../shared/data),)
export BAYESWM_DATA ?= $(abspath ../shared/data)
endif
PYTEST := $(ONE) $(PY) -m pytest --hypothesis-profile=ci

help:
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## make .venv, with the dependencies pinned in constraints.txt
	@for python in python3 python3.14 python3.13 python3.12; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then \
	    exec "$$python" tools/setup_environment.py; \
	  fi; \
	done; \
	echo "bayeswm needs Python 3.12 or newer with pip: install python3.12, so that 'python3.12 --version' runs" >&2; \
	exit 1

demo: setup ## learn a simulated and a measured pendulum, draw what is known; writes build/demo
	@$(PY) notebooks/run_demo.py

test: setup ## the tests, without the slow ones
	@$(PYTEST) -n 2 -m "not slow and not readme"

slow: setup ## the slow tests, and swing-ups learned from scratch (an hour; taken up where it was broken off)
	@$(PYTEST) -n 2 -m slow
	@$(ONE) $(PY) benchmarks/swing_up.py

lint: setup ## style and format (ruff), layers of the packages (import-linter)
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@.venv/bin/lint-imports --no-logo

types: setup ## types (basedpyright)
	@$(PY) -m basedpyright --pythonpath $(PY)

docs: setup ## the documentation, into build/docs
	@$(ONE) $(PY) -m sphinx -W --keep-going -q -b html docs build/docs

notebooks: setup ## rewrite each notebook from its source, then run all of them
	@$(PY) tools/pair_notebooks.py write
	@$(ONE) $(PY) -m pytest --nbmake --nbmake-timeout=1800 notebooks

bench: setup ## the benchmarks, beside their peers
	@$(PY) benchmarks/run.py
