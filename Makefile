# Every command a person needs. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONSTRAINTS := supply-chain/constraints.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo test test-quick test-long check attacks mutants coverage lint format lab test-training train repeat evaluate model notebooks benchmark report docs constraints supply-chain clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## create .venv with everything pinned (the other commands do it when needed)

# Runs again when the requirements change. What an unfinished install left behind is thrown away.
$(STAMP): pyproject.toml $(CONSTRAINTS)
	@command -v $(PYTHON) > /dev/null || { echo "make: $(PYTHON) is not on the PATH; install Python 3.11 or newer, or name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: stemlab needs Python 3.11 or newer and $(PYTHON) is $$($(PYTHON) -c 'import platform; print(platform.python_version())'); name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@if [ -e $@ ] && $(BIN)/python -c ''; then rm $@; else $(PYTHON) -m venv --clear $(VENV); fi
	$(PIP) install --quiet --constraint $(CONSTRAINTS) --editable '.[dev,lab,av,teach]'
	@touch $@

demo: $(STAMP) ## separate the demo song into demo-output/
	$(BIN)/stemlab demo --out demo-output

# A worker for each core. Each file stays in one of them: its tests share what takes long to make,
# and the cells of a notebook its kernel.
WORKERS ?= logical
PARALLEL := --numprocesses $(WORKERS) --dist loadfile

test: $(STAMP) ## run the tests and every notebook
	$(BIN)/python -m pytest $(PARALLEL)

# What needs neither a process of its own nor a separation of the demo song.
UNITS := $(addprefix tests/test_,$(addsuffix .py,assets chunking fast metrics recommending registry spectra))

test-quick: $(STAMP) ## run only the tests of the parts, under a minute
	$(BIN)/python -m pytest $(PARALLEL) $(UNITS)

test-long: $(STAMP) ## run the long tests too: thousands of hostile files, hundreds of kills (an hour)
	STEMLAB_LONG=1 $(BIN)/python -m pytest -o faulthandler_timeout=7200 $(PARALLEL)

check: lint ## check everything but the tests: lint, docs, wheel, supply chain
	$(BIN)/python -m pytest --quiet checks

attacks: $(STAMP) ## try every attack on weights, and write what came of them (docs/attacks.csv)
	STEMLAB_ATTACKS=write $(BIN)/python -m pytest tests/test_conversion.py tests/test_registry.py \
	  tests/test_provisioning.py tests/test_download.py

# Others: make mutants ARGUMENTS="chunking metrics --count 50 --seed 1"
mutants: $(STAMP) ## plant small faults in the code, and tell which of them no test notices
	$(BIN)/python tests/mutants.py $(ARGUMENTS)

coverage: $(STAMP) ## run the tests, and tell which lines and branches none of them reached
	rm -rf build/coverage
	mkdir -p build/coverage
	$(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

lint: $(STAMP) ## check style, types, import layers and docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --quiet tests/test_house.py -k docstrings

format: $(STAMP) ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lab: $(STAMP) ## open the notebooks in JupyterLab, in a folder of yours; asks the network for nothing
	$(BIN)/stemlab lab stemlab-notebooks

# Needs the system packages that models/training/README.md names. Songs are synthesised beside the
# training; cut off, both go on where they were.
TRAINING := build/training
RUN := $(TRAINING)/run
$(VENV)/.training: $(STAMP) models/training/pyproject.toml
	$(PIP) install --quiet --constraint $(CONSTRAINTS) --editable . ./models/training
	@touch $@

test-training: $(STAMP) ## test the training of stemlab-mini (models/training)
	cd models/training && $(abspath $(BIN))/python -m pytest

train: $(VENV)/.training ## synthesise songs and train a network on them (hours; goes on when cut off)
	$(BIN)/python models/training/synthesise.py $(TRAINING)/validation --first-seed 1000000 --count 5 --seconds 12
	OMP_NUM_THREADS=1 $(BIN)/python models/training/synthesise.py $(TRAINING)/songs & songs=$$!; \
	  trap "kill $$songs 2> /dev/null" EXIT; trap "exit 130" INT; trap "exit 143" TERM HUP; \
	  OMP_NUM_THREADS=1 $(BIN)/python models/training/train.py $(RUN) \
	    --songs $(TRAINING)/songs --validation $(TRAINING)/validation

repeat: $(VENV)/.training ## train the first 100 steps again and compare with the recorded losses
	OMP_NUM_THREADS=1 $(BIN)/python models/training/repeat.py --songs $(TRAINING)/songs

evaluate: $(VENV)/.training ## score stemlab-mini beside baselines; writes evaluation.json and the card
	OMP_NUM_THREADS=1 $(BIN)/python models/training/evaluate.py $(TRAINING)/heldout

# What depends on the weights: the inventory, the figures, the card, the floors of the tests (they
# read the figures) and the stored outputs of the notebooks.
model: $(VENV)/.training ## export a trained run (RUN=folder) and renew all that depends on it
	$(BIN)/python models/training/export.py $(RUN)
	$(MAKE) supply-chain
	$(MAKE) evaluate
	$(MAKE) notebooks

# In a copy: a notebook that fails leaves the stored one as it was.
notebooks: $(STAMP) ## run every notebook and store its outputs
	rm -rf build/notebooks && mkdir -p build && cp -r notebooks build/notebooks
	$(BIN)/jupyter nbconvert --log-level WARN --to notebook --execute --inplace --coalesce-streams \
	  --ExecutePreprocessor.store_widget_state=False --ExecutePreprocessor.record_timing=False \
	  build/notebooks/*.ipynb
	cp build/notebooks/*.ipynb notebooks/

benchmark: $(STAMP) ## measure stemlab beside Demucs (an hour or so); writes benchmarks/speed/
	$(BIN)/python benchmarks/speed.py benchmarks/speed

report: $(STAMP) ## render the notebooks to pages that open offline, in build/report/
	$(BIN)/python docs/report.py notebooks build/report

docs: $(STAMP) ## build the reference from the docstrings, in build/docs/
	rm -rf build/docs
	$(BIN)/python -m sphinx -q -W --keep-going docs build/docs
	@echo "The reference is build/docs/index.html."

# The marker that uv writes on every line only repeats [tool.uv] environments.
EVERYWHERE := (platform_machine == 'arm64' and sys_platform == 'darwin') or sys_platform == 'linux' or sys_platform == 'win32'
constraints: $(STAMP) ## resolve supply-chain/constraints.txt anew, newest versions
	$(PIP) install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 \
	  --upgrade --all-extras --no-header --no-annotate --output-file $(VENV)/pins.txt pyproject.toml models/training/pyproject.toml
	{ sed -n '/^#/p' $(CONSTRAINTS); \
	  sed -e "s/ ; $(EVERYWHERE)\$$//" -e "s/ and ($(EVERYWHERE))\$$//" $(VENV)/pins.txt; } > $(CONSTRAINTS).new
	mv $(CONSTRAINTS).new $(CONSTRAINTS)
	$(MAKE) supply-chain

supply-chain: $(STAMP) ## write the inventory (supply-chain/inventory.cdx.json) anew
	$(BIN)/python supply-chain/inventory.py

clean: ## remove .venv and everything built or cached
	rm -rf $(VENV) build dist demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find stemlab tests checks models notebooks -name __pycache__ -prune -exec rm -rf {} +
