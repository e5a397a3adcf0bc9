# Everything runs in .venv, which `make setup` fills; nothing else on the machine is changed.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
INSTALLED := $(VENV)/.installed

# Only what has full annotations is checked.
TYPED := $(wildcard qa probes dashboard benchmarks pocket/build.py pocket/demo.py interactive_attention_analysis.py)

.DEFAULT_GOAL := help
.PHONY: help setup demo-experiments demo test prove lint types clean

help:  ## say what the targets do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## .venv with everything the project and its tests need (minutes the first time)

# The file marks a whole installation, so that the other targets install again only when a requirement changed.
$(INSTALLED): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make setup PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(RUN) pip install --requirement requirements-dev.txt
	touch $@

demo-experiments: setup  ## two real experiments on the bundled model and questions, compared (minutes)
	$(RUN) pocket.demo

demo: demo-experiments  ## the same, then the dashboard opens in the browser
	$(RUN) streamlit run dashboard/Home.py

test: setup  ## the whole test suite
	$(RUN) pytest

prove: setup  ## the long versions of the same tests
	PROVE=1 $(RUN) pytest

lint: setup  ## style, and formatting as ruff writes it
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: setup  ## type checks
	$(RUN) mypy $(TYPED)

clean:  ## remove caches and build results; .venv and the experiments stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
