"""The package as Airflow sees it before a task runs, and the rules for its modules."""

from __future__ import annotations

import ast
import graphlib
import importlib.metadata
import io
import json
import subprocess
import sys
import tokenize
from importlib.resources import files
from pathlib import Path

import airflow
import jsonschema
import pytest

from airflow_provider_luma import __version__
from airflow_provider_luma.get_provider_info import get_provider_info

PACKAGE = "airflow_provider_luma"
FOLDER = Path(__file__).parents[2] / PACKAGE
MODULES = ["operators.luma", "decorators.luma", "sensors.luma", "triggers.luma", "hooks.luma", "api"]


@pytest.mark.parametrize("module", MODULES)
def test_import_does_not_load_requests(module):
    """A DAG file that imports a public module does not load requests, which is slow."""
    code = f"import sys, {PACKAGE}.{module}; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_provider_info_imports_nothing():
    """The provider info imports only the table of APIs, because every Airflow process reads it at start-up."""
    code = (
        f"import typing, sys; old = set(sys.modules); import {PACKAGE}.get_provider_info; print(set(sys.modules) - old)"
    )
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert eval(loaded) - {"__future__"} == {PACKAGE, f"{PACKAGE}.get_provider_info", f"{PACKAGE}.apis"}  # noqa: S307


@pytest.mark.parametrize("schema", ["provider_info.schema.json", "provider.yaml.schema.json"])
def test_provider_info_meets_schema(schema):
    """The provider info is valid by Airflow's schemas."""
    text = files(airflow).joinpath(schema)
    required = json.loads(text.read_text())
    # The longer schema also requires fields that only Airflow's own providers have.
    required["required"] = ["name", "description"]
    tags = required["properties"]["integrations"]["items"]["properties"]["tags"]
    if "ai" not in tags["items"].get("enum", ["ai"]):
        # The schema of an old Airflow allows one tag for each integration, and has no tag for AI.
        tags.clear()
    assert list(jsonschema.Draft7Validator(required).iter_errors(get_provider_info())) == []


def test_provider_info_names_real_classes():
    """Every module and class in the provider info exists."""
    info = get_provider_info()
    for integration in info["triggers"]:
        for module in integration["python-modules"]:
            assert importlib.import_module(module)
    for decorator in info["task-decorators"]:
        module, _, name = decorator["class-name"].rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))
    (connection_type,) = info["connection-types"]
    module, _, name = connection_type["hook-class-name"].rpartition(".")
    hook = getattr(importlib.import_module(module), name)
    assert (hook.conn_type, hook.hook_name) == (connection_type["connection-type"], connection_type["hook-name"])


def test_entry_point_gives_provider_info():
    """Airflow finds the provider by its entry point."""
    (entry_point,) = [
        one for one in importlib.metadata.entry_points(group="apache_airflow_provider") if one.value.startswith(PACKAGE)
    ]
    assert entry_point.load()() == get_provider_info()


def test_version_matches_distribution():
    """The version is that of the installed distribution."""
    assert importlib.metadata.version("airflow-provider-luma") == __version__


def modules():
    """Return the syntax tree of each module of the package, by the module's name."""
    found = {}
    for path in sorted(FOLDER.rglob("*.py")):
        *parents, name = path.relative_to(FOLDER.parent).with_suffix("").parts
        found[".".join(parents if name == "__init__" else [*parents, name])] = ast.parse(path.read_text())
    return found


def nodes(tree, *, types):
    """Yield the nodes of a syntax tree; those under `if TYPE_CHECKING` only with ``types``."""
    for node in ast.iter_child_nodes(tree):
        if types or not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from nodes(node, types=types)


def circle(*, types):
    """Return the modules of an import circle, or nothing. Imports inside functions count."""
    trees = modules()
    imports = {name: set() for name in trees}
    for name, tree in trees.items():
        for node in nodes(tree, types=types):
            if isinstance(node, ast.Import):
                imports[name].update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                submodules = {f"{node.module}.{alias.name}" for alias in node.names}
                imports[name].update(submodules & trees.keys() or {node.module})
        imports[name] &= trees.keys()
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_import_circle():
    """No module imports itself through others. Circles of imports for types only are printed."""
    print("Circle of imports, if those for types count:", " <- ".join(circle(types=True)) or "none")
    assert circle(types=False) == []


def code_lines(source):
    """Return the numbers of the lines of code: no blank lines, comments and docstrings."""
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return lines


def attributes(node):
    """Return the names that the methods of a class set on ``self``."""
    stored = [one for one in ast.walk(node) if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store)]
    return {one.attr for one in stored if isinstance(one.value, ast.Name) and one.value.id == "self"}


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_module_is_small(path):
    """A module has at most 300 lines, a function 35 lines of code, a class ten attributes."""
    source = path.read_text()
    nodes, lines = list(ast.walk(ast.parse(source))), code_lines(source)
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = [(one.name, len(lines & set(range(one.lineno, one.end_lineno + 1)))) for one in functions]
    classes = [(node.name, len(attributes(node))) for node in nodes if isinstance(node, ast.ClassDef)]
    length = len(source.splitlines())
    assert length <= 300
    assert [one for one in lengths if one[1] > 35] == []
    assert [one for one in classes if one[1] > 10] == []
