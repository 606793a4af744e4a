"""The parts that all APIs of the sandbox share: token check, charge, simulated errors and answers."""

from __future__ import annotations

import asyncio
import json
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from airflow_provider_luma.sandbox.failures import Cut, Refused, page
from airflow_provider_luma.sandbox.generation import Generation, shortened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.routing import Route
    from starlette.types import Receive, Scope, Send

    from airflow_provider_luma import apis
    from airflow_provider_luma.sandbox.generation import Failure
    from airflow_provider_luma.sandbox.memory import Memory

WORDS = re.compile(
    r"\[(moderated|slow|flaky|429|busy|400|402|403|413|422|500|502|503|hang|drop|html|proxy)(?::(\d{1,6}))?\]"
    r"|\[(fail)(?::([a-z_]{1,40}))?\]",
    re.IGNORECASE,
)
HANG_SECONDS = 600
REFUSING_WORDS = ("400", "402", "403", "413", "422", "500", "502", "503")


class PlayedApi(ABC):
    """
    One API of the sandbox: its calls, its rules and its answers.

    :param row: the API in the table of APIs.
    :param memory: the generations and settings; all APIs of a sandbox share it.
    """

    created_status: ClassVar[int]

    def __init__(self, row: apis.Api, memory: Memory) -> None:
        self.name = row.name
        self.key_prefix = row.key_prefix
        self.memory = memory

    @abstractmethod
    def routes(self) -> list[Route]:
        """Return the API's calls; each ends in a `Call`."""

    @abstractmethod
    def accept(self, body: Any, parent: str | None = None) -> Generation:
        """
        Accept a submission and charge it.

        :param body: the request's JSON.
        :param parent: the id of the generation to extend, if the path contains it.
        :raises Refused: if the API refuses the submission; it is then not charged.
        """

    @abstractmethod
    def submission(self, prompt: str) -> dict[str, Any]:
        """Return the shortest body that submits this prompt."""

    @abstractmethod
    def failure(self, words: dict[str, str]) -> Failure | None:
        """Return how a generation fails if its prompt has these words; None if it does not fail."""

    @abstractmethod
    def created(self, generation: Generation) -> Response:
        """Answer an accepted submission."""

    @abstractmethod
    def found(self, generation: Generation, request: Request) -> Response:
        """Answer the query of a generation."""

    @abstractmethod
    def failed(self, failure: str, retry_after: int = 0) -> Response:
        """
        Answer with this failure: a status, or `busy` (429, too many running generations).

        :param retry_after: the seconds in the `Retry-After` of a 429; if 0, the API chooses.
        """

    @abstractmethod
    def too_many_polls(self, retry_after: int) -> Response:
        """Answer a poll with 429; if `retry_after` is 0, the API chooses the seconds."""

    @abstractmethod
    def invalid(self, message: str) -> Response:
        """Answer an invalid request."""

    @abstractmethod
    def not_found(self) -> Response:
        """Answer the query of an unknown id."""

    def is_known(self, scheme: str, token: str) -> bool:
        """Return whether this is the token of the settings; without one, whether it has the API's key prefix."""
        expected = self.memory.settings.token
        matches = token == expected if expected else token != "" and token.startswith(self.key_prefix)
        return scheme == "Bearer" and matches

    def headers(self, request: Request) -> dict[str, str]:  # noqa: ARG002
        """Return the headers that the API adds to each of its own answers."""
        return {}

    def add(self, prompt: str, body: dict[str, Any], parent: str | None = None, **fields: Any) -> Generation:
        """
        Make a generation and charge it.

        :param fields: fields of the generation that replace those from the prompt and the settings.
        """
        words = words_of(prompt)
        decided = {
            "seconds": self.memory.settings.seconds * (10 if "slow" in words else 1),
            "failure": self.failure(words),
        }
        generation = Generation(
            api=self.name,
            prompt=prompt,
            clock=self.memory.clock,
            body=shortened(body),
            parent=parent,
            **{**decided, **fields},
        )
        self.memory.generations[generation.id] = generation
        return generation

    def refuse_by_words(self, prompt: str) -> None:
        """Refuse the submission if a word in its prompt simulates a refusal."""
        words = words_of(prompt)
        for word in REFUSING_WORDS:
            if word in words:
                raise Refused(self.failed(word))
        times = self.memory.submissions_by_prompt
        if "429" in words or "busy" in words:
            times[prompt] += 1
        if "429" in words:
            seconds, refusals = (int(words["429"]), 1) if words["429"] else (1, 2)
            if times[prompt] <= refusals:
                raise Refused(self.failed("429", seconds))
        if "busy" in words and times[prompt] <= int(words["busy"] or 1):
            raise Refused(self.failed("busy"))

    def refuse_by_weather(self) -> None:
        """Refuse a status query if the weather draws a failure."""
        weather = self.memory.weather
        failure = weather.status_failure()
        if failure == "drop":
            raise Refused(Cut())
        if failure == "hang":
            raise Refused(Cut(after=weather.hang_seconds))
        if failure == "html":
            raise Refused(page(200))
        if failure == "429":
            raise Refused(self.too_many_polls(weather.retry_after))
        if failure is not None:
            raise Refused(self.failed(failure))


class Call:
    """
    One call of an API: the parts that all calls have, then its own answer.

    :param kind: how it is counted: `submissions`, `polls`, `batch_polls` or `others`.
    :param answer: returns the answer, or raises Refused.
    """

    def __init__(self, api: PlayedApi, kind: str, answer: Callable[[Any, Request], Awaitable[Response]]) -> None:
        self.api = api
        self.kind = kind
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        memory = self.api.memory
        with memory.counted(self.kind, request.headers.get("user-agent", "")):
            received = memory.note(request)
            try:
                received.content = await request.body()
                if memory.settings.latency > 0:
                    await asyncio.sleep(memory.settings.latency)
                self.check(request)
                response = await self.answer(self.api, request)
            except Refused as refused:
                if self.kind == "submissions":
                    memory.counts["refused"] += 1
                response = refused.response
            except ClientDisconnect:
                # A killed client closes its connection before it has sent the whole body.
                response = Cut()
            if isinstance(response, JSONResponse):
                response.headers.update(self.api.headers(request))
            if not isinstance(response, Cut):
                received.status = response.status_code
            await response(scope, receive, send)

    def check(self, request: Request) -> None:
        """Refuse the request if the API is down or does not accept the token."""
        weather = self.api.memory.weather
        if weather.down:
            raise Refused(Cut())
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if weather.revoked or not self.api.is_known(scheme, token.strip()):
            raise Refused(self.api.failed("401"))


async def submit(api: PlayedApi, request: Request) -> Response:
    """Answer a submission."""
    body = await read_json(api, request)
    weather = api.memory.weather
    failure = weather.submit_failure()
    if failure is not None and failure != "drop_after_accept":
        raise Refused(api.failed(failure, weather.retry_after))
    generation = api.accept(body, request.path_params.get("generation_id"))
    words = words_of(generation.prompt)
    if failure or "drop" in words:
        return Cut()
    if "hang" in words:
        return Cut(after=HANG_SECONDS)
    if "html" in words:
        return page(api.created_status)
    if "proxy" in words:
        return page(502)
    return api.created(generation)


async def query(api: PlayedApi, request: Request) -> Response:
    """Answer the query of one generation."""
    api.refuse_by_weather()
    generation = api.memory.find(request.path_params["generation_id"], api.name)
    if generation is None:
        raise Refused(api.not_found())
    generation.polls += 1
    if generation.polls % 2 == 0 and "flaky" in words_of(generation.prompt):
        raise Refused(api.failed("502"))
    return api.found(generation, request)


async def read_json(api: PlayedApi, request: Request) -> Any:
    """Parse the request's JSON."""
    try:
        body = json.loads(await request.body())
        # A lone surrogate is valid JSON, but no answer or report could contain it.
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Refused(api.invalid(str(error))) from error
    return body


def words_of(prompt: str) -> dict[str, str]:
    """Find the words in brackets in this prompt; the value of each is the text after its colon, or empty."""
    found = WORDS.findall(prompt)
    return {(word or fail).lower(): number or code for word, number, fail, code in found}
