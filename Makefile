# make demo   serve two real models on this machine's CPU and show the result
# make test   run every test that this machine can run
# Both set up what they need in .venv first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: help setup build demo test lint format
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml CMakeLists.txt $(shell find csrc cmake -type f)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet 'scikit-build-core>=0.10' 'pybind11>=3.0,<4' 'cmake>=3.26' 'ninja>=1.11'
	$(BIN)/python -m pip install --quiet --no-build-isolation -Ccmake.define.FESTINA_WERROR=ON -e '.[test]'
	touch $@

demo: setup
	$(BIN)/festina demo

test: setup lint
	$(BIN)/pytest

lint: setup
	$(BIN)/ruff check festina tests bench
	$(BIN)/ruff format --check festina tests bench
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format festina tests bench
	$(BIN)/ruff check --fix festina tests bench
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.hpp' '*.cu' '*.cuh')
