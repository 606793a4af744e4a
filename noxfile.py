"""Tests on each Airflow that this package supports, with each Python that it does: `nox --list`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

# nox loads this file by its path alone.
sys.path.insert(0, str(Path(__file__).parent))

from dev.venv import PINS, requirements

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "lowest", "prerelease"]
# Whoever has all the interpreters says so, as the hosted CI does, and misses none without an error.
nox.options.error_on_missing_interpreters = False

# As dev/venv.py has it: the machine knows the certificates of the network that it is in.
os.environ.setdefault("UV_SYSTEM_CERTS", "true")

#: As their classifiers say.
PYTHONS = {
    "3.0.6": ["3.10", "3.11", "3.12"],
    "3.1.8": ["3.10", "3.11", "3.12", "3.13"],
    "3.2.2": ["3.10", "3.11", "3.12", "3.13", "3.14"],
    "3.3.2": ["3.10", "3.11", "3.12", "3.13", "3.14"],
}
OLDEST, *_, NEWEST = PYTHONS
#: What is to come: this pre-release of Airflow, or a newer one.
PRERELEASE = "3.4.0b2"


@nox.session
@nox.parametrize(
    ("python", "airflow"),
    [nox.param(python, airflow, id=f"{airflow}-py{python}") for airflow in PYTHONS for python in PYTHONS[airflow]],
)
def tests(session: nox.Session, airflow: str) -> None:
    """Run the unit and wire tests, or those that are named behind `--`."""
    session.install("--editable", ".", "--group", "test", "--group", "storage", *requirements(airflow))
    session.run("pytest", *(session.posargs or ["tests/unit", "tests/wire"]))


@nox.session(python="3.12")
@nox.parametrize("airflow", [nox.param(airflow, id=airflow) for airflow in (OLDEST, NEWEST)])
def system(session: nox.Session, airflow: str) -> None:
    """Run the system tests, each in a whole Airflow, or those that are named behind `--`."""
    session.install("--editable", ".", "--group", "test", "--group", "storage", *requirements(airflow))
    tests = session.posargs or ["tests/system"]
    session.run("python", "dev/browser.py", "get", *tests)
    session.run("pytest", *tests)


@nox.session(python="3.11")
def prerelease(session: nox.Session) -> None:
    """Run all tests on Airflow's newest pre-release, or those named behind `--`; a failure is said, no more."""
    tests = session.posargs or ["tests/unit", "tests/wire", "tests/system"]
    try:
        session.install("--editable", ".", "--group", "test", "--group", "storage", f"apache-airflow>={PRERELEASE}")
        session.run("python", "-m", "airflow", "version")
        session.run("python", "dev/browser.py", "get", *tests)
        session.run("pytest", *tests)
    except nox.command.CommandFailed:
        # An Airflow that is not out yet may be what is wrong, and stops nobody.
        session.warn("FAILED on Airflow's newest pre-release. That fails no gate, and is to be looked at.")
        if "GITHUB_ACTIONS" in os.environ:
            print("::error title=Airflow's newest pre-release::Tests fail there, which fails no gate.")  # noqa: T201  for GitHub


# pip knows no lowest versions.
@nox.session(python="3.10", venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Run the unit tests with the lowest version that pyproject.toml allows of each dependency."""
    lowest = nox.project.load_toml("pyproject.toml")["project"]["dependencies"]
    constraints = Path(session.create_tmp()) / "constraints.txt"
    # Not as requirements, of which the lowest would be taken too. What others need higher gives way, not these.
    constraints.write_text("\n".join([f"{one.replace('>=', '==')}.*" for one in lowest] + PINS["3.0"]))
    install = ["--resolution", "lowest-direct", "--constraint", str(constraints)]
    session.install(*install, "--editable", ".", "--group", "test")
    session.run("uv", "pip", "list", external=True)
    session.run("pytest", *(session.posargs or ["tests/unit"]))
