# You need only Python 3.10 or later. Each target sets up its environment the first time.

PYTHON ?= python3
AIRFLOW ?= 3.3.2
VENV ?= .venv
TESTS ?= tests/unit tests/wire tests/docs tests/system
# Tests that start an Airflow run in one process. The other tests wait half of the time, so they run in three.
IN_ONE = $(filter tests tests/ tests/docs% tests/system% tests/scale%,$(TESTS))
IN_THREE = $(filter-out $(IN_ONE),$(TESTS))
OLDEST := 3.0.6
AUDIT ?= yes

.PHONY: help demo airflow test can-browse test-oldest test-all test-scale test-deployment pictures lint docs dist chaos waiting bad-waits download parsing wall clean

help:
	@echo "make demo         make a first video with Airflow and the sandbox"
	@echo "make airflow      do the same in Airflow's UI"
	@echo "make test         run the unit, wire, docs and system tests; TESTS=tests/unit runs some"
	@echo "make test-oldest  run the unit and wire tests on Airflow $(OLDEST)"
	@echo "make test-scale   run a real triggerer with 500 deferred tasks"
	@echo "make test-deployment  make 300 videos on Postgres, Celery and two of each Airflow process, and kill some"
	@echo "make pictures     take the README's screenshots of Airflow's UI"
	@echo "make docs         build the documentation site, site/index.html"
	@echo "make test-all     run the unit and wire tests on each Airflow, with each Python on this machine"
	@echo "make lint         run ruff, mypy, bandit, zizmor and pip-audit; AUDIT=no skips pip-audit"
	@echo "make dist         build and check the source distribution and the wheel, with a bill of materials"
	@echo "make chaos        make a hundred videos while Airflow and its database are killed at random, and count the charges"
	@echo "make bad-waits    measure the cost of a few odd generations for all other waits"
	@echo "make waiting      compare thousands of waiting triggers with those of Airflow's HTTP provider"
	@echo "make download     compare a download of 1 GiB with curl and with a plain stream"
	@echo "make parsing      compare the import time of this provider with three others"
	@echo "make wall         compare a run's tab with 500 videos to a page with 500 players"
	@echo "make clean        remove all files of the targets above"

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
	$(if $(filter no,$(AUDIT)),@echo "Dependencies were not audited because of AUDIT=no",$(VENV)/bin/python dev/audit.py)

test-all: $(VENV)/dev-$(AIRFLOW).stamp
	$(VENV)/bin/nox

docs: $(VENV)/docs-$(AIRFLOW).stamp
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@echo "The site is in site/index.html"

dist: $(VENV)/dev-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m dev.dist

chaos: $(VENV)/deployment-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m benchmarks.chaos

bad-waits: $(VENV)/dev-$(AIRFLOW).stamp
	@$(VENV)/bin/python -m benchmarks.one_bad_wait

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
