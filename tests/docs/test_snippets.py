"""
Every fenced block in the README and the documentation is run, or checked against what there is.

The rules, by a block's language; a block that none of them covers fails:

- ``python`` with ``@dag``: a DAG file, whose DAG runs against the sandbox and succeeds.
- ``python`` with a title under ``tests/``: a file of a project, in which the page's ``$ pytest`` runs.
- ``python`` that is a path of ``example_dags`` between two lines ``--8<--``: that file, which has tests of its own.
- other ``python``: run, those of a page one after the other in one namespace. An HTML comment ``<!-- before: … -->``
  right before a block is run first; it holds what the reader takes for granted.
- ``text``: what the block before has printed, or ``make demo``.
- ``console``: each line is ``$`` and a command; what the commands are checked for is below.
- ``ini``: options that Airflow has. ``bash``: variables that Airflow reads.
"""

from __future__ import annotations

import configparser
import contextlib
import importlib.metadata
import io
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from airflow.configuration import conf
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_luma import api
from airflow_provider_luma.examples import EXAMPLES
from airflow_provider_luma.examples import main as examples
from airflow_provider_luma.sandbox.__main__ import parser as sandbox_parser
from dev.demo import NEXT

pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?ms)(?:^<!-- before:\n(?P<before>.*?)-->\n\n?)?"
    r"^```(?P<language>\w*)(?P<options>[^\n]*)\n(?P<text>.*?)^```$"
)
ORDINARY = {"python3 -m venv venv", ". venv/bin/activate"}


@dataclass
class Block:
    page: Path
    line: int
    before: str
    language: str
    title: str
    text: str

    @property
    def is_dag(self):
        return self.language == "python" and "@dag" in self.text

    @property
    def is_example(self):
        return self.text.startswith("--8<--")


def blocks_of(page):
    """Return the blocks of a page, in order."""
    text = page.read_text()
    for match in BLOCK.finditer(text):
        title = re.search(r'title="([^"]+)"', match["options"])
        line = text.count("\n", 0, match.start("text"))
        yield Block(page, line, match["before"] or "", match["language"], title[1] if title else "", match["text"])


BLOCKS = {page: list(blocks_of(page)) for page in PAGES}


def blocks(*languages):
    """Parametrize a test with the blocks of these languages."""
    found = [block for page in PAGES for block in BLOCKS[page] if block.language in languages]
    return pytest.mark.parametrize("block", found, ids=lambda block: f"{block.page.name}:{block.line}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_kind_that_is_checked(page):
    covered = {"python", "text", "console", "ini", "bash"}
    assert {block.language for block in BLOCKS[page]} <= covered
    fences = [line for line in page.read_text().splitlines() if re.match(r"[>\s]*(```|~~~)", line)]
    assert len(fences) == 2 * len(BLOCKS[page])


class TestPython:
    @pytest.mark.parametrize(
        "block",
        [block for page in PAGES for block in BLOCKS[page] if block.is_dag],
        ids=lambda block: f"{block.page.name}:{block.line}",
    )
    def test_a_dag_that_is_shown_runs_as_it_is(self, block, run_dag, luma_sandbox, tmp_path):
        assert not block.title or block.title.startswith("dags/")
        assert run_dag(block.text, str(tmp_path)).state == "success"
        assert luma_sandbox.report()["charged"] > 0

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
    def test_python_that_is_shown_runs_and_prints_what_is_shown(self, page, luma_sandbox):
        names = {}
        printed = ""
        for block in BLOCKS[page]:
            if block.language == "text" and not block.text.startswith("Setting up"):
                assert block.text == printed
            if block.language != "python" or block.is_example or block.title:
                continue
            code = compile("\n" * block.line + block.text, block.page, "exec")
            output = io.StringIO()
            # A task that is shown by itself is of some DAG.
            some_dag = contextlib.nullcontext() if block.is_dag else DAG(f"line_{block.line}", schedule=None)
            with some_dag, contextlib.redirect_stdout(output):
                exec(block.before, names)  # noqa: S102
                exec(code, names)  # noqa: S102
            printed = output.getvalue()

    @pytest.mark.parametrize(
        "block",
        [block for page in PAGES for block in BLOCKS[page] if block.is_example],
        ids=lambda block: f"{block.page.name}:{block.line}",
    )
    def test_an_example_that_is_included_exists(self, block):
        before, path, after = block.text.splitlines()
        assert before == after == "--8<--"
        assert path.startswith("example_dags/")
        assert (ROOT / path).exists()

    @pytest.mark.together
    @pytest.mark.parametrize(
        "page",
        [page for page in PAGES if any(block.title.startswith("tests/") for block in BLOCKS[page])],
        ids=lambda page: page.name,
    )
    def test_the_files_of_a_page_are_a_project_whose_tests_pass(self, page, tmp_path_factory):
        """It needs nothing but this package."""
        tmp_path = tmp_path_factory.mktemp("project")
        for block in BLOCKS[page]:
            if block.title:
                file = tmp_path / block.title
                file.parent.mkdir(exist_ok=True)
                file.write_text(block.text)
        env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        command = [sys.executable, "-m", "pytest", "--strict-markers", "-p", "no:cacheprovider"]
        result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout
        assert re.search(r"\b3 passed\b", result.stdout)


def test_the_first_page_shows_the_end_of_the_demo():
    (shown,) = [block.text for block in BLOCKS[ROOT / "docs" / "index.md"] if block.language == "text"]
    assert NEXT.strip() in shown


def test_the_page_about_errors_has_each_of_them():
    errors = {name for name, one in vars(api).items() if isinstance(one, type) and issubclass(one, api.LumaError)}
    errors -= {"LumaError"}
    assert set(re.findall(r"^## (Luma\w+)$", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)) == errors


@blocks("ini")
def test_airflow_has_the_options_that_are_shown(block):
    shown = configparser.ConfigParser()
    shown.read_string(block.text)
    for section in shown.sections():
        for option, value in shown[section].items():
            check_option(section, option)
            assert type_of(section, option)(value) is not None


@blocks("bash")
def test_airflow_reads_the_variables_that_are_shown(block):
    for line in block.text.splitlines():
        export, variable = shlex.split(line)
        assert export == "export"
        check_variable(*variable.split("=", 1))


@blocks("console")
def test_the_commands_that_are_shown_take_what_they_are_given(block, tmp_path):
    for line in block.text.splitlines():
        assert line.startswith("$ ")
        check_command(line.removeprefix("$ ").partition("  #")[0], block.page, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_and_commands_in_sentences_exist(page, tmp_path):
    sentences = BLOCK.sub("", page.read_text())
    for section, option in re.findall(r"`\[(\w+)\] (\w+)`", sentences):
        check_option(section, option)
    for target in re.findall(r"`make ([\w-]+)`", sentences):
        assert target in make_targets()
    for name, value in re.findall(r"`(AIRFLOW_\w+)='([^`]+)'`", sentences):
        check_variable(name, value)
    for command in re.findall(r"`((?:airflow|python -m) [^`]+)`", sentences):
        check_command(command, page, tmp_path)


def check_option(section, option):
    assert option in conf.configuration_description[section]["options"], f"[{section}] {option}"


def type_of(section, option):
    """Return what reads the option's value."""
    kind = conf.configuration_description[section]["options"][option]["type"]
    words = {"true": True, "false": False}
    return {"integer": int, "float": float, "boolean": lambda value: words[value.lower()], "string": str}[kind]


def check_variable(name, value):
    if name.startswith("AIRFLOW_CONN_"):
        connection = json.loads(value)
        assert connection["conn_type"] == "luma"
        assert connection.keys() <= {"conn_type", "host", "password", "extra"}
    else:
        prefix, section, option = name.split("__")
        assert prefix == "AIRFLOW"
        check_option(section.lower(), option.lower())


def make_targets():
    return re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def check_command(command, page, folder):
    # Wherever the reader is to put something, anything will do.
    words = shlex.split(re.sub(r"<\w+>", "something", command))
    while re.match(r"[A-Z_]+=", words[0]):
        check_variable(*words.pop(0).split("=", 1))
    first, *arguments = words
    if command in ORDINARY:
        return
    if first == "make":
        assert set(arguments) <= set(make_targets())
    elif first == "pip":
        assert arguments.pop(0) == "install"
        for package in arguments:
            name, _, extra = package.rstrip("]").partition("[")
            assert not extra or extra in importlib.metadata.metadata(name).get_all("Provides-Extra")
            assert importlib.metadata.version(name)
    elif first == "export":
        check_variable(*arguments[0].split("=", 1))
    elif first == "unset":
        assert f"export {arguments[0]}=" in page.read_text()
    elif words[:3] == ["python", "-m", "airflow_provider_luma.sandbox"]:
        sandbox_parser().parse_args(words[3:])
    elif words[:3] == ["python", "-m", "airflow_provider_luma.examples"]:
        assert examples([word.replace("~", str(folder)) for word in words[3:]]) == 0
    elif first == "airflow":
        from airflow.cli.cli_parser import get_parser

        parsed = get_parser().parse_args(arguments)
        assert parsed.subcommand
        if arguments[:2] == ["dags", "test"]:
            assert f"def {parsed.dag_id}(" in page.read_text() or (EXAMPLES / f"{parsed.dag_id}.py").exists()
        if arguments[:2] == ["connections", "add"]:
            assert parsed.conn_type == "luma"
    else:
        # What it runs is the page's project, in test_the_files_of_a_page_are_a_project_whose_tests_pass.
        assert command == "pytest"
