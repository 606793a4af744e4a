"""Luma's own API: what is sent, what is refused before that, and what comes back."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest

from airflow_provider_luma.api import (
    Generation,
    GenerationState,
    LumaApiError,
    LumaAuthenticationError,
    LumaGenerationFailed,
    LumaInvalidRequest,
    LumaNotFound,
    LumaQuotaError,
    LumaRateLimited,
    LumaServerError,
)
from airflow_provider_luma.api.arguments import Template, merge_arguments
from airflow_provider_luma.api.dialects import DIALECTS, Answer, agents, check_arguments, choose_dialect
from airflow_provider_luma.api.url import base_url
from airflow_provider_luma.sandbox import agents_rules
from tests.support.agents_judge import judge

FIXTURES = Path(__file__).parents[1] / "fixtures" / "agents"
PROMPT = "a paper boat crosses a puddle"
FIRST = "https://img.example.net/first.jpg"
LAST = "https://img.example.net/last.jpg"
VIDEO_ID = "5a1c7e40-8d2f-4b39-9e67-0c4f1b2a3d51"
FILE_ID = "2e4d8b16-7c05-4f9a-a3d8-b1c6e0f57a93"
HEADERS = {"X-Request-Id": "r-1", "X-API-Version": "2026-04-01"}


def fixture(name):
    return json.loads((FIXTURES / f"{name}.json").read_text())


def body_of(extra_body=None, **arguments):
    """The body that these arguments are sent as, which Luma's own SDK judges."""
    body = agents.submission(merge_arguments({"user_prompt": PROMPT, **arguments}, extra_body)).body
    judge(body)
    return body


def read(content, status=200, headers=HEADERS):
    """What an answer means, given as a value, as bytes, or as the name of a fixture."""
    if isinstance(content, str):
        content = (FIXTURES / f"{content}.json").read_bytes()
    elif not isinstance(content, bytes):
        content = json.dumps(content).encode()
    return agents.read_generation(Answer(status, content, headers), "Asking")


def error_of(*answer, **headers):
    with pytest.raises(LumaApiError) as caught:
        read(*answer, **headers)
    return caught.value


class TestSubmission:
    @pytest.mark.parametrize(
        ("name", "arguments", "extra_body"),
        [
            ("text_to_video", {"resolution": "720p", "duration": "5s", "aspect_ratio": "16:9"}, None),
            ("text_to_video_10s", {"resolution": "1080p", "duration": "10s"}, None),
            ("first_frame_url", {"image_url": FIRST}, None),
            ("first_frame_inline", {"image_url": "data:image/png;base64,iVBORw0KGgo="}, None),
            ("first_frame_file", {}, {"video": {"start_frame": {"file_id": FILE_ID}}}),
            ("both_frames", {"duration": "5s", "image_url": FIRST, "image_end_url": LAST}, None),
            ("both_frames", {"duration": "5s"}, {"image_url": FIRST, "image_end_url": LAST}),
            ("loop", {"duration": "5s", "loop": True}, None),
            ("with_user_id", {}, {"user_id": "airflow:dag_a:run_7:submit"}),
            ("extend_backwards", {}, {"video": {"end_frame": {"generation_id": VIDEO_ID}}}),
            ("hdr_exr", {"resolution": "720p", "duration": "5s"}, {"video": {"hdr": True, "exr_export": True}}),
            (
                "keyframes",
                {"duration": "10s"},
                {"video": {"keyframes": [{"url": FIRST}, {"url": LAST}], "keyframe_indexes": [0, 240]}},
            ),
            (
                "video_edit",
                {"user_prompt": "as a pencil drawing", "resolution": "720p"},
                {
                    "type": "video_edit",
                    "source": {"url": "https://img.example.net/in.mp4", "media_type": "video/mp4"},
                    "video": {"edit": {"strength": "flex_2"}},
                },
            ),
            (
                "video_reframe",
                {"user_prompt": "more street on both sides", "aspect_ratio": "9:16", "resolution": "720p"},
                {"type": "video_reframe", "source": {"generation_id": VIDEO_ID}},
            ),
        ],
    )
    def test_each_kind_of_submission_is_sent_as_its_fixture(self, name, arguments, extra_body):
        assert body_of(extra_body, **arguments) == fixture(f"requests/{name}")

    def test_an_extension_is_a_submission_with_the_earlier_generation_as_first_frame(self):
        request = agents.extension(VIDEO_ID, {"user_prompt": PROMPT})
        judge(request.body)
        assert (request.method, request.path, request.body) == ("POST", "/generations", fixture("requests/extend"))

    @pytest.mark.parametrize(("argument", "field"), [("image_url", "start_frame"), ("image_end_url", "end_frame")])
    @pytest.mark.parametrize(
        "uri",
        ["data:image/webp;base64,UklGRg==", "DATA:image/webp;BASE64,UklGRg==", "data:image/webp;q=1;base64,UklGRg=="],
    )
    def test_a_data_uri_is_sent_as_what_follows_its_comma_with_its_media_type(self, argument, field, uri):
        frame = {"data": "UklGRg==", "media_type": "image/webp"}
        assert body_of(**{argument: uri})["video"] == {field: frame}

    @pytest.mark.parametrize("resolution", ["360p", "540p", "720p", "1080p"])
    @pytest.mark.parametrize("duration", ["5s", "10s"])
    def test_each_resolution_goes_with_each_duration(self, resolution, duration):
        given = {"resolution": resolution, "duration": duration}
        assert body_of(**given)["video"] == given

    @pytest.mark.parametrize("aspect_ratio", ["9:16", "3:4", "1:1", "4:3", "16:9", "21:9"])
    def test_each_aspect_ratio_is_sent_beside_the_video(self, aspect_ratio):
        body = body_of(aspect_ratio=aspect_ratio)
        assert (body["aspect_ratio"], "video" in body) == (aspect_ratio, False)

    def test_an_image_can_be_asked_for_always_with_its_type(self):
        body = body_of(
            {"type": "image", "output_format": "png"},
            user_prompt="a paper boat",
            model_name="uni-1",
            aspect_ratio="16:9",
        )
        assert body == {**fixture("requests/image"), "type": "image"}

    def test_video_in_extra_body_is_merged_with_what_the_arguments_become(self):
        body = body_of({"video": {"hdr": True}}, resolution="1080p")
        assert body["video"] == {"resolution": "1080p", "hdr": True}

    @pytest.mark.parametrize(
        ("arguments", "extra_body", "field"),
        [
            ({"duration": "5s"}, {"video": {"duration": "5s"}}, "'s video: duration"),
            ({"image_url": FIRST}, {"video": {"start_frame": {"file_id": FILE_ID}}}, "'s video: start_frame"),
            ({}, {"prompt": "another"}, ": prompt"),
            ({"model_name": "ray-3.2"}, {"model": "ray-3.2"}, ": model"),
            ({"aspect_ratio": "1:1"}, {"aspect_ratio": "1:1"}, ": aspect_ratio"),
        ],
    )
    def test_a_field_given_both_as_an_argument_and_in_extra_body_is_refused(self, arguments, extra_body, field):
        with pytest.raises(LumaInvalidRequest, match=f"Given twice, as an argument and in extra_body{field}"):
            body_of(extra_body, **arguments)

    def test_an_argument_inside_extra_body_follows_the_arguments_rules(self):
        assert body_of({"loop": True}) == body_of(loop=True)
        with pytest.raises(LumaInvalidRequest, match="has no notify_hook"):
            body_of({"notify_hook": "https://example.com"})
        with pytest.raises(LumaInvalidRequest, match="has no image_url"):
            agents.extension(VIDEO_ID, merge_arguments({"user_prompt": PROMPT}, {"image_url": FIRST}))

    @pytest.mark.parametrize("video", [None, [], "loop"])
    def test_video_in_extra_body_must_be_a_dict(self, video):
        with pytest.raises(LumaInvalidRequest, match="extra_body's video must be a dict"):
            body_of({"video": video})

    def test_an_images_url_may_begin_with_https_in_capitals(self):
        assert body_of(image_url="HTTPS" + FIRST[5:])["video"]["start_frame"] == {"url": "HTTPS" + FIRST[5:]}

    def test_what_does_not_go_together_in_a_video_may_do_so_in_another_type(self):
        """Each type has rules of its own, which are Luma's to check."""
        extra_body = {"type": "video_edit", "source": {"generation_id": VIDEO_ID}, "video": {"hdr": True}}
        given = merge_arguments({"user_prompt": PROMPT, "resolution": "540p"}, extra_body)
        assert agents.submission(given).body["video"] == {"resolution": "540p", "hdr": True}

    def test_values_newer_than_this_package_are_let_through(self):
        newer = {"model_name": "ray-4", "duration": "15s", "aspect_ratio": "2:1"}
        body = agents.submission({"user_prompt": PROMPT, **newer}).body
        assert (body["model"], body["video"], body["aspect_ratio"]) == ("ray-4", {"duration": "15s"}, "2:1")

    def test_each_submission_has_a_request_id_of_its_own_and_a_poll_has_none(self):
        ids = {agents.submission({"user_prompt": PROMPT}).request_id for _ in range(2)}
        assert len(ids) == 2
        assert agents.query(VIDEO_ID).request_id is None

    def test_prompts_of_1_and_of_6000_characters_are_accepted(self):
        assert body_of(user_prompt="x")
        assert body_of(user_prompt="x" * 6000)


class TestRefused:
    """What is refused, by name, before anything is sent."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"expand_prompt": True}, "Luma's own API has no expand_prompt. The prompt is used as it is written"),
            ({"expand_prompt": False}, "has no expand_prompt"),
            ({"notify_hook": "https://example.com/x"}, "has no notify_hook.*wait with LumaGenerationSensor"),
            ({"model_name": "ray-v1"}, "model_name ray-v1 is a gateway's.*leave it out for ray-3.2"),
            ({"model_name": "ray-v2"}, "model_name ray-v2 is a gateway's"),
            (
                {"user_prompt": None, "image_url": FIRST},
                "user_prompt is needed on Luma's own API, also beside an image",
            ),
            ({"user_prompt": "x" * 6001}, "1 to 6,000 characters, got 6,001"),
            ({"image_url": "http://img.example.net/x.png"}, "image_url is an https URL"),
            ({"image_end_url": "http://img.example.net/x.png"}, "image_end_url is an https URL"),
            ({"image_url": "s3://bucket/x.png"}, "LumaGenerateVideoOperator also takes a path in storage"),
            ({"image_url": "data:image/png,AAAA"}, "a data: URI with an image type and base64"),
            ({"image_url": "data:;base64,AAAA"}, "a data: URI with an image type and base64"),
            ({"image_url": "data:image/png;base64,"}, "a data: URI with an image type and base64"),
        ],
    )
    def test_an_argument_without_a_counterpart_is_refused_by_name_with_what_there_is_instead(self, arguments, message):
        with pytest.raises(LumaInvalidRequest, match=message):
            body_of(**arguments)

    @pytest.mark.parametrize("image", ["image_url", "image_end_url"])
    def test_an_extension_takes_no_image(self, image):
        with pytest.raises(LumaInvalidRequest, match=f"has no {image}. The generation that is extended"):
            agents.extension(VIDEO_ID, {"user_prompt": PROMPT, image: FIRST})

    @pytest.mark.parametrize(
        ("arguments", "video", "message"),
        [
            (
                {"duration": "10s", "image_url": FIRST},
                {},
                r"duration 10s does not go with image_url \(video.start_frame",
            ),
            ({"duration": "10s", "image_end_url": LAST}, {}, "10s does not go with image_end_url.*keyframes"),
            ({"duration": "10s", "loop": True}, {}, "loop does not go with duration 10s"),
            ({"duration": "10s", "resolution": "720p"}, {"hdr": True}, "hdr does not go with duration 10s"),
            ({"loop": True}, {"hdr": True}, "loop does not go with hdr"),
            ({"loop": True, "image_end_url": LAST}, {}, "loop does not go with image_end_url"),
            ({"loop": True}, {"keyframes": [{"url": FIRST}]}, "loop does not go with keyframes"),
            ({"resolution": "360p"}, {"hdr": True}, "hdr does not go with resolution 360p.*needs 720p"),
            ({"resolution": "540p"}, {"hdr": True}, "hdr does not go with resolution 540p"),
            ({"image_url": FIRST}, {"keyframes": [{"url": LAST}]}, "keyframes does not go with image_url"),
            ({"image_end_url": LAST}, {"keyframes": [{"url": FIRST}]}, "keyframes does not go with image_end_url"),
        ],
    )
    def test_arguments_that_do_not_go_together_are_refused_by_name(self, arguments, video, message):
        with pytest.raises(LumaInvalidRequest, match=message):
            body_of({"video": video}, **arguments)

    @pytest.mark.parametrize(
        ("video", "message"),
        [
            ({"end_frame": {"url": LAST}}, "extending an earlier generation does not go with another frame"),
            ({"hdr": True}, "extending an earlier generation does not go with hdr"),
            ({"duration": "10s"}, "extending an earlier generation does not go with duration 10s.*It makes 5 s"),
        ],
    )
    def test_what_does_not_go_with_extending_is_refused(self, video, message):
        with pytest.raises(LumaInvalidRequest, match=message):
            agents.extension(VIDEO_ID, {"user_prompt": PROMPT, "video": video})

    @pytest.mark.parametrize(
        ("arguments", "video"),
        [
            ({"loop": False, "duration": "10s"}, {}),
            ({"duration": "10s", "resolution": "720p"}, {"hdr": True, "keyframes": [{"url": FIRST}]}),
            ({"loop": True, "image_url": FIRST}, {}),
        ],
    )
    def test_arguments_that_go_together_are_sent(self, arguments, video):
        assert body_of({"video": video}, **arguments)

    def test_an_extension_may_loop(self):
        assert agents.extension(VIDEO_ID, {"user_prompt": PROMPT, "video": {"loop": True}}).body["video"]["loop"]


def sandbox_takes(body):
    """Whether the sandbox, whose rules somebody else wrote from the same contract, takes a submission."""
    try:
        agents_rules.check(body, lambda _: "completed")
    except agents_rules.InvalidSubmission:
        return False
    return True


FRAMES = ({}, {"start_frame": {"url": FIRST}}, {"start_frame": {"generation_id": VIDEO_ID}})
VIDEOS = [
    {key: value for part in parts for key, value in part.items()}
    for parts in product(
        ({}, {"duration": "5s"}, {"duration": "10s"}),
        ({}, {"resolution": "540p"}, {"resolution": "1080p"}),
        ({}, {"loop": False}, {"loop": True}),
        FRAMES,
        ({}, {"end_frame": {"url": LAST}}, {"end_frame": {"generation_id": VIDEO_ID}}),
        ({}, {"hdr": True}),
        ({}, {"keyframes": [{"url": FIRST}], "keyframe_indexes": [0]}),
    )
]


def test_every_combination_is_refused_exactly_where_the_sandbox_would_refuse_it(monkeypatch):
    refused = {}
    for number, video in enumerate(VIDEOS):
        try:
            agents.submission({"user_prompt": PROMPT, "video": video})
        except LumaInvalidRequest:
            refused[number] = video
    monkeypatch.setattr(agents, "_check_together", lambda *_: None)
    bodies = [agents.submission({"user_prompt": PROMPT, "video": video}).body for video in VIDEOS]
    assert refused == {number: video for number, video in enumerate(VIDEOS) if not sandbox_takes(bodies[number])}
    assert 0 < len(refused) < len(VIDEOS)


class TestParsed:
    """What is refused when a DAG is parsed, where the connection's API is not known yet."""

    @pytest.mark.parametrize(
        "arguments",
        [
            {"user_prompt": "ab"},
            {"user_prompt": "x" * 5500},
            {"user_prompt": None, "image_url": FIRST},
            {"user_prompt": PROMPT, "expand_prompt": True, "model_name": "ray-v2"},
            {"user_prompt": PROMPT, "image_url": FIRST, "duration": "10s"},
        ],
    )
    def test_arguments_that_are_good_for_one_api_pass_when_a_dag_is_parsed(self, arguments):
        check_arguments(arguments, None)

    @pytest.mark.parametrize(
        "arguments",
        [{"user_prompt": "x" * 6001}, {"user_prompt": PROMPT, "loop": True, "image_end_url": LAST}, {"duration": "5s"}],
    )
    def test_arguments_that_are_wrong_for_both_apis_are_refused_when_a_dag_is_parsed(self, arguments):
        with pytest.raises(LumaInvalidRequest):
            check_arguments(arguments, None)

    def test_a_template_counts_as_given_with_a_value_that_may_be_right(self):
        templated = ["user_prompt", "model_name", "duration", "resolution", "aspect_ratio", "image_url"]
        agents.submission(dict.fromkeys(templated, Template("{{ x }}")))
        with pytest.raises(LumaInvalidRequest, match="10s does not go with image_url"):
            agents.submission({"user_prompt": PROMPT, "duration": "10s", "image_url": Template("{{ x }}")})


class TestGeneration:
    @pytest.mark.parametrize(
        ("name", "state"),
        [
            ("submit_created", GenerationState.PENDING),
            ("get_queued", GenerationState.PENDING),
            ("get_processing", GenerationState.PROCESSING),
            ("get_unknown_model", GenerationState.PROCESSING),
            ("get_completed", GenerationState.COMPLETED),
            ("get_unknown_state", GenerationState.UNKNOWN),
        ],
    )
    def test_each_state_is_understood_and_an_unknown_one_is_no_end(self, name, state):
        generation = read(name)
        assert (generation.id, generation.state) == (VIDEO_ID, state)
        assert generation.state_name == fixture(name)["state"]
        assert generation.created_at.to_iso8601_string() == "2026-07-15T09:30:00Z"
        assert generation.raw == fixture(name)

    @pytest.mark.parametrize("name", ["get_completed", "get_completed_fields_left_out", "get_completed_hdr_exr"])
    def test_the_video_is_the_first_output_of_that_type(self, name):
        generation = read(name)
        assert generation.state is GenerationState.COMPLETED
        assert generation.video_url.startswith("https://storage.example.net/a/5a1c/out.mp4?")
        assert generation.failure_reason is None

    @pytest.mark.parametrize(
        "name",
        [
            "get_completed_output_null",
            "get_completed_without_output",
            "get_image_completed",
            "get_layering_completed",
            "get_queued",
        ],
    )
    def test_an_answer_without_a_video_has_no_video_url(self, name):
        assert read(name).video_url is None

    @pytest.mark.parametrize("name", sorted(path.stem for path in FIXTURES.glob("file_*.json")))
    def test_a_file_which_no_call_here_asks_for_is_never_taken_for_a_completed_generation(self, name):
        generation = read(name)
        assert generation.state is not GenerationState.COMPLETED
        assert generation.video_url is None

    def test_what_this_api_does_not_say_is_none(self):
        generation = read("get_completed")
        unknown = ("download_url", "thumbnail_url", "last_frame_url", "width", "height", "duration", "finished_at")
        assert [getattr(generation, name) for name in unknown] == [None] * len(unknown)
        assert Generation.from_dict(generation.as_dict()).video_url == generation.video_url

    @pytest.mark.parametrize(
        ("name", "code", "moderated", "retry_may_help"),
        [
            ("get_failed_moderated", "content_moderated", True, False),
            ("get_failed_generation", "generation_failed", False, True),
            ("get_failed_output_not_found", "output_not_found", False, True),
            ("get_failed_rate_limited", "rate_limited", False, True),
            ("get_failed_budget", "budget_exhausted", False, False),
            ("get_failed_image_too_large", "image_too_large", False, False),
            ("get_failed_unsupported_format", "unsupported_format", False, False),
            ("get_failed_corrupt_input", "corrupt_input", False, False),
            ("get_failed_invalid_request", "invalid_request", False, False),
            ("get_failed_unknown_code", "solar_flare", False, False),
            ("get_failed_without_code", None, False, False),
        ],
    )
    def test_the_failure_code_decides_whether_it_is_moderation_and_whether_a_retry_may_help(
        self, name, code, moderated, retry_may_help
    ):
        generation = read(name)
        reason = fixture(name)["failure_reason"]
        assert generation.state is GenerationState.FAILED
        assert generation.failure_reason == (f"{code}: {reason}" if code else reason)
        assert (generation.moderated, generation.retry_may_help) == (moderated, retry_may_help)
        assert LumaGenerationFailed(generation).retry_may_help is retry_may_help

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"null",
            b"[]",
            b'"x"',
            b'{"id": "x", "sta',
            b"<html></html>",
            {"id": VIDEO_ID},
            {"state": "queued"},
            {"id": " ", "state": "queued"},
            {"id": 7, "state": "queued"},
            *[json.dumps(fixture(path.stem)).encode() for path in FIXTURES.glob("files_*.json")],
        ],
    )
    @pytest.mark.parametrize("status", [200, 201])
    def test_a_success_without_a_generation_leaves_it_unknown_whether_it_was_charged(self, content, status):
        error = error_of(content, status)
        assert isinstance(error, LumaServerError)
        assert error.maybe_charged

    @pytest.mark.parametrize(
        "field",
        [
            {"output": [None, 7, {"type": "video"}, {"type": "video", "url": 7}]},
            {"output": {"type": "video"}},
            {"created_at": "soon"},
            {"failure_code": 7, "failure_reason": []},
        ],
    )
    def test_nonsense_in_one_field_does_not_hide_the_others(self, field):
        generation = read({**fixture("get_completed"), **field})
        assert (generation.id, generation.state) == (VIDEO_ID, GenerationState.COMPLETED)


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "status", "kind", "advice"),
        [
            ("error_bad_request", 400, LumaInvalidRequest, "Change the request"),
            ("error_unknown_model", 400, LumaInvalidRequest, "Change the request"),
            ("error_unauthorized", 401, LumaAuthenticationError, "Check the API key"),
            ("error_key_revoked", 401, LumaAuthenticationError, "Check the API key"),
            ("error_insufficient_balance", 402, LumaQuotaError, "Top up"),
            ("error_suspended", 403, LumaAuthenticationError, "Ask Luma"),
            ("error_not_found", 404, LumaNotFound, "account that the key belongs to"),
            ("error_too_large", 413, LumaInvalidRequest, "Change the request"),
            ("error_unprocessable", 422, LumaInvalidRequest, "Change the request"),
            ("error_validation", 422, LumaInvalidRequest, "Change the request"),
            ("error_rate_limited", 429, LumaRateLimited, "an Airflow pool"),
            ("error_concurrent_jobs", 429, LumaRateLimited, "an Airflow pool"),
            ("error_upstream", 502, LumaServerError, "try again later"),
            ("error_ingestion", 503, LumaServerError, "try again later"),
        ],
    )
    def test_each_documented_error_has_its_class_text_request_id_and_advice_and_is_not_charged(
        self, name, status, kind, advice
    ):
        error = error_of(name, status)
        detail = fixture(name)["detail"]
        said = detail if isinstance(detail, str) else "body.video.duration: Input should be '5s' or '10s'"
        assert type(error) is kind
        assert (error.status, error.request_id) == (status, "r-1")
        assert f"HTTP {status}, {said}. " in str(error)
        assert advice in str(error)
        assert not getattr(error, "maybe_charged", False)

    @pytest.mark.parametrize("status", [408, 500, 504, 520])
    def test_undocumented_trouble_leaves_it_unknown_whether_it_was_charged(self, status):
        error = error_of({"detail": "Internal server error"}, status)
        assert isinstance(error, LumaServerError)
        assert error.maybe_charged

    @pytest.mark.parametrize(
        ("content", "headers"), [(b"<html></html>", HEADERS), (b"", HEADERS), ({"detail": "Bad gateway"}, {})]
    )
    @pytest.mark.parametrize("status", [401, 403, 500, 502, 503, 504])
    def test_an_answer_from_something_in_between_is_no_verdict_on_the_key_and_no_refusal(
        self, status, content, headers
    ):
        error = error_of(content, status, headers)
        assert type(error) is LumaServerError
        assert error.maybe_charged
        assert "This did not come from Luma's own API" in str(error)

    def test_an_unknown_id_is_told_from_a_host_without_that_call(self):
        assert error_of("error_not_found", 404).unknown_id
        other = error_of({"detail": "Not Found"}, 404, {"X-Request-Id": "r-1"})
        assert (other.unknown_id, other.from_api) == (False, True)
        page = error_of(b"<html></html>", 404, {})
        assert (page.unknown_id, page.from_api) == (False, False)

    @pytest.mark.parametrize("seconds", [1, 60])
    def test_retry_after_is_kept_also_of_an_answer_without_a_body(self, seconds):
        assert error_of("error_rate_limited", 429, {**HEADERS, "Retry-After": str(seconds)}).retry_after == seconds
        assert error_of(b"", 429, {"Retry-After": str(seconds)}).retry_after == seconds

    def test_a_redirect_is_an_error_that_does_not_show_where_it_leads(self):
        error = error_of(b"", 302, {"Location": "https://elsewhere.example.com/?key=secret"})
        assert isinstance(error, LumaInvalidRequest)
        assert "a redirect, which is not followed. Set the host" in str(error)
        assert "secret" not in str(error)

    @pytest.mark.parametrize("detail", [[], {}, 7, None, [7], [{"loc": "x", "msg": None}]])
    def test_an_error_without_readable_detail_is_still_an_error(self, detail):
        assert error_of({"detail": detail}, 400).status == 400


class TestDialect:
    def test_there_is_no_batch_query_and_a_limit_on_single_polls(self):
        assert (agents.BATCH_SIZE, agents.REQUESTS_PER_SECOND) == (1, 19.5)
        with pytest.raises(LumaNotFound, match="no batch query"):
            agents.batch_query([VIDEO_ID])

    def test_a_generation_id_cannot_lead_to_another_path(self):
        assert agents.query("../x?y").path == "/generations/..%2Fx%3Fy"

    @pytest.mark.parametrize(
        ("typed", "url"),
        [
            ("", "https://agents.lumalabs.ai/v1"),
            ("agents.lumalabs.ai", "https://agents.lumalabs.ai/v1"),
            ("https://agents.lumalabs.ai/v1/", "https://agents.lumalabs.ai/v1"),
            ("https://agents.lumalabs.ai/v1/generations", "https://agents.lumalabs.ai/v1"),
            ("proxy.example.com/luma", "https://proxy.example.com/luma/v1"),
            ("localhost:8787", "http://localhost:8787/v1"),
            ("http://localhost:8787/v1", "http://localhost:8787/v1"),
        ],
    )
    def test_a_host_works_with_and_without_v1_at_its_end(self, typed, url):
        assert base_url(typed, DIALECTS["agents"]) == url


class TestChoice:
    """Which API a connection speaks, and where a key of Luma's may go."""

    @pytest.mark.parametrize(
        ("chosen", "host", "token", "dialect"),
        [
            (None, None, "sk-1", "gateway"),
            ("", "", "sk-1", "gateway"),
            (None, None, "luma-api-1", "agents"),
            (None, " ", "Bearer luma-api-1", "agents"),
            (None, "agents.lumalabs.ai", "luma-api-1", "agents"),
            (None, "https://Agents.LumaLabs.ai/v1", "anything", "agents"),
            (None, "agents.lumalabs.ai.", "luma-api-1", "agents"),
            (None, "gateway.example.com", "sk-1", "gateway"),
            (None, "lumalabs.ai", "sk-1", "gateway"),
            ("agents", "proxy.example.com", "own-key", "agents"),
            ("agents", "proxy.example.com", "luma-own-key", "agents"),
            ("Agents ", None, "own-key", "agents"),
            ("gateway", "gateway.example.com", "luma-api-1", "gateway"),
            ("gateway", None, "luma-1", "gateway"),
        ],
    )
    def test_the_choice_counts_before_the_host_and_the_host_before_the_key(self, chosen, host, token, dialect):
        assert choose_dialect(chosen, host, token) == dialect

    @pytest.mark.parametrize(
        "host", ["gateway.example.com", "lumalabs.ai", "http://127.0.0.1:1", "agents.lumalabs.ai.x.io"]
    )
    @pytest.mark.parametrize("token", ["luma-api-1", "luma-1", "Bearer luma-api-1", "LUMA-API-1", "'luma-api-1'"])
    def test_a_luma_key_is_never_sent_to_a_gateway(self, host, token):
        with pytest.raises(
            LumaInvalidRequest, match=r"a key of Luma's own, which is not sent to .*set the extra 'api'"
        ):
            choose_dialect(None, host, token)

    @pytest.mark.parametrize(
        ("chosen", "host", "token"),
        [
            (None, None, "luma-1"),
            (None, "agents.lumalabs.ai", "luma-1"),
            ("agents", None, "luma-1"),
            (None, "api.lumalabs.ai", "luma-api-1"),
            ("gateway", "https://api.lumalabs.ai/dream-machine/v1", "luma-1"),
            ("agents", "api.lumalabs.ai", "sk-1"),
        ],
    )
    def test_the_key_and_the_host_of_the_former_api_are_refused(self, chosen, host, token):
        with pytest.raises(LumaInvalidRequest, match=r"former API .* is not supported.* begins with luma-api-"):
            choose_dialect(chosen, host, token)

    @pytest.mark.parametrize("chosen", ["dream-machine", "true", 7])
    def test_an_unknown_choice_of_api_is_refused(self, chosen):
        with pytest.raises(LumaInvalidRequest, match="the extra 'api' must be gateway or agents, got"):
            choose_dialect(chosen, None, "sk-1")
