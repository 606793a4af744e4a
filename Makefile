# A bare machine with Python 3.10 or newer is enough: each target sets up what it needs, once.

PYTHON ?= python3
AIRFLOW ?= 3.3.2
VENV ?= .venv
TESTS ?= tests/unit tests/wire tests/docs tests/system
# What sets up an Airflow runs in one process, the other tests, which wait for half of their time, in three.
IN_ONE = $(filter tests tests/ tests/docs% tests/system% tests/scale%,$(TESTS))
IN_THREE = $(filter-out $(IN_ONE),$(TESTS))
OLDEST := 3.0.6
AUDIT ?= yes

.PHONY: help demo airflow test can-browse test-oldest test-all test-scale test-deployment pictures lint docs dist chaos waiting download parsing wall clean

help:
	@echo "make demo         make a first video with Airflow, against a local sandbox"
	@echo "make airflow      the same in Airflow's UI"
	@echo "make test         unit, wire and system tests; TESTS=tests/unit for some"
	@echo "make test-oldest  unit and wire tests on Airflow $(OLDEST)"
	@echo "make test-scale   a real triggerer with 500 deferred tasks"
	@echo "make test-deployment  Postgres, Redis, two of each Airflow process, and some killed, under 300 generations"
	@echo "make pictures     take the README's pictures of Airflow's UI"
	@echo "make docs         the documentation as a site, in site/index.html"
	@echo "make test-all     unit and wire tests on every Airflow and Python, as far as they are here"
	@echo "make lint         ruff, mypy, bandit, zizmor and pip-audit; AUDIT=no leaves out the last"
	@echo "make dist         source distribution and wheel, checked, and a bill of materials"
	@echo "make chaos        kill Airflow and its database at random while it makes a hundred videos, and count what was paid"
	@echo "make waiting      let thousands of triggers wait, beside those of Airflow's HTTP provider, and measure both"
	@echo "make download     fetch 1 GiB, beside curl and a plain stream, and measure all three"
	@echo "make parsing      import this provider and three others in fresh processes, and measure each"
	@echo "make wall         open a run's tab with 500 videos, beside a page of as many players, and measure both"
	@echo "make clean        remove what the targets above have set up"

demo: $(VENV)/runtime-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m dev.demo

airflow: $(VENV)/runtime-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m dev.standalone

test: can-browse $(VENV)/dev-$(AIRFLOW).stamp
	@$(VENV)/bin/python dev/browser.py get $(TESTS)
	$(if $(IN_THREE),$(VENV)/bin/python -m pytest --numprocesses 3 $(IN_THREE))
	$(if $(IN_ONE),$(VENV)/bin/python -m pytest $(IN_ONE))

can-browse:
	@$(PYTHON) dev/browser.py check $(TESTS)

test-oldest:
	@$(MAKE) --no-print-directory test AIRFLOW=$(OLDEST) VENV=.venv-$(OLDEST) TESTS="tests/unit tests/wire"

test-scale:
	@$(MAKE) --no-print-directory test TESTS=tests/scale

test-deployment: $(VENV)/deployment-$(AIRFLOW).stamp
	$(VENV)/bin/python -m pytest -s tests/deployment

pictures:
	@mkdir -p docs/pictures
	@LUMA_PICTURES=$(CURDIR)/docs/pictures $(MAKE) --no-print-directory test TESTS=tests/system/test_ui.py

lint: $(VENV)/dev-$(AIRFLOW).stamp
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/bandit --quiet --configfile pyproject.toml --recursive airflow_provider_luma
	$(VENV)/bin/zizmor --quiet --offline --persona=pedantic .github
	$(if $(filter no,$(AUDIT)),@echo "Not audited: AUDIT=no",$(VENV)/bin/python dev/audit.py)

test-all: $(VENV)/dev-$(AIRFLOW).stamp
	$(VENV)/bin/nox

docs: $(VENV)/docs-$(AIRFLOW).stamp
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@echo "The site is in site/index.html"

dist: $(VENV)/dev-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m dev.dist

chaos: $(VENV)/deployment-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m benchmarks.chaos

waiting: $(VENV)/dev-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m benchmarks.waiting

download: $(VENV)/dev-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m benchmarks.download

parsing: $(VENV)/dev-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m benchmarks.parsing

wall: $(VENV)/dev-$(AIRFLOW).stamp
	@$(VENV)/bin/python dev/browser.py get tests/system/test_ui.py
	@$(VENV)/bin/python -m benchmarks.wall

clean:
	rm -rf .venv .venv-* .airflow .nox site dist sbom

$(VENV)/%-$(AIRFLOW).stamp: pyproject.toml
	@$(PYTHON) dev/venv.py $(VENV) $(AIRFLOW) $*
