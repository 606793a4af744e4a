"""The contract of every dialect: an API of apis.py joins with an entry in tests/support/dialects.py."""

from __future__ import annotations

import json
from collections import Counter

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.api import (
    Generation,
    GenerationState,
    LumaApiError,
    LumaClient,
    LumaError,
    LumaGenerationFailed,
    LumaInvalidRequest,
    LumaNotFound,
    LumaRateLimited,
    LumaServerError,
)
from airflow_provider_luma.api.arguments import ARGUMENTS, EXTEND_ARGUMENTS
from airflow_provider_luma.api.dialects import DIALECTS
from airflow_provider_luma.api.retry import MAX_RETRY_AFTER
from airflow_provider_luma.api.url import base_url, parse_host
from airflow_provider_luma.apis import APIS
from airflow_provider_luma.get_provider_info import get_provider_info
from tests.support.dialects import CALL, CASES, VALUES, answer, fixture, polled, submitted

PROMPT = {"user_prompt": VALUES["user_prompt"]}
PARENT = "5a1c7e40-8d2f-4b39-9e67-0c4f1b2a3d51"
HTML = b"\n<!DOCTYPE html><title>502 Bad Gateway</title>" + b"x" * 100_000
TROUBLE = {"page": HTML, "empty": b"", "null": b"null", "cut": b'{"id": "x", "sta', "deep": b"[" * 100_000}

CALLS = ("submission", "extension")

every_api = pytest.mark.parametrize("api", APIS)
each_call = pytest.mark.parametrize("call", CALLS)


def rows(column):
    """Return each API with each entry of a column of the table."""
    return [(api, entry) for api, case in CASES.items() for entry in getattr(case, column)]


def accepted(api, call):
    """Return the arguments that an API has a counterpart for."""
    case = CASES[api]
    if call == "submission":
        return [name for name in ARGUMENTS if name not in case.refused]
    return [name for name in EXTEND_ARGUMENTS if name not in (*case.refused, *case.refused_in_extensions)]


def request_for(api, call, given, extra=None):
    if call == "submission":
        return DIALECTS[api].submission(given, extra)
    return DIALECTS[api].extension(PARENT, given, extra)


def leaves(value):
    """Count the values in JSON that are neither objects nor arrays."""
    if isinstance(value, dict):
        return sum((leaves(inner) for inner in value.values()), Counter())
    return Counter([value])


def error_of(read, *arguments, **options):
    with pytest.raises(LumaApiError) as caught:
        read(*arguments, **options)
    return caught.value


def test_no_list_misses_an_api():
    """The dialects, the connection's form and this suite have exactly the APIs of the table."""
    (connection_type,) = get_provider_info()["connection-types"]
    field = connection_type["conn-fields"]["api"]
    assert [*APIS] == [*DIALECTS] == [*CASES] == field["schema"]["enum"]
    for name, api in APIS.items():
        assert DIALECTS[name].API is api
        assert f"{name}: {api.label}" in field["description"]


class TestRequest:
    @pytest.mark.parametrize(
        ("api", "call", "name"),
        [(api, call, name) for api in CASES for call in CALLS for name in accepted(api, call) if name not in PROMPT],
    )
    def test_sends_only_given_arguments(self, api, call, name):
        """A given argument is in the body with its value, and no other argument is, not even as null."""
        plain = leaves(request_for(api, call, PROMPT).body)
        more = leaves(request_for(api, call, {**PROMPT, name: VALUES[name]}).body)
        assert list((more - plain).elements()) == [VALUES[name]]
        assert not {*plain} & {value for other, value in VALUES.items() if other != "user_prompt"}
        assert None not in more

    @every_api
    @each_call
    def test_false_is_sent(self, api, call):
        """A switch that is off is sent as false."""
        switches = [name for name in accepted(api, call) if VALUES[name] is True]
        body = request_for(api, call, {**PROMPT, **dict.fromkeys(switches, False)}).body
        assert leaves(body)[False] == len(switches)

    @every_api
    @each_call
    def test_body_is_valid(self, api, call):
        """All arguments together are a body that the API's judge accepts, sent as a POST to a path of the API."""
        given = {**VALUES, "model_name": CASES[api].model}
        request = request_for(api, call, {name: given[name] for name in accepted(api, call)})
        CASES[api].judge(request.body)
        assert request.method == "POST"
        assert request.path.startswith("/")

    @every_api
    def test_extension_names_its_parent(self, api):
        """The generation to extend is in the path or the body."""
        request = request_for(api, "extension", PROMPT)
        assert PARENT in request.path + json.dumps(request.body)

    @every_api
    @each_call
    def test_extra_body_is_merged(self, api, call):
        """Fields of extra_body are sent beside the arguments, unchanged, and may have an argument's name."""
        plain = request_for(api, call, PROMPT)
        extra = {"seed": 7, "expand_prompt_2": {"a": [None]}}
        assert request_for(api, call, PROMPT, extra).body == {**plain.body, **extra}
        assert request_for(api, call, PROMPT, None).body == plain.body
        assert request_for(api, call, PROMPT, {}).body == plain.body

    @every_api
    @each_call
    def test_given_twice_is_refused(self, api, call):
        """A field that an argument and extra_body both have is refused by its name."""
        field = next(name for name, value in request_for(api, call, PROMPT).body.items() if value in PROMPT.values())
        with pytest.raises(LumaInvalidRequest, match=f"Given twice, as an argument and in extra_body: {field}"):
            request_for(api, call, PROMPT, {field: "another"})

    @every_api
    @each_call
    def test_extra_body_is_a_dict(self, api, call):
        """Any other type of extra_body is refused."""
        with pytest.raises(LumaInvalidRequest, match="extra_body must be a dict with strings as keys, got"):
            request_for(api, call, PROMPT, ["seed"])

    @pytest.mark.parametrize(
        ("api", "call", "name"),
        [
            *[(api, "submission", name) for api, name in rows("refused")],
            *[(api, "extension", name) for api, name in rows("refused") if name in EXTEND_ARGUMENTS],
            *[(api, "extension", name) for api, name in rows("refused_in_extensions")],
        ],
    )
    def test_no_counterpart_is_refused(self, api, call, name):
        """An argument that the API does not have is refused by name, with the alternative, whatever its value."""
        for value in (VALUES[name], False):
            with pytest.raises(LumaInvalidRequest, match=rf"^{APIS[api].label} has no {name}\. \w.*: leave this out"):
                request_for(api, call, {**PROMPT, name: value})

    @every_api
    def test_id_leads_to_no_other_path(self, api):
        """An id with a slash or a query stays one part of the path, and spaces around it do not matter."""
        own = DIALECTS[api].query("own").path
        assert DIALECTS[api].query(" own\n").path == own
        assert DIALECTS[api].query("../x?y").path == own.replace("own", "..%2Fx%3Fy")
        extension = DIALECTS[api].extension("../x?y", PROMPT, None)
        assert "../x?y" not in extension.path

    @every_api
    @pytest.mark.parametrize("generation_id", ["", " ", ".", "..", None, ["a"], {"id": "a"}])
    def test_wrong_id_is_refused(self, api, generation_id):
        """A value that cannot be a generation id is refused."""
        for make in (DIALECTS[api].query, lambda wrong: DIALECTS[api].extension(wrong, PROMPT, None)):
            with pytest.raises(LumaInvalidRequest, match="A generation id must be a string"):
                make(generation_id)

    @every_api
    @pytest.mark.parametrize("end", ["", "/", "{base}", "{base}/", "{base}{path}"])
    @pytest.mark.parametrize("host", ["https://proxy.example.com", "https://proxy.example.com/prefix"])
    def test_host_may_have_the_path(self, api, host, end):
        """Users type a host with and without the API's own path."""
        base, path = DIALECTS[api].base_path(""), DIALECTS[api].submission(PROMPT, None).path
        assert base_url(parse_host(host + end.format(base=base, path=path)), DIALECTS[api]) == host + base
        assert base_url(parse_host(""), DIALECTS[api]) == APIS[api].url + base


class TestGeneration:
    @pytest.mark.parametrize(("api", "name"), rows("submitted"))
    def test_submission_gives_an_id(self, api, name):
        """Each documented answer to a submission is a pending generation with an id."""
        generation = submitted(api, name)
        assert generation.id in json.dumps(fixture(api, name))
        assert (generation.state, generation.video_url) == (GenerationState.PENDING, None)

    @pytest.mark.parametrize(("api", "name"), rows("states"))
    def test_every_state_is_known(self, api, name):
        """Each word for a state is one of five states; only completed and failed are an end."""
        generation = polled(api, name)
        assert generation.id == fixture(api, name)["id"]
        assert generation.state == CASES[api].states[name]
        assert generation.state_name == fixture(api, name)["state"]
        assert generation.state.terminal is (generation.state in ("completed", "failed"))
        assert generation.created_at.to_iso8601_string().startswith("2026-")
        assert generation.raw == fixture(api, name)

    @every_api
    def test_table_has_every_state(self, api):
        """This suite sees each state of each API, and a completed generation with its video."""
        assert {*CASES[api].states.values()} == {*GenerationState}
        assert polled(api, "get_completed").video_url.startswith("https://")
        assert polled(api, "get_completed").failure_reason is None

    @pytest.mark.parametrize(("api", "name"), rows("failures"))
    def test_failure_says_what_helps(self, api, name):
        """A failure has its reason, and says if moderation refused it, if a retry may help, and if it is refunded."""
        generation = polled(api, name)
        assert generation.state is GenerationState.FAILED
        assert generation.failure_reason.endswith(fixture(api, name)["failure_reason"])
        told = (generation.moderated, generation.retry_may_help, generation.refunded)
        assert told == CASES[api].failures[name]
        error = LumaGenerationFailed(generation)
        assert (error.moderated, error.retry_may_help) == told[:2]
        assert ("It is refunded." in str(error)) is (told[2] is True)

    @pytest.mark.parametrize(
        ("api", "path"), [(api, path) for api, case in CASES.items() for path in sorted(case.folder.glob("*.json"))]
    )
    @pytest.mark.parametrize("status", [200, 400, 500])
    def test_every_fixture_is_read(self, api, path, status):
        """No documented answer, also with an unexpected status, is anything but a generation or an API error."""
        for read in (polled, submitted):
            try:
                assert isinstance(read(api, path.stem, status), Generation)
            except LumaApiError as error:
                assert str(error).startswith(f"{CALL}: ")  # noqa: PT017

    @every_api
    def test_batch_query_only_above_one(self, api):
        """An API with a batch query sends all ids in one request; another raises LumaNotFound without sending."""
        dialect = DIALECTS[api]
        if dialect.BATCH_SIZE == 1:
            client = LumaClient("127.0.0.1:1", "token", api=api, retry_for=0)
            with pytest.raises(LumaNotFound, match=f"{APIS[api].label} has no batch query: poll each"):
                client.get_many(["x"])
        else:
            request = dialect.batch_query(["x-1", "x-2"])
            assert '["x-1", "x-2"]' in json.dumps(request.body)
            completed = fixture(api, "get_completed")
            found = request.read(answer(api, [None, {}, completed, 7]), CALL)
            assert found == {completed["id"]: polled(api, completed)}

    @every_api
    def test_pace_is_positive(self, api):
        """The number of single polls per second is limited to a positive number, or not limited."""
        assert DIALECTS[api].REQUESTS_PER_SECOND > 0


class TestError:
    @pytest.mark.parametrize(("api", "error"), rows("errors"))
    def test_each_status_is_one_class(self, api, error):
        """A documented error has the class of its status, and says if a submission may have been charged."""
        name, status = error
        kind, maybe_charged = CASES[api].errors[error]
        for read in (polled, submitted):
            found = error_of(read, api, name, status)
            assert type(found) is kind
            assert (found.status, found.from_api) == (status, True)
            assert getattr(found, "maybe_charged", False) is maybe_charged
            assert str(found).startswith(f"{CALL}: HTTP {status}, ")

    @every_api
    def test_table_has_every_class(self, api):
        """This suite sees each class of error of each API."""
        kinds = {kind for kind, _ in CASES[api].errors.values()}
        assert {*LumaApiError.__subclasses__()} <= kinds

    @every_api
    def test_unknown_id_is_told(self, api):
        """Only the API's own words say that it does not know a generation."""
        for name, status in CASES[api].errors:
            error = error_of(polled, api, name, status)
            expected = name in ("error_task", "error_not_found")
            assert getattr(error, "unknown_id", False) is expected

    @every_api
    @pytest.mark.parametrize("content", TROUBLE.values(), ids=TROUBLE)
    @pytest.mark.parametrize("status", [200, 201, 204, 400, 401, 402, 403, 404, 405, 408, 413, 422, 500, 502, 503, 524])
    def test_page_is_no_verdict(self, api, status, content):
        """An answer that the API did not give is trouble of a server, whatever its status."""
        for read in (polled, submitted):
            error = error_of(read, api, content, status)
            assert type(error) is LumaServerError
            assert (error.from_api, error.status, error.retry_may_help) == (False, status, True)
            assert error.maybe_charged is (status < 300 or status >= 500 or status in (401, 403, 408))
            assert str(error).startswith(f"{CALL}: HTTP {status}, ")
            assert ("an HTML page" in str(error)) is (content is HTML)
            assert "<" not in str(error)
            assert len(str(error)) < 300

    @every_api
    @pytest.mark.parametrize(
        "content", [{}, [], "", 7, {"message": "ok"}, {"code": "success"}, {"id": []}, {"id": " "}]
    )
    def test_other_json_is_no_verdict(self, api, content):
        """After a success without a generation it is unknown whether a submission was charged."""
        for status in (200, 201):
            error = error_of(submitted, api, json.dumps(content).encode(), status)
            assert type(error) is LumaServerError
            assert error.maybe_charged

    @every_api
    @pytest.mark.parametrize("content", [b"", HTML])
    def test_redirect_is_not_followed(self, api, content):
        """A redirect is a wrong host; the message does not show its target."""
        error = error_of(polled, api, content, 302, {"Location": "https://elsewhere.example.com/?key=secret"})
        assert type(error) is LumaInvalidRequest
        assert error.from_api is False
        assert "a redirect, which is not followed. Set the host to the API's own address." in str(error)
        assert "elsewhere" not in str(error)

    @every_api
    def test_proxy_password_is_named(self, api):
        """A proxy that wants a password is named with the setting to use."""
        error = error_of(polled, api, HTML, 407)
        assert type(error) is LumaServerError
        assert "HTTP 407, a proxy wants a password. Set HTTPS_PROXY, with the user name and password" in str(error)

    @every_api
    @pytest.mark.parametrize("content", [b"", HTML, b'{"detail": "slow down", "message": "slow down"}'])
    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            ("7", 7),
            ("7.0", 7),
            ("99999999999999", MAX_RETRY_AFTER),
            ("soon", None),
            ("-5", 0),
            ("nan", 0),
            (None, None),
        ],
    )
    def test_retry_after_is_kept(self, api, content, header, seconds):
        """A 429 has the seconds of its Retry-After, at most an hour, also without a body."""
        error = error_of(polled, api, content, 429, {"Retry-After": header} if header else None)
        assert type(error) is LumaRateLimited
        assert error.retry_after == seconds
        assert error.from_api is (b"detail" in content)

    @every_api
    def test_retry_after_may_be_a_date(self, api):
        """A date gives the seconds until then; a date in the past gives 0."""
        soon = pendulum.now("UTC").add(seconds=60).format("ddd, DD MMM YYYY HH:mm:ss") + " GMT"
        assert 50 < error_of(polled, api, b"", 429, {"Retry-After": soon}).retry_after <= 60
        assert error_of(polled, api, b"", 503, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}).retry_after == 0
        later = error_of(polled, api, b"", 503, {"Retry-After": "Fri, 01 Jan 2999 00:00:00 GMT"})
        assert later.retry_after == MAX_RETRY_AFTER == 3600

    @every_api
    def test_long_message_is_cut(self, api):
        """A long text of the API is cut, and on one line."""
        text = "wrong\n" * 1000
        message = str(error_of(polled, api, {"detail": text, "message": text}, 400))
        assert "wrong wrong" in message
        assert len(message) < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
    max_leaves=20,
)
NAMES = st.sampled_from(
    """id state code message data error detail task_id status task_status fail_reason failure_reason failure_code video
    video_raw artifact url width height duration created_at estimate_wait_seconds request_id output type loc
    msg""".split()  # noqa: SIM905
)
SHAPED = st.recursive(
    JSON
    | st.from_regex(r"[0-9:TZW.+-]{1,26}", fullmatch=True)
    | st.sampled_from(["success", "pending", "queued", "SUCCESS", "video", 0, 200, 429, "0001-01-01T00:00:00Z", 1e300]),
    lambda parts: st.dictionaries(NAMES, parts, max_size=6) | st.lists(parts, max_size=3),
    max_leaves=15,
)


@every_api
@given(SHAPED.map(lambda payload: json.dumps(payload).encode()) | st.binary(), st.integers(200, 599))
def test_any_bytes_are_understood(api, content, status):
    """Whatever an answer contains is a generation that an XCom can hold, or an error of the API."""
    dialect = DIALECTS[api]
    requests = [dialect.query("x"), dialect.submission(PROMPT, None)]
    if dialect.BATCH_SIZE > 1:
        requests.append(dialect.batch_query(["x", "y"]))
    for request in requests:
        try:
            found = request.read(answer(api, content, status), CALL)
        except LumaError as error:
            assert str(error).startswith(CALL)  # noqa: PT017
        else:
            generations = [*found.values()] if isinstance(found, dict) else [found]
            json.dumps([generation.as_dict() for generation in generations], allow_nan=False)
