"""
Look up the dependencies of this package in the advisory database: part of `make lint`.

It checks the dependencies in pyproject.toml, in the versions installed here, which a new user also gets. It skips
Airflow and the 150 packages that Airflow installs: every Airflow has them, and Airflow has to fix them.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

#: Known to be vulnerable since 2019. If the database (or a mirror) has no advisory for it, its answers are useless.
CANARY = ("urllib3", "1.24.1")


def declared() -> dict[str, str]:
    """Return the installed version of each dependency of this package, without Airflow."""
    requirements = importlib.metadata.requires("airflow-provider-luma") or []
    names = {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements} - {"apache-airflow"}
    return {name: importlib.metadata.version(name) for name in sorted(names)}


def audit(packages: dict[str, str]) -> list[dict[str, Any]]:
    """Return pip-audit's answer for each package. It resolves no dependencies, so it needs no package index."""
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()))
        command = ["-m", "pip_audit", "--disable-pip", "--no-deps", "--progress-spinner=off", "--format=json"]
        done = subprocess.run(
            [sys.executable, *command, "--requirement", str(requirements)], capture_output=True, text=True, check=False
        )
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except ValueError:
        sys.exit(f"Nothing was audited.\n{done.stderr[-1000:]}")


def main() -> None:
    """Exit with an error if a package is vulnerable, or if the database gave no answer."""
    packages = declared()
    wanted = packages | dict([CANARY])
    answers = {answer["name"]: answer.get("vulns") for answer in audit(wanted)}
    # pip-audit skips an unknown package, with exit code 0.
    if not all(name in answers and answers[name] is not None for name in wanted) or not answers[CANARY[0]]:
        sys.exit("Nothing was audited: the advisory database cannot be reached, or is empty.")
    found = {name: [one["id"] for one in answers[name]] for name in packages if answers[name]}
    if found:
        sys.exit("\n".join(f"{name} {packages[name]}: {', '.join(ids)}" for name, ids in found.items()))
    print("No advisories for " + ", ".join(f"{name} {version}" for name, version in packages.items()))


if __name__ == "__main__":
    main()
