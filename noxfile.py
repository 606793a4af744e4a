"""Run the tests on each supported version of Airflow and Python. See `nox --list`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

# nox loads this file by its path.
sys.path.insert(0, str(Path(__file__).parent))

from dev.venv import PINS, requirements

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "lowest", "prerelease"]
# The hosted CI has all interpreters and turns this on.
nox.options.error_on_missing_interpreters = False

# As in dev/venv.py: use the certificates of the machine, which include those of its network.
os.environ.setdefault("UV_SYSTEM_CERTS", "true")

#: The Pythons of each version of Airflow, by its classifiers.
PYTHONS = {
    "3.0.6": ["3.10", "3.11", "3.12"],
    "3.1.8": ["3.10", "3.11", "3.12", "3.13"],
    "3.2.2": ["3.10", "3.11", "3.12", "3.13", "3.14"],
    "3.3.2": ["3.10", "3.11", "3.12", "3.13", "3.14"],
}
OLDEST, *_, NEWEST = PYTHONS
#: The session `prerelease` uses this version of Airflow or a later one.
PRERELEASE = "3.4.0b2"


@nox.session
@nox.parametrize(
    ("python", "airflow"),
    [nox.param(python, airflow, id=f"{airflow}-py{python}") for airflow in PYTHONS for python in PYTHONS[airflow]],
)
def tests(session: nox.Session, airflow: str) -> None:
    """Run the unit and wire tests, or the tests given after `--`."""
    session.install("--editable", ".", "--group", "test", "--group", "storage", *requirements(airflow))
    session.run("pytest", *(session.posargs or ["tests/unit", "tests/wire"]))


@nox.session(python="3.12")
@nox.parametrize("airflow", [nox.param(airflow, id=airflow) for airflow in (OLDEST, NEWEST)])
def system(session: nox.Session, airflow: str) -> None:
    """Run the system tests, which start a real Airflow, or the tests given after `--`."""
    session.install("--editable", ".", "--group", "test", "--group", "storage", *requirements(airflow))
    tests = session.posargs or ["tests/system"]
    session.run("python", "dev/browser.py", "get", *tests)
    session.run("pytest", *tests)


@nox.session(python="3.11")
def prerelease(session: nox.Session) -> None:
    """Run all tests, or those given after `--`, on Airflow's newest pre-release. A failure is only a warning."""
    tests = session.posargs or ["tests/unit", "tests/wire", "tests/system"]
    try:
        session.install("--editable", ".", "--group", "test", "--group", "storage", f"apache-airflow>={PRERELEASE}")
        session.run("python", "-m", "airflow", "version")
        session.run("python", "dev/browser.py", "get", *tests)
        session.run("pytest", *tests)
    except nox.command.CommandFailed:
        # The fault may be in the pre-release, so it must not block anybody.
        session.warn("FAILED on Airflow's newest pre-release. This blocks nothing, but look at it.")
        if "GITHUB_ACTIONS" in os.environ:
            print("::error title=Airflow's newest pre-release::Tests fail there. This blocks nothing, but look at it.")  # noqa: T201  for GitHub


# pip cannot install the lowest versions.
@nox.session(python="3.10", venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Run the unit tests with the lowest version that pyproject.toml allows of each dependency."""
    lowest = nox.project.load_toml("pyproject.toml")["project"]["dependencies"]
    constraints = Path(session.create_tmp()) / "constraints.txt"
    # As constraints: uv would also take the lowest versions of requirements. Other packages must fit these versions.
    constraints.write_text("\n".join([f"{one.replace('>=', '==')}.*" for one in lowest] + PINS["3.0"]))
    install = ["--resolution", "lowest-direct", "--constraint", str(constraints)]
    session.install(*install, "--editable", ".", "--group", "test")
    session.run("uv", "pip", "list", external=True)
    session.run("pytest", *(session.posargs or ["tests/unit"]))
