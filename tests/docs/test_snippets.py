"""
Every fenced block in the README and the documentation is run or checked.

The language of a block decides; a block without a rule here fails:

- ``python`` with ``@dag``: a DAG file. Its DAG runs against the sandbox and succeeds.
- ``python`` with a title under ``tests/``: a file of a project. The page's ``$ pytest`` runs in that project.
- ``python`` with a title under ``airflow_provider_luma/api/dialects/``: a dialect. A client uses it.
- ``python`` with a path of ``example_dags`` between two lines ``--8<--``: that file, which has its own tests.
- other ``python``: the blocks of a page run one after the other in one namespace. An HTML comment
  ``<!-- before: … -->`` directly in front of a block runs first; it contains the names that the page takes for granted.
- ``text``: the output of the block before it, or of ``make demo``.
- ``console``: each line is ``$`` and a command; see ``check_command``.
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
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
from airflow.configuration import conf
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_luma import api
from airflow_provider_luma.api import GenerationState, LumaClient, LumaInvalidRequest, LumaNotFound
from airflow_provider_luma.api.dialects import DIALECTS
from airflow_provider_luma.apis import APIS, Api
from airflow_provider_luma.examples import EXAMPLES
from airflow_provider_luma.examples import main as examples
from airflow_provider_luma.sandbox.__main__ import parser as sandbox_parser
from dev.demo import NEXT
from tests.support.raw_answers import error_answer, far_end, json_answer

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
    """A fenced block of a page."""

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
    """Return the blocks of a page in their order."""
    text = page.read_text()
    for match in BLOCK.finditer(text):
        title = re.search(r'title="([^"]+)"', match["options"])
        line = text.count("\n", 0, match.start("text"))
        yield Block(page, line, match["before"] or "", match["language"], title[1] if title else "", match["text"])


BLOCKS = {page: list(blocks_of(page)) for page in PAGES}


def blocks(*languages):
    """Parametrize a test over the blocks in these languages."""
    found = [block for page in PAGES for block in BLOCKS[page] if block.language in languages]
    return pytest.mark.parametrize("block", found, ids=lambda block: f"{block.page.name}:{block.line}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_checked(page):
    """Each block of a page has a language with a rule in this module."""
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
    def test_dags_run(self, block, run_dag, luma_sandbox, tmp_path):
        """A DAG on a page runs unchanged against the sandbox."""
        assert not block.title or block.title.startswith("dags/")
        assert run_dag(block.text, str(tmp_path)).state == "success"
        assert luma_sandbox.report()["charged"] > 0

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
    def test_python_prints_the_output(self, page, luma_sandbox):
        """The Python blocks of a page run, and print the output on the page."""
        names = {}
        printed = ""
        for block in BLOCKS[page]:
            if block.language == "text" and not block.text.startswith("Setting up"):
                assert block.text == printed
            if block.language != "python" or block.is_example or block.title:
                continue
            code = compile("\n" * block.line + block.text, block.page, "exec")
            output = io.StringIO()
            # A task outside a DAG gets one.
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
    def test_included_examples_exist(self, block):
        """An included file is an example DAG of the checkout."""
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
    def test_project_of_page_passes(self, page, tmp_path_factory):
        """The files of a page are a project; its tests pass with only this package installed."""
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


class TestDialect:
    """The dialect on the page about the architecture, used by a client as if it were part of the package."""

    @pytest.fixture
    def studio(self, monkeypatch):
        (block,) = [block for block in BLOCKS[ROOT / "docs" / "architecture.md"] if "/dialects/" in block.title]
        row = Api("studio", "Studio", "https://api.studio.example.com", ("api.studio.example.com",), "st-")
        monkeypatch.setitem(APIS, row.name, row)
        module = types.ModuleType(row.name)
        exec(compile("\n" * block.line + block.text, block.page, "exec"), vars(module))  # noqa: S102
        monkeypatch.setitem(DIALECTS, row.name, module)
        return module

    def test_submits_and_polls(self, studio):
        """It submits with its own path and field names, and reads the generation."""
        done = b'{"id": "4711", "state": "done", "film": "https://cdn.example.com/4711.mp4"}'
        with far_end(json_answer(b'{"id": "4711", "state": "new"}'), json_answer(done)) as (url, requests):
            client = LumaClient(url, "st-key", api="studio")
            assert client.submit("A paper boat", extra_body={"grain": 3}).state is GenerationState.PENDING
            assert client.get("4711").video_url == "https://cdn.example.com/4711.mp4"
        assert requests[0].startswith(b"POST /v3/films ")
        assert json.loads(requests[0].partition(b"\r\n\r\n")[2]) == {"text": "A paper boat", "grain": 3}
        assert requests[1].startswith(b"GET /v3/films/4711 ")

    def test_host_or_key_chooses_it(self, studio):
        """A connection with its host or its key uses it."""
        assert LumaClient("api.studio.example.com", "any-token").dialect is studio
        assert LumaClient("", "st-key").url == "https://api.studio.example.com/v3"

    def test_connection_can_be_tested(self, studio):
        """Its answer for an unknown id shows that the API accepts the token."""
        with far_end(error_answer(404, b'{"error": "no such film"}')) as (url, requests):
            LumaClient(url, "st-key", api="studio").test()
        assert len(requests) == 1

    def test_page_is_no_verdict(self, studio):
        """The 404 page of a proxy does not mean that the id is unknown."""
        with far_end(error_answer(404, b"<html>")) as (url, _), pytest.raises(api.LumaServerError):
            LumaClient(url, "st-key", api="studio").get("4711", repeat=False)

    @pytest.mark.parametrize("argument", ["aspect_ratio", "notify_hook"])
    def test_refuses_arguments_without_counterpart(self, studio, argument):
        """It refuses an argument that the API does not have, by name."""
        with pytest.raises(LumaInvalidRequest, match=f"Studio has no {argument}"):
            LumaClient("", "st-key").submit("A paper boat", **{argument: "16:9"})

    def test_has_no_batch_query(self, studio):
        """A batch query is refused without a request."""
        with pytest.raises(LumaNotFound):
            LumaClient("", "st-key").get_many(["4711", "4712"])


def test_first_page_shows_demo():
    """The start page ends its output of ``make demo`` like the demo itself."""
    (shown,) = [block.text for block in BLOCKS[ROOT / "docs" / "index.md"] if block.language == "text"]
    assert NEXT.strip() in shown


def test_errors_page_has_all_errors():
    """The page about errors has a section for each error class."""
    errors = {name for name, kind in vars(api).items() if isinstance(kind, type) and issubclass(kind, api.LumaError)}
    errors -= {"LumaError"}
    assert set(re.findall(r"^## (Luma\w+)$", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)) == errors


@blocks("ini")
def test_airflow_has_the_options(block):
    """Airflow has the options on the pages, and their values have the right types."""
    shown = configparser.ConfigParser()
    shown.read_string(block.text)
    for section in shown.sections():
        for option, value in shown[section].items():
            check_option(section, option)
            assert type_of(section, option)(value) is not None


@blocks("bash")
def test_airflow_reads_the_variables(block):
    """The environment variables on the pages are those that Airflow reads."""
    for line in block.text.splitlines():
        export, variable = shlex.split(line)
        assert export == "export"
        check_variable(*variable.split("=", 1))


@blocks("console")
def test_commands_accept_their_arguments(block, tmp_path):
    """Each command on the pages exists and accepts its arguments."""
    for line in block.text.splitlines():
        assert line.startswith("$ ")
        check_command(line.removeprefix("$ ").partition("  #")[0], block.page, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_in_sentences_exist(page, tmp_path):
    """Options, targets, variables and commands within the text of a page exist."""
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
    """Return the function that parses the option's value."""
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
    # Any text will do for the placeholders.
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
        # test_project_of_page_passes runs it.
        assert command == "pytest"
