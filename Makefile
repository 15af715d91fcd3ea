# Everything here runs on a fresh machine with Python 3.11 to 3.13: `make demo`, `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := outputs/demo
GPU := outputs/gpu

.DEFAULT_GOAL := help
.PHONY: help install demo test quick exhaustive gpu lint check format tables clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

# Two at a time; threads that wait for one another must not keep a core from the other's.
test: install  ## all tests; those that need a GPU or real data say why they are skipped
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n logical --maxprocesses=4 --dist worksteal

QUICK := nn records test_architecture.py test_docs.py cli/test_config.py cli/test_words.py \
	data/test_preprocess.py gemm/test_gemm.py pack/test_fold.py report/test_formats.py

quick: install  ## a minute's subset for the inner loop: the paper, products, settings, records
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n logical --maxprocesses=4 $(addprefix tests/,$(QUICK))

exhaustive: install  ## the cases that `make test` leaves out, all combinations of options (an hour)
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n logical --maxprocesses=4 --dist worksteal --exhaustive -m exhaustive

# Rehearsed on any machine: make gpu DEVICE=cpu SIZES="64 128" SECONDS=1 MLP=batch=100 CONVNET=batch=10
DEVICE := cuda
SIZES := 1024 2048 4096 8192 16384
SECONDS := 15
WIDTH := 4096
MLP := batch=10000
CONVNET := batch=4000
in = results_dir=$(GPU)/results hydra.run.dir=$(GPU)/$(1)

# One line of the recipe for each size: the empty line is what parts them.
define product
$(BIN)/bnnrun bench device=$(DEVICE) m=$(1) seconds=$(SECONDS) $(call in,gemm_$(1))

endef

gpu: install  ## with an NVIDIA GPU, ten minutes: its tests, all benches, tables; ends in one archive of records
	rm -rf $(GPU) $(GPU).tar.gz
	$(BIN)/bnnrun doctor results_dir=$(GPU)/results
	$(BIN)/python -m pytest -m gpu --junitxml=$(GPU)/tests.xml
	$(BIN)/bnnrun train experiment=digits_binary arch.width=$(WIDTH) trainer.epochs=5 device=$(DEVICE) $(call in,run)
	$(BIN)/bnnrun pack run=$(GPU)/run
	$(BIN)/bnnrun eval model=$(GPU)/run dataset=digits device=$(DEVICE) --verify $(call in,eval)
	$(foreach size,$(SIZES),$(call product,$(size)))
	$(BIN)/bnnrun bench workload=mlp dataset=mnist device=$(DEVICE) seconds=$(SECONDS) $(MLP) $(call in,mlp)
	$(BIN)/bnnrun bench workload=convnet dataset=cifar10 device=$(DEVICE) seconds=$(SECONDS) $(CONVNET) \
		$(call in,convnet)
	$(BIN)/bnnrun bench workload=train_step dataset=digits arch.width=$(WIDTH) device=$(DEVICE) seconds=$(SECONDS) \
		$(call in,step)
	$(BIN)/bnnrun report results_dir=$(GPU)/results
	$(BIN)/python tests/helpers/sanitize.py $(GPU)/sanitizer || touch $(GPU)/unclean
	tar -czf $(GPU).tar.gz -C $(GPU) .
	@echo "records: $(GPU).tar.gz"
	@test ! -e $(GPU)/unclean

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
