# Two commands: `make demo` (raw NIfTI to a report on simulated studies) and `make test`. Each sets up .venv by itself.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
DEMO := demo_run
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test clean-demo help

help:
	@echo "make demo   simulate studies, prepare, pre-train, fine-tune, visualise; ends with the report's path"
	@echo "make test   linters, type checker, tests"

$(VENV)/.installed: requirements.txt
	@echo "== installing requirements.txt into $(VENV) (once; torch is large)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@echo "== installing requirements-dev.txt into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

test: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(VENV)/bin/pyright
	OMP_WAIT_POLICY=PASSIVE $(PY) -m pytest

clean-demo:
	rm -rf $(DEMO)
