# make demo   serve two real models on this machine's CPU and show the result
# make test   run every test that this machine can run
# make bench  measure every hot path beside a plain rival
# Both set up what they need in .venv first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: help setup demo test bench fuzz simulate-faults chaos lint format cpp-test sanitize sanitize-cpp stubs
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml CMakeLists.txt $(shell find csrc cmake -type f)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet 'scikit-build-core>=0.10' 'pybind11>=3.0,<4' 'cmake>=3.27' 'ninja>=1.11'
	$(BIN)/python -m pip install --quiet --no-build-isolation -Ccmake.define.FESTINA_WERROR=ON -e '.[test]'
	touch $@

demo: setup
	$(BIN)/festina demo

test: setup lint cpp-test
	$(BIN)/pytest

# Many more hostile frames and faulty networks than `make test` tries
FUZZ_FRAMES ?= 10000000
fuzz: setup
	FESTINA_FUZZ_EXAMPLES=100000 FESTINA_NETWORK_SEEDS=2000 $(BIN)/pytest --timeout 0 \
	  tests/unit/test_messages_fuzz.py tests/simulation/test_network.py
	$(BIN)/python -m bench.fuzz --frames $(FUZZ_FRAMES) --jobs 2

# Crashes, cuts and lost messages in virtual time, against DESIGN's promises; SEEDS=10000 for more
SEEDS ?= 200
simulate-faults: setup
	$(BIN)/festina simulate-faults --seeds $(SEEDS) --jobs $$(nproc)

# A thousand kills of the processes of a real cluster while a million tokens stream
chaos: setup
	FESTINA_CHAOS_KILLS=1000 FESTINA_CHAOS_TOKENS=1000000 FESTINA_CHAOS_STREAMS=48 \
	  FESTINA_CHAOS_PAUSE_S=2 FESTINA_CHAOS_LIMIT_S=5400 FESTINA_TAKEOVERS=100 \
	  $(BIN)/pytest tests/integration/test_chaos.py tests/integration/test_takeover.py -s

lint: setup
	$(BIN)/ruff check festina tests bench tools
	$(BIN)/ruff format --check festina tests bench tools
	$(BIN)/mypy

# Speed, every hot path beside a plain rival; the figures of a quiet machine go to bench/results.
bench: setup
	OPENBLAS_NUM_THREADS=1 $(BIN)/pytest bench -s --timeout 0 --benchmark-json build/bench.json
	$(BIN)/python tools/bench_table.py build/bench.json

# The C++ tests, plain.
cpp-test: setup
	$(BIN)/cmake -S . -B build/cpp -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DFESTINA_PYTHON=OFF -DFESTINA_CUDA=OFF -DFESTINA_CPP_TESTS=ON -DFESTINA_WERROR=ON
	$(BIN)/cmake --build build/cpp --parallel 2
	$(BIN)/ctest --test-dir build/cpp --output-on-failure

# All native code under ASan + UBSan, then under TSan: the C++ tests, then Python's tests of it.
sanitize: sanitize-cpp
	VENV=$(VENV) tools/sanitize.sh address python
	VENV=$(VENV) tools/sanitize.sh thread python

sanitize-cpp: setup
	VENV=$(VENV) tools/sanitize.sh address cpp
	VENV=$(VENV) tools/sanitize.sh thread cpp

# festina/_core.pyi, after a change of csrc/bindings.
stubs: setup
	$(BIN)/python tools/stubs.py

format: setup
	$(BIN)/ruff format festina tests bench
	$(BIN)/ruff check --fix festina tests bench
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.hpp' '*.cu' '*.cuh')
