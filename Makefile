# Everything runs in .venv, which the targets make when it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin
export MPLBACKEND := Agg

.PHONY: setup demo test test-all test-gpu check docs bench clean

setup: .venv/.complete

# What a user needs.
.venv/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[imagenet]'
	touch $@

# What a developer needs besides.
.venv/.complete: .venv/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	touch $@

demo: .venv/.ready
	$(BIN)/trabecula study recipes/demo.toml --out runs/demo --workers 2

test: .venv/.complete
	$(BIN)/python -m pytest

test-all: .venv/.complete
	$(BIN)/python -m pytest -m 'not gpu' --timeout 1800

test-gpu: .venv/.complete
	$(BIN)/python -m pytest -n 0 -m gpu

check: .venv/.complete
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_project.py

docs: .venv/.complete
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

# Every script, also after one that misses its bar. By hand: those that need a finished study, and those that take long.
BY_HAND = probe_agreement ordinal_heads ways checkpoint_rule page_tables embedded_study mutants demo_seeds
bench: .venv/.complete
	missed=0; for script in $(filter-out $(BY_HAND:%=bench/%.py),$(wildcard bench/*.py)); do \
	  $(BIN)/python $$script || missed=1; done; exit $$missed

clean:
	rm -rf .venv runs docs/_build
