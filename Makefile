# On a machine with Python >= 3.11 and make, every target below sets up what it needs.
.DEFAULT_GOAL := help
.PHONY: help setup demo train-demo test test-all check docs bench bench-train bench-scale faults soak clean

VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

# The first interpreter that the project supports; `make PYTHON=/path/to/python setup` overrides it.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python; do \
  "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
  && { echo "$$name"; break; }; done)

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
	  printf '%-18s %s\n' "$$target" "$$text"; done

setup: $(INSTALLED) ## create .venv and install the project with its tools

# The stamp is older than pyproject.toml after a change of dependencies: then pip runs again.
$(INSTALLED): pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
	  echo "No Python 3.11, 3.12 or 3.13 found. Install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; fi
	@if ! $(RUN) -m pip --version >/dev/null 2>&1; then \
	  echo "creating $(VENV) with $(PYTHON)"; \
	  "$(PYTHON)" -m venv --clear $(VENV) || { \
	    echo "$(PYTHON) cannot create a virtual environment (on Debian and Ubuntu: apt install python3-venv)" >&2; \
	    exit 1; }; fi
	@echo "installing into $(VENV); this takes some minutes"
	$(RUN) -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(INSTALLED) ## render a small manifest, start to finish
	$(RUN) -m examples.demo

train-demo: $(INSTALLED) ## train the demo model from nothing, stage by stage (hours; says how many)
	$(RUN) -m examples.demo_model.train

test: $(INSTALLED) ## run the fast tests, the ones that CI runs
	$(RUN) -m pytest -m "not slow and not gpu"

test-all: $(INSTALLED) ## run every test that needs no GPU
	$(RUN) -m pytest -m "not gpu"

check: $(INSTALLED) ## lint, format check, types, the documentation and the fast tests
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	@$(MAKE) --no-print-directory docs test

docs: $(INSTALLED) ## build the documentation into site/; any broken link or reference fails
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

bench: $(INSTALLED) ## measure the pipeline against a bare loop over the same rows
	$(RUN) -m benchmarks.pipeline_efficiency

bench-train: $(INSTALLED) ## measure the trainer against a bare PyTorch loop
	$(RUN) -m benchmarks.train_throughput

faults: $(INSTALLED) ## inject some 250 faults and prove that nothing is lost, done twice or falsely ok (30 minutes)
	$(RUN) -m benchmarks.faults

soak: $(INSTALLED) ## the same ten times, each with other places for the faults (hours)
	$(RUN) -m benchmarks.faults --rounds 10

bench-scale: $(INSTALLED) ## measure planning, resuming and reconciling at a million rows (about 12 minutes)
	$(RUN) -m benchmarks.scale

clean: ## delete .venv, build products, caches and outputs/
	rm -rf $(VENV) build dist site outputs *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
