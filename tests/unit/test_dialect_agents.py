"""The facts of Luma's own API: its bodies and codes. The contract of all dialects is in test_dialects.py."""

from __future__ import annotations

import pytest

from airflow_provider_luma.api import Generation, GenerationState, LumaApiError, LumaInvalidRequest
from airflow_provider_luma.api.dialects import agents
from tests.support.agents_judge import judge
from tests.support.dialects import CASES, fixture, polled

PROMPT = "a paper boat crosses a puddle"
FIRST = "https://img.example.net/first.jpg"
LAST = "https://img.example.net/last.jpg"
VIDEO_ID = "5a1c7e40-8d2f-4b39-9e67-0c4f1b2a3d51"
FILE_ID = "2e4d8b16-7c05-4f9a-a3d8-b1c6e0f57a93"


def body_of(extra=None, **arguments):
    """Return the body of a submission; Luma's own SDK judges it."""
    body = agents.submission({"user_prompt": PROMPT, **arguments}, extra).body
    judge(body)
    return body


def read(content, status=200, headers=None):
    return polled("agents", content, status, headers)


def error_of(content, status, headers=None):
    with pytest.raises(LumaApiError) as caught:
        read(content, status, headers)
    return caught.value


class TestRequest:
    @pytest.mark.parametrize(
        ("name", "arguments", "extra"),
        [
            ("text_to_video", {"resolution": "720p", "duration": "5s", "aspect_ratio": "16:9"}, None),
            ("text_to_video_10s", {"resolution": "1080p", "duration": "10s"}, None),
            ("first_frame_url", {"image_url": FIRST}, None),
            ("first_frame_inline", {"image_url": "data:image/png;base64,iVBORw0KGgo="}, None),
            ("first_frame_file", {}, {"video": {"start_frame": {"file_id": FILE_ID}}}),
            ("both_frames", {"duration": "5s", "image_url": FIRST, "image_end_url": LAST}, None),
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
    def test_each_kind_is_its_fixture(self, name, arguments, extra):
        """Each documented kind of submission can be made of arguments and extra_body."""
        assert body_of(extra, **arguments) == fixture("agents", f"requests/{name}")

    def test_image_is_another_type(self):
        """An image can be submitted; its type is always sent."""
        arguments = {"user_prompt": "a paper boat", "model_name": "uni-1", "aspect_ratio": "16:9"}
        body = body_of({"type": "image", "output_format": "png"}, **arguments)
        assert body == {**fixture("agents", "requests/image"), "type": "image"}

    def test_extension_is_a_submission(self):
        """The generation to extend is the first frame; extra_body may add to the video."""
        request = agents.extension(VIDEO_ID, {"user_prompt": PROMPT}, None)
        judge(request.body)
        assert (request.method, request.path) == ("POST", "/generations")
        assert request.body == fixture("agents", "requests/extend")
        looped = agents.extension(VIDEO_ID, {"user_prompt": PROMPT}, {"video": {"loop": True}}).body
        assert looped["video"] == {"start_frame": {"generation_id": VIDEO_ID}, "loop": True}

    @pytest.mark.parametrize(("argument", "field"), [("image_url", "start_frame"), ("image_end_url", "end_frame")])
    @pytest.mark.parametrize(
        "uri",
        ["data:image/webp;base64,UklGRg==", "DATA:image/webp;BASE64,UklGRg==", "data:image/webp;q=1;base64,UklGRg=="],
    )
    def test_data_uri_is_split(self, argument, field, uri):
        """An image in a data: URI is sent as its base64 and its media type."""
        frame = {"data": "UklGRg==", "media_type": "image/webp"}
        assert body_of(**{argument: uri})["video"] == {field: frame}

    def test_scheme_may_have_capitals(self):
        """A URL may begin with HTTPS in capitals."""
        url = "HTTPS" + FIRST[5:]
        assert body_of(image_url=url)["video"]["start_frame"] == {"url": url}

    @pytest.mark.parametrize("image", ["image_url", "image_end_url"])
    @pytest.mark.parametrize(
        "value",
        [
            "http://img.example.net/x.png",
            "s3://bucket/x.png",
            "data:image/png,AAAA",
            "data:;base64,AAAA",
            "data:image/png;base64,",
        ],
    )
    def test_other_image_is_refused(self, image, value):
        """An image that the API cannot have is refused before it is sent, with the forms that it accepts."""
        with pytest.raises(
            LumaInvalidRequest,
            match=f"On Luma's own API, {image} must be an https URL or a data: URI .*accepts a path in storage",
        ):
            body_of(**{image: value})

    @pytest.mark.parametrize("resolution", ["360p", "540p", "720p", "1080p"])
    @pytest.mark.parametrize("duration", ["5s", "10s"])
    def test_resolution_with_each_duration(self, resolution, duration):
        """Each documented resolution can be sent with each duration."""
        given = {"resolution": resolution, "duration": duration}
        assert body_of(**given)["video"] == given

    @pytest.mark.parametrize("aspect_ratio", ["9:16", "3:4", "1:1", "4:3", "16:9", "21:9"])
    def test_aspect_ratio_is_outside_video(self, aspect_ratio):
        """The aspect ratio is beside the video; a video without fields is not sent."""
        body = body_of(aspect_ratio=aspect_ratio)
        assert (body["aspect_ratio"], "video" in body) == (aspect_ratio, False)

    def test_newer_values_are_sent(self):
        """Values that are newer than this package are sent unchanged."""
        newer = {"model_name": "ray-4", "duration": "15s", "aspect_ratio": "2:1"}
        body = agents.submission({"user_prompt": PROMPT, **newer}, None).body
        assert (body["model"], body["video"], body["aspect_ratio"]) == ("ray-4", {"duration": "15s"}, "2:1")

    def test_video_is_merged(self):
        """The video of extra_body is merged with that of the arguments, one level deep."""
        body = body_of({"video": {"hdr": True}}, resolution="1080p")
        assert body["video"] == {"resolution": "1080p", "hdr": True}

    @pytest.mark.parametrize(
        ("arguments", "extra", "field"),
        [
            ({"duration": "5s"}, {"video": {"duration": "5s"}}, "'s video: duration"),
            ({"image_url": FIRST}, {"video": {"start_frame": {"file_id": FILE_ID}}}, "'s video: start_frame"),
            ({"model_name": "ray-3.2"}, {"model": "ray-3.2"}, ": model"),
            ({"aspect_ratio": "1:1"}, {"aspect_ratio": "1:1"}, ": aspect_ratio"),
        ],
    )
    def test_field_given_twice_is_refused(self, arguments, extra, field):
        """A field of the video, too, is refused if an argument has it already."""
        with pytest.raises(LumaInvalidRequest, match=f"Given twice, as an argument and in extra_body{field}"):
            body_of(extra, **arguments)
        with pytest.raises(LumaInvalidRequest, match=r"Given twice.*start_frame"):
            agents.extension(VIDEO_ID, {}, {"video": {"start_frame": {"file_id": FILE_ID}}})

    @pytest.mark.parametrize("video", [[], "loop"])
    def test_video_must_be_a_dict(self, video):
        """A video in extra_body that is not a dict is refused."""
        with pytest.raises(LumaInvalidRequest, match="extra_body's video must be a dict"):
            body_of({"video": video})

    @pytest.mark.parametrize("model", ["ray-v1", "ray-v2"])
    def test_gateway_model_is_refused(self, model):
        """A model of the gateway is refused with the model to use."""
        with pytest.raises(LumaInvalidRequest, match=f"{model} is a gateway model.*leave model_name out for ray-3.2"):
            body_of(model_name=model)

    def test_rules_are_left_to_luma(self):
        """Requests that the API refuses free of charge are sent: short prompts, fields that do not go together."""
        given = {"user_prompt": "", "duration": "10s", "loop": True, "image_url": FIRST, "image_end_url": LAST}
        assert {*agents.submission(given, None).body["video"]} == {"duration", "loop", "start_frame", "end_frame"}

    def test_submission_has_a_request_id(self):
        """Each submission has a request id of its own; a poll does not."""
        ids = {agents.submission({"user_prompt": PROMPT}, None).request_id for _ in range(2)}
        assert len(ids) == 2
        assert agents.query(VIDEO_ID).request_id is None

    def test_single_polls_have_a_pace(self):
        """Single polls stay below the guard against thousands of calls a minute."""
        assert agents.REQUESTS_PER_SECOND == 19.5


class TestGeneration:
    def test_video_is_the_first_output(self):
        """The video is the first output of that type."""
        outputs = [{"type": "image", "url": "a"}, {"type": "video", "url": "b"}, {"type": "video", "url": "c"}]
        assert read({"id": "x", "state": "completed", "output": outputs}).video_url == "b"
        for name in ("get_completed", "get_completed_fields_left_out", "get_completed_hdr_exr"):
            assert read(name).video_url.startswith("https://storage.example.net/a/5a1c/out.mp4?")

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
    def test_no_output_is_no_video(self, name):
        """An answer without a video has no video URL."""
        assert read(name).video_url is None

    @pytest.mark.parametrize("name", sorted(path.stem for path in CASES["agents"].folder.glob("file_*.json")))
    def test_file_is_no_video(self, name):
        """An answer about a file is never a completed generation."""
        generation = read(name)
        assert generation.state is not GenerationState.COMPLETED
        assert generation.video_url is None

    @pytest.mark.parametrize("name", ["files_page", "files_last_page"])
    def test_list_of_files_is_trouble(self, name):
        """A list of files is not a generation."""
        assert error_of(name, 200).from_api is False

    def test_unknown_fields_are_none(self):
        """Fields that this API does not have are None."""
        generation = read("get_completed")
        unknown = ("download_url", "thumbnail_url", "last_frame_url", "width", "height", "duration")
        assert [getattr(generation, name) for name in unknown] == [None] * len(unknown)
        assert Generation.from_dict(generation.as_dict()).video_url == generation.video_url

    @pytest.mark.parametrize(
        ("name", "code"),
        [("get_failed_moderated", "content_moderated: "), ("get_failed_without_code", "")],
    )
    def test_reason_begins_with_code(self, name, code):
        """The reason begins with the failure code, if there is one."""
        assert read(name).failure_reason == code + fixture("agents", name)["failure_reason"]

    @pytest.mark.parametrize(
        "field",
        [
            {"output": [None, 7, {"type": "video"}, {"type": "video", "url": 7}]},
            {"output": {"type": "video"}},
            {"created_at": "soon"},
            {"failure_code": 7, "failure_reason": []},
        ],
    )
    def test_wrong_field_hides_no_other(self, field):
        """A field of a wrong type does not hide the others."""
        generation = read({**fixture("agents", "get_completed"), **field})
        assert (generation.id, generation.state) == (VIDEO_ID, GenerationState.COMPLETED)


class TestError:
    @pytest.mark.parametrize(
        ("name", "status", "advice"),
        [
            ("error_bad_request", 400, "Change the request"),
            ("error_unauthorized", 401, "Check the API key of the connection."),
            ("error_insufficient_balance", 402, "Top up"),
            ("error_suspended", 403, "Ask Luma about the account"),
            ("error_not_found", 404, "belong to the account of this key?"),
            ("error_too_large", 413, "Change the request"),
            ("error_rate_limited", 429, "an Airflow pool"),
            ("error_upstream", 502, "try again later"),
        ],
    )
    def test_message_has_detail_and_advice(self, name, status, advice):
        """The message has Luma's text and an advice; the error has the request id."""
        error = error_of(name, status)
        assert error.request_id == "r-1"
        assert f"HTTP {status}, {fixture('agents', name)['detail'].rstrip('.')}" in str(error)
        assert advice in str(error)

    def test_list_of_details_is_text(self):
        """A list of wrong fields becomes one text with the place of each."""
        error = error_of("error_validation", 422)
        assert "HTTP 422, body.video.duration: Input should be '5s' or '10s'. " in str(error)

    @pytest.mark.parametrize("detail", [[], {}, 7, None])
    def test_unreadable_detail_is_trouble(self, detail):
        """An error without a readable text is not Luma's own."""
        assert error_of({"detail": detail}, 400).from_api is False

    @pytest.mark.parametrize("detail", [[7], [{"loc": "x", "msg": None}]])
    def test_odd_details_are_an_error(self, detail):
        """A list of details of another shape is still an error of the API."""
        assert error_of({"detail": detail}, 400).status == 400

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 502, 503])
    def test_missing_header_is_no_verdict(self, status):
        """An error without Luma's header was given by something in front of the API."""
        error = error_of({"detail": "Bad gateway"}, status, {"X-Request-Id": None})
        assert error.from_api is False
        assert error.maybe_charged is (status not in (400, 404))
        assert "Something in front of Luma's own API gave this answer" in str(error)

    def test_unknown_call_is_told(self):
        """A 404 without the API's version is about the call and not about the id."""
        assert error_of("error_not_found", 404).unknown_id is True
        other = error_of({"detail": "Not Found"}, 404, {"X-API-Version": None})
        assert (other.unknown_id, other.from_api) == (False, True)
