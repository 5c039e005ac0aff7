# Every target sets up what it needs; `make help` lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup demo desk test coverage test-slow lint format bench docs learning verdict clean

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= runs/demo
PAUSE ?= 0.1
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist worksteal
export OMP_NUM_THREADS ?= 1

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## virtual environment with the tested versions; a second call does nothing
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or later found; name one: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) (a few minutes, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --upgrade pip
	@$(BIN)/python -m pip install -qq --constraint constraints.txt torch
	@$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -m pip install -qq --constraint constraints.txt --no-deps elegantrl
	@touch $@
	@echo "Ready: $(VENV)"

demo: setup ## build the built-in market, check it, draw it, run a tournament on it, open its hold-out
	@mkdir -p $(OUT)
	$(BIN)/python -m market synth --out $(OUT)/market.parquet
	$(BIN)/python -m market check $(OUT)/market.parquet --json $(OUT)/quality.json
	$(BIN)/python -m market features $(OUT)/market.parquet --out $(OUT)/features.parquet
	$(BIN)/python -m market oracle $(OUT)/market.parquet
	$(BIN)/python -m market plot $(OUT)/market.parquet --out $(OUT)/market.html
	@rm -rf $(OUT)/tournament
	$(BIN)/python -m tournament run configs/demo.yaml --out $(OUT)/tournament
	$(BIN)/python -m tournament final $(OUT)/tournament
	@echo
	@echo "Made in $(OUT): market.parquet (bars), quality.json, features.parquet (what agents will see), market.html (open it in a browser), tournament/report.html (what came of it), tournament/bundle (the ensemble)."
	@echo "Next, with bars of your own (CSV or Parquet):"
	@echo "  $(BIN)/python -m market check YOUR_BARS.csv"
	@echo "  $(BIN)/python -m market plot YOUR_BARS.csv --out yours.html"
	@echo "  $(BIN)/python -m podracer train YOUR_BARS.csv"

desk: setup ## the demo's ensemble trades its hold-out: endpoint, exchange, desk and dashboard (make demo first)
	$(BIN)/python -m paper replay $(OUT)/tournament limits.drawdown=0.5 --pause $(PAUSE)

test: setup lint ## lint, types and the test suite
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

coverage: setup ## the suite again, and which lines of the rooms nothing ran (takes twice as long)
	@rm -f .coverage .coverage.*
	-COVERAGE_FILE=$(CURDIR)/.coverage $(BIN)/python -m coverage run -m pytest $(SIDE_BY_SIDE)
	@$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report

test-slow: setup ## the tests that take longer
	$(BIN)/python -m pytest -m slow

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples/*.py deploy/rehearsal/*.py

format: setup ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench ## run every benchmark and write its tables into the README (BENCH=--quick for a short run)
	$(BIN)/python -m benchmarks $(BENCH)
# ElegantRL and FinRL go last: pip would complain of what they ask for and do not need.
$(VENV)/.bench: $(STAMP)
	@$(BIN)/python -m pip uninstall -qq --yes elegantrl
	@$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[dev,bench]'
	@$(BIN)/python -m pip install -qq --constraint constraints.txt --no-deps elegantrl finrl
	@touch $@

docs: setup ## the pages of docs/ as a site in build/docs, every link checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

learning: setup ## what each algorithm learns on markets with a known answer (about 10 minutes on 2 cores)
	$(BIN)/python -m benchmarks.learning

verdict: setup ## does the verdict tell skill from luck? 30 tournaments, hours on 2 cores; stop and go on as you like
	$(BIN)/python -m benchmarks.verdict

clean: ## remove what was built and run; the virtual environment too
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
