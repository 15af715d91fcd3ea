# Everything here runs on a fresh machine with Python 3.11 to 3.13: `make demo`, `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := outputs/demo
GPU := outputs/gpu

.DEFAULT_GOAL := help
.PHONY: help install demo test gpu lint check format tables clean

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
		results_dir=$(DEMO)/results hydra.sweep.dir=$(DEMO)/runs \
		'hydra.sweep.subdir=$${hydra:runtime.choices.experiment}'
	$(BIN)/bnnrun pack run=$(DEMO)/runs/digits_binary
	$(BIN)/bnnrun eval model=$(DEMO)/runs/digits_binary dataset=digits --verify \
		results_dir=$(DEMO)/results hydra.run.dir=$(DEMO)/eval
	$(BIN)/bnnrun bench kernel=xnor m=1024 seconds=2 \
		results_dir=$(DEMO)/results hydra.run.dir=$(DEMO)/gemm
	$(BIN)/bnnrun bench workload=train_step dataset=digits seconds=3 \
		results_dir=$(DEMO)/results hydra.run.dir=$(DEMO)/step
	$(BIN)/bnnrun report results_dir=$(DEMO)/results

test: install  ## all tests; those that need a GPU or real data say why they are skipped
	$(BIN)/python -m pytest

gpu: install  ## with an NVIDIA GPU: its tests, packed networks, products; ends in one archive of records
	rm -rf $(GPU)
	$(BIN)/bnnrun doctor
	$(BIN)/python -m pytest -m gpu
	$(BIN)/bnnrun train experiment=digits_binary trainer.epochs=5 device=cuda \
		results_dir=$(GPU)/results hydra.run.dir=$(GPU)/run
	$(BIN)/bnnrun pack run=$(GPU)/run
	$(BIN)/bnnrun eval model=$(GPU)/run dataset=digits device=cuda --verify \
		results_dir=$(GPU)/results hydra.run.dir=$(GPU)/eval
	for m in 1024 2048 4096 8192 16384; do \
		$(BIN)/bnnrun bench device=cuda m=$$m seconds=20 \
			results_dir=$(GPU)/results hydra.run.dir=$(GPU)/gemm || exit; \
	done
	$(BIN)/bnnrun bench workload=mlp dataset=mnist device=cuda batch=10000 seconds=20 \
		results_dir=$(GPU)/results hydra.run.dir=$(GPU)/mlp
	$(BIN)/bnnrun bench workload=convnet dataset=cifar10 device=cuda batch=4000 seconds=30 \
		results_dir=$(GPU)/results hydra.run.dir=$(GPU)/convnet
	$(BIN)/bnnrun bench workload=train_step dataset=digits device=cuda seconds=5 \
		results_dir=$(GPU)/results hydra.run.dir=$(GPU)/step
	$(BIN)/bnnrun report results_dir=$(GPU)/results
	tar -czf $(GPU).tar.gz -C $(GPU) results
	@echo "records: $(GPU).tar.gz"

lint: install  ## formatting, ruff, mypy; whether results/ is what its records give
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/bnnrun report --check

check: lint test  ## what must pass before a commit

format: install  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tables: install  ## rebuild tables, figures and page in results/ from the records
	$(BIN)/bnnrun report

clean:  ## remove the environment and what the tools left
	rm -rf $(VENV) outputs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
