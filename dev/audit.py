"""
Look up what this package makes its users install in the advisory database: part of `make lint`.

That is what pyproject.toml names, in the versions installed here, which are what a new user gets. Airflow and the
150 packages that it brings are left out: they are in an Airflow without this package too, and Airflow's to mend.
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

#: Known to be vulnerable since 2019. A database that says nothing about it, as a mirror may, has looked nothing up.
CANARY = ("urllib3", "1.24.1")


def declared() -> dict[str, str]:
    """Return the installed versions of what this package itself depends on, without Airflow."""
    requirements = importlib.metadata.requires("airflow-provider-luma") or []
    names = {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements} - {"apache-airflow"}
    return {name: importlib.metadata.version(name) for name in sorted(names)}


def audit(packages: dict[str, str]) -> list[dict[str, Any]]:
    """Return what pip-audit says of each package; it leaves the resolving, and so an index, out."""
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
    """Exit with an error if a package is vulnerable, and also if nobody could say."""
    packages = declared()
    wanted = packages | dict([CANARY])
    answers = {answer["name"]: answer.get("vulns") for answer in audit(wanted)}
    # An unknown package is skipped by pip-audit, with exit code 0.
    if not all(name in answers and answers[name] is not None for name in wanted) or not answers[CANARY[0]]:
        sys.exit("Nothing was audited: the advisory database is out of reach, or knows nothing.")
    found = {name: [one["id"] for one in answers[name]] for name in packages if answers[name]}
    if found:
        sys.exit("\n".join(f"{name} {packages[name]}: {', '.join(ids)}" for name, ids in found.items()))
    print("No advisories for " + ", ".join(f"{name} {version}" for name, version in packages.items()))


if __name__ == "__main__":
    main()
