# A bare machine with Python 3.10 or newer is enough: each target sets up what it needs, once.

PYTHON ?= python3
AIRFLOW ?= 3.3.2
VENV ?= .venv
TESTS ?= tests/unit tests/wire tests/docs tests/system
OLDEST := 3.0.6

.PHONY: help demo airflow test test-oldest test-scale pictures lint docs chaos waiting download wall clean

help:
	@echo "make demo         make a first video with Airflow, against a local sandbox"
	@echo "make airflow      the same in Airflow's UI"
	@echo "make test         unit, wire and system tests; TESTS=tests/unit for some"
	@echo "make test-oldest  unit and wire tests on Airflow $(OLDEST)"
	@echo "make test-scale   a real triggerer with 500 deferred tasks"
	@echo "make pictures     take the README's pictures of Airflow's UI"
	@echo "make lint         ruff and mypy"
	@echo "make docs         the documentation as a site, in site/index.html"
	@echo "make chaos        kill Airflow at random while it makes a hundred videos, and count what was paid"
	@echo "make waiting      let thousands of triggers wait, beside those of Airflow's HTTP provider, and measure both"
	@echo "make download     fetch 1 GiB, beside curl and a plain stream, and measure all three"
	@echo "make wall         open a run's tab with 500 videos, beside a page of as many players, and measure both"
	@echo "make clean        remove what the targets above have set up"

demo: $(VENV)/runtime-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m dev.demo

airflow: $(VENV)/runtime-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m dev.standalone

test: $(VENV)/dev-$(AIRFLOW).stamp
	$(VENV)/bin/python -m pytest $(TESTS)

test-oldest:
	@$(MAKE) --no-print-directory test AIRFLOW=$(OLDEST) VENV=.venv-$(OLDEST) TESTS="tests/unit tests/wire"

test-scale:
	@$(MAKE) --no-print-directory test TESTS=tests/scale

pictures:
	@mkdir -p docs/pictures
	@LUMA_PICTURES=$(CURDIR)/docs/pictures $(MAKE) --no-print-directory test TESTS=tests/system/test_ui.py

lint: $(VENV)/dev-$(AIRFLOW).stamp
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

docs: $(VENV)/docs-$(AIRFLOW).stamp
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

chaos: $(VENV)/dev-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m benchmarks.chaos

waiting: $(VENV)/dev-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m benchmarks.waiting

download: $(VENV)/dev-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m benchmarks.download

wall: $(VENV)/dev-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m benchmarks.wall

clean:
	rm -rf .venv .venv-* .airflow site

$(VENV)/%-$(AIRFLOW).stamp: pyproject.toml
	@$(PYTHON) dev/venv.py $(VENV) $(AIRFLOW) $*
