"""What the two APIs of the sandbox do alike: count, check the token, meet the weather, accept and answer."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from airflow_provider_luma.sandbox.failures import Cut, Refused, page
from airflow_provider_luma.sandbox.memory import Generation, shortened, words_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from airflow_provider_luma.sandbox.memory import ApiName, Memory

HANG_SECONDS = 600
REFUSING_WORDS = ("400", "402", "403", "413", "422", "500", "502", "503")


class Api(ABC):
    """
    One API of the sandbox: what it takes, and how it says things.

    :param memory: what the sandbox remembers; the two APIs share it.
    """

    name: ClassVar[ApiName]
    created_status: ClassVar[int]

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    @abstractmethod
    def is_known(self, scheme: str, token: str) -> bool:
        """Return whether the API knows this token."""

    @abstractmethod
    def accept(self, body: Any, parent: str | None = None) -> Generation:
        """
        Accept a submission and charge it.

        :param body: the request's JSON.
        :param parent: the id of the generation to extend, if the path names one.
        :raises Refused: if the API does not take it; it is then not charged.
        """

    @abstractmethod
    def submission(self, prompt: str) -> dict[str, Any]:
        """Return the body that submits this prompt."""

    @abstractmethod
    def failure(self, words: dict[str, str]) -> tuple[str, str | None]:
        """Return why a generation fails whose prompt has these words, and the code; an empty reason if it does not."""

    @abstractmethod
    def created(self, generation: Generation) -> Response:
        """Answer a submission that was accepted."""

    @abstractmethod
    def found(self, generation: Generation, request: Request) -> Response:
        """Answer the query of a generation."""

    @abstractmethod
    def failed(self, failure: str, retry_after: int = 0) -> Response:
        """
        Answer with this failure: `busy` for too many running generations, or a status.

        :param retry_after: seconds to wait that a 429 names; 0 leaves that to the API.
        """

    @abstractmethod
    def too_many_polls(self, retry_after: int) -> Response:
        """Answer 429 to a poll; without seconds to wait, the API chooses."""

    @abstractmethod
    def invalid(self, message: str) -> Response:
        """Answer an invalid request."""

    @abstractmethod
    def not_found(self) -> Response:
        """Answer as for an unknown id."""

    def headers(self, request: Request) -> dict[str, str]:  # noqa: ARG002
        """Return the headers of every answer that the API itself gives."""
        return {}

    def add(self, prompt: str, body: dict[str, Any], parent: str | None = None, **fields: Any) -> Generation:
        """
        Make a generation and charge it.

        :param fields: what of it the prompt and the settings do not decide.
        """
        words = words_of(prompt)
        reason, code = self.failure(words)
        decided = {
            "seconds": self.memory.settings.seconds * (10 if "slow" in words else 1),
            "failure_reason": reason,
            "failure_code": code,
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
        """Refuse the submission if its prompt asks for that."""
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
        """Let a query meet the weather."""
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
    One call of an API: what all have in common, then its own answer.

    :param kind: what it counts as: `submissions`, `polls`, `batch_polls` or `others`.
    :param answer: what gives the answer, or raises Refused.
    """

    def __init__(self, api: Api, kind: str, answer: Callable[[Any, Request], Awaitable[Response]]) -> None:
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
                # Gone before it had sent its body, as a client that is killed is.
                response = Cut()
            if isinstance(response, JSONResponse):
                response.headers.update(self.api.headers(request))
            if not isinstance(response, Cut):
                received.status = response.status_code
            await response(scope, receive, send)

    def check(self, request: Request) -> None:
        """Refuse the request if the API is down or does not know its token."""
        weather = self.api.memory.weather
        if weather.down:
            raise Refused(Cut())
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if weather.revoked or not self.api.is_known(scheme, token.strip()):
            raise Refused(self.api.failed("401"))


async def submit(api: Api, request: Request) -> Response:
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


async def query(api: Api, request: Request) -> Response:
    """Answer the query of one generation."""
    api.refuse_by_weather()
    generation = api.memory.find(request.path_params["generation_id"], api.name)
    if generation is None:
        raise Refused(api.not_found())
    generation.polls += 1
    if generation.polls % 2 == 0 and "flaky" in words_of(generation.prompt):
        raise Refused(api.failed("502"))
    return api.found(generation, request)


async def read_json(api: Api, request: Request) -> Any:
    """Read the request's JSON."""
    try:
        body = json.loads(await request.body())
        # A lone surrogate is valid JSON but cannot be sent back.
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Refused(api.invalid(str(error))) from error
    return body
