# Everything here runs on a fresh machine with Python 3.11 to 3.13: `make demo`, `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := outputs/demo

.DEFAULT_GOAL := help
.PHONY: help install demo test lint check format tables clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(BIN)/.installed  ## make the environment in .venv (about two minutes, CUDA libraries included)

$(BIN)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("bnnrun: Python %d.%d found, 3.11 to 3.13 needed: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: install  ## the whole chain on the bundled digits: train, pack, eval, bench, report
	rm -rf $(DEMO)
	$(BIN)/bnnrun train -m experiment=digits_binary,digits_float trainer.epochs=20 \
		results_dir=$(DEMO)/results hydra.sweep.dir=$(DEMO)/runs
	$(BIN)/bnnrun pack run=$(DEMO)/runs/0
	$(BIN)/bnnrun eval model=$(DEMO)/runs/0 dataset=digits --verify \
		results_dir=$(DEMO)/results hydra.run.dir=$(DEMO)/eval
	$(BIN)/bnnrun bench kernel=xnor m=1024 seconds=2 \
		results_dir=$(DEMO)/results hydra.run.dir=$(DEMO)/gemm
	$(BIN)/bnnrun bench workload=train_step dataset=digits seconds=3 \
		results_dir=$(DEMO)/results hydra.run.dir=$(DEMO)/step
	$(BIN)/bnnrun report results_dir=$(DEMO)/results

test: install  ## all tests; those that need a GPU or real data say why they are skipped
	$(BIN)/python -m pytest

lint: install  ## formatting, ruff, mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test  ## what must pass before a commit

format: install  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tables: install  ## rebuild the tables in results/ from the records
	$(BIN)/bnnrun report

clean:  ## remove the environment and what the tools left
	rm -rf $(VENV) outputs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
