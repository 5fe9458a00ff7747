# Everything that needs thought is in Python: fewshot_lib/tools/setup.py and tests/__main__.py.
# The plain equivalents of these commands stand in README.md.

# A Python 3.11 to 3.13 to build .venv with; found by itself unless named: make setup PYTHON=python3.12
PYTHON ?=
VENV = .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup setup-all lab test bench book notebooks

help:
	@echo "make lab        set up what readers need, and open the course in JupyterLab"
	@echo "                (make lab ARGS='--port 9000')"
	@echo "make test       set up everything, and run every test"
	@echo "make setup      set up only what readers need: .venv, tested versions, the real scans"
	@echo "make setup-all  set up everything: also for grading, the tests and the book"
	@echo "make bench      measure times, memory and scores against their goals"
	@echo "make notebooks  re-run and save the notebooks, and build the exercises"
	@echo "make book       web pages of the saved notebooks, in build/book/html"

# The named Python, or else the first of these that is fit, runs the set-up, which says the rest.
FIT = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
setup:
	@if [ -n "$$PYTHON" ]; then \
	  "$$PYTHON" -c "" 2>/dev/null || { echo "Set-up stopped: PYTHON=$$PYTHON does not run." >&2; exit 3; }; \
	  exec "$$PYTHON" -m fewshot_lib.tools.setup $(SETUP_ARGS); \
	fi; \
	for python in $(VENV) python3.11 python3.12 python3.13 python3 python; do \
	  if "$$python" -c '$(FIT)' 2>/dev/null; then \
	    exec "$$python" -m fewshot_lib.tools.setup $(SETUP_ARGS); \
	  fi; \
	done; \
	echo "Set-up stopped: no Python 3.11, 3.12 or 3.13 was found; install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; \
	exit 3

# The set-up speaks the language that ARGS asks for: make lab ARGS="--language zh_CN"
lab: SETUP_ARGS = $(filter --language=%,$(subst --language ,--language=,$(ARGS)))
lab: setup
	@exec $(VENV) -m fewshot_lib.cli lab $(ARGS)

setup-all: SETUP_ARGS = --all
setup-all: setup

test: SETUP_ARGS = --all --system
test: setup
	@exec $(VENV) -m tests $(ARGS)

bench: SETUP_ARGS = --all
bench: setup
	@exec $(VENV) -m pytest tests/benchmarks -o python_files='bench_*.py' -s $(ARGS)

notebooks: SETUP_ARGS = --all
notebooks: setup
	@$(VENV) -m fewshot_lib.tools.notebooks $(ARGS)
	@exec $(VENV) -m fewshot_lib.cli build

book: SETUP_ARGS = --all
book: setup
	@exec $(VENV) -m fewshot_lib.tools.book

# So that PYTHON given to make reaches the shell above, spaces and all.
export PYTHON
