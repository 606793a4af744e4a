"""Plain HTTP calls to a sandbox, without the package's own client."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

from airflow_provider_luma.apis import APIS

FIXTURES = Path(__file__).parents[1] / "fixtures"
PROMPT = "a paper boat crosses a puddle"


def fixture(name: str) -> Any:
    """Read a JSON body of the wire contracts, such as `agents/get_queued.json`."""
    return json.loads((FIXTURES / name).read_text(encoding="utf-8"))


def fixture_names(folder: str) -> list[str]:
    return sorted(path.name for path in (FIXTURES / folder).iterdir())


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def kind(self) -> str:
        """The media type, such as `text/html`."""
        return self.headers["content-type"].partition(";")[0]


def call(sandbox, method, path, body=None, *, headers, timeout=10.0) -> Answer:
    """Send a request; `bytes` are sent unchanged, other bodies as JSON."""
    connection = HTTPConnection("127.0.0.1", sandbox.port, timeout=timeout)
    content = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    try:
        connection.request(method, path, content, headers)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())
    finally:
        connection.close()


@dataclass(frozen=True, eq=False)
class Calls:
    """
    The calls of one API.

    :param path: the path of submissions; a query adds the id.
    :param method: the HTTP method of submissions.
    :param prompt: the name of the prompt's field.
    :param created: the status of an accepted submission.
    :param unknown: the status for an unknown id.
    :param fields: the other fields that every submission needs.
    """

    api: str
    path: str
    prompt: str
    created: int
    unknown: int
    fields: dict[str, Any] = field(default_factory=dict)
    method: str = "POST"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {APIS[self.api].key_prefix}test"}

    def call(self, sandbox, method, path, body=None, *, headers=None, timeout=10.0) -> Answer:
        headers = self.headers if headers is None else headers
        return call(sandbox, method, path, body, headers=headers, timeout=timeout)

    def submit(self, sandbox, prompt=PROMPT, *, headers=None, timeout=10.0, **fields) -> Answer:
        body = {**self.fields, self.prompt: prompt, **fields}
        return self.call(sandbox, self.method, self.path, body, headers=headers, timeout=timeout)

    def submitted_id(self, sandbox, prompt=PROMPT, **fields) -> str:
        assert self.submit(sandbox, prompt, **fields).status == self.created
        return sandbox.report()["generations"][-1]["id"]

    def query(self, sandbox, generation_id, **options) -> Answer:
        return self.call(sandbox, "GET", f"{self.path}/{generation_id}", **options)


GATEWAY = Calls("gateway", "/luma/generations", "user_prompt", created=200, unknown=400)
AGENTS = Calls("agents", "/v1/generations", "prompt", 201, 404, {"type": "video", "model": "ray-3.2"})
CALLS = (GATEWAY, AGENTS)
