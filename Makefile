# make run    installs into .venv and trains a model on real text:  make run MINUTES=1
# make test   lint, types, floors and the whole test suite
PYTHON ?= python3
VENV   ?= .venv
MINUTES ?= 5
OUT    ?= runs/quickstart
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test lint bench lock clean

run: $(READY)
	@$(BIN)/cerebras-gpt quickstart --minutes $(MINUTES) --out $(OUT)

test: lint
	@$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY)
	@$(BIN)/ruff check src tests benchmarks examples
	@$(BIN)/ruff format --check --quiet src tests benchmarks examples
	@$(BIN)/mypy

# One campaign of benchmarks/faults by its name: make campaign-kill
campaign-%: $(READY)
	@$(BIN)/python -m benchmarks.faults $*

# One campaign of benchmarks/serving_faults by its name: make campaign-serving-fuzz
campaign-serving-%: $(READY)
	@$(BIN)/python -m benchmarks.serving_faults $*

bench: $(READY)
	@$(BIN)/python benchmarks/attention.py
	@$(BIN)/python benchmarks/training_step.py

# The text packages are read as files, so nothing that their own code would need is in the lock: hence --no-deps.
# torch comes last, from a build on this disk that pip is told of if there is one (--no-index); the line after it adds
# only what a CUDA build asks for.
$(READY): requirements/lock.txt requirements/torch.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing locked requirements into $(VENV) (once, about a minute)"
	@$(PIP) --no-deps --require-hashes -r requirements/lock.txt
	@$(PIP) --no-deps --require-hashes --no-index -r requirements/torch.txt 2>/dev/null \
	    || $(PIP) --no-deps --require-hashes -r requirements/torch.txt
	@$(PIP) torch==2.13.0
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $(READY)

# Needs uv; run after changing pyproject.toml.
lock:
	uv pip compile --quiet pyproject.toml requirements/beside.in --extra gpt2 --extra quickstart --extra test \
	    --excludes requirements/excluded.txt --universal --python-version 3.11 --generate-hashes \
	    --no-annotate --no-header --output-file requirements/lock.txt

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
