"""A release: its version, the Pythons that it claims, its files and its workflows."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from airflow_provider_luma import __version__
from dev.index_page import with_absolute_links

CHECKOUT = Path(__file__).parents[2]
PACKAGE = CHECKOUT / "airflow_provider_luma"
METADATA = ProjectMetadata(str(CHECKOUT), PluginManager()).core
CLASSIFIERS = METADATA.classifiers
PYTHONS = [one.rpartition(" ")[2] for one in CLASSIFIERS if re.search(r"Python :: 3\.\d+$", one)]
SECTIONS = re.findall(r"^## \[(.+?)\](?: - (.+))?$", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)


def shipped(builder):
    return {file.distribution_path for file in builder(str(CHECKOUT)).recurse_included_files()}


def test_changelog_starts_with_version():
    """The newest section of the changelog is the package's version, or is unreleased."""
    (top, _), *_ = SECTIONS
    released = [Version(name) for name, _ in SECTIONS if name != "Unreleased"]
    assert top == "Unreleased" or Version(top) == Version(__version__)
    assert released == sorted(released, reverse=True)
    assert not released or released[0] == Version(__version__)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for name, date in SECTIONS if name != "Unreleased")


def test_stable_from_1_0():
    """The package calls itself stable from version 1.0 on."""
    (status,) = [one for one in CLASSIFIERS if one.startswith("Development Status")]
    assert status.endswith("Beta" if Version(__version__) < Version("1") else "Production/Stable")


def test_claimed_pythons_are_tested():
    """Each Python in the classifiers can install the package and is tested."""
    tree = ast.parse((CHECKOUT / "noxfile.py").read_text())
    (tested,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PYTHONS"
    ]
    assert set(PYTHONS) == {python for pythons in tested.values() for python in pythons}
    assert all(python in SpecifierSet(METADATA.requires_python) for python in PYTHONS)
    assert ".".join(map(str, sys.version_info[:2])) in PYTHONS


def test_wheel_is_the_package():
    """The wheel contains the package and the example DAGs, and nothing else."""
    present = {
        str(path.relative_to(CHECKOUT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    # Airflow would load a folder named `example_dags`, and run its DAGs instead of a user's copies.
    examples = {f"{PACKAGE.name}/dag_examples/{path.name}" for path in (CHECKOUT / "example_dags").glob("*.py")}
    assert shipped(WheelBuilder) == present | examples
    assert {Path(name).suffix for name in present} >= {".py", ".typed", ".html", ".css", ".js", ".jpg", ".mp4"}


@pytest.mark.parametrize("name", ["noxfile.py", "tests/conftest.py", "dev/venv.py", "LICENSE"])
def test_sdist_has_test_files(name):
    """The source distribution contains the files that its tests need."""
    assert name in shipped(SdistBuilder)


def test_sdist_has_no_stray_files():
    """The source distribution contains no other files, caches or logs."""
    names = shipped(SdistBuilder)
    assert {Path(name).parts[0] for name in names} <= {
        *("airflow_provider_luma", "benchmarks", "dev", "docs", "example_dags", "tests", ".ci", ".github"),
        *(".gitignore", "noxfile.py", "pyproject.toml", "Makefile", "LICENSE"),
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "mkdocs.yml"),
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".db", ".log"))]


def test_readme_links_point_to_files():
    """On the package index, each link of the README points to a file and a heading of the release."""
    readme = with_absolute_links((CHECKOUT / "README.md").read_text(), "https://example.com/luma", "v1.2.3")
    targets = re.findall(r"\]\((.+?)\)", readme)
    assert len(targets) > 10
    for target in targets:
        kind, path, anchor = re.fullmatch(
            r"https://example.com/luma/(raw|blob)/v1.2.3/([^#]+)(?:#(.+))?", target
        ).groups()
        assert (CHECKOUT / path).is_file()
        headings = re.findall(r"^#+ (.+)$", (CHECKOUT / path).read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w-]", "", one.lower().replace(" ", "-")) for one in headings]
        assert kind == ("raw" if path.endswith(".png") else "blob")


def test_readme_is_index_page():
    """The package index shows the README."""
    assert METADATA.readme_content_type == "text/markdown"
    assert METADATA.readme.startswith("# airflow-provider-luma")


@pytest.mark.parametrize("path", sorted((CHECKOUT / ".github" / "workflows").iterdir()), ids=lambda path: path.stem)
def test_workflows_pin_actions(path):
    """Workflows pin each action to a commit, and start without permissions."""
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step.get("uses", f"a/b@{'0' * 40}"))
