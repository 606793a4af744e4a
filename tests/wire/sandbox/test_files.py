"""The sandbox's CDN: clips, ranges, expiry and failures."""

from __future__ import annotations

from http.client import IncompleteRead

import pytest

from airflow_provider_luma.sandbox import Sandbox
from airflow_provider_luma.sandbox.clips import CLIPS, FOLDER, VERTICAL, pick
from tests.support.sandbox_calls import AGENTS, GATEWAY, call

submitted_id, query = GATEWAY.submitted_id, GATEWAY.query


def download(sandbox, url, *, method="GET", headers=None):
    return call(sandbox, method, url.removeprefix(sandbox.url), headers=headers or {})


def gateway_url(sandbox):
    """Submit to the gateway, and return the URL of the video."""
    generation_id = submitted_id(sandbox)
    return lambda: query(sandbox, generation_id).json["video"]["url"]


def agents_url(sandbox):
    """Submit to Luma's own API, and return the URL of the video."""
    generation_id = AGENTS.submitted_id(sandbox)
    return lambda: AGENTS.query(sandbox, generation_id).json["output"][0]["url"]


class TestDownloads:
    @pytest.mark.parametrize(
        ("file", "kind"),
        [
            ("video.mp4", "video/mp4"),
            ("video_raw.mp4", "video/mp4"),
            ("thumbnail.jpg", "image/jpeg"),
            ("last_frame.jpg", "image/jpeg"),
        ],
    )
    def test_sends_whole_and_part(self, file, kind, sandbox):
        """Every file of a completed generation can be downloaded as a whole and in part."""
        path = f"/cdn/{submitted_id(sandbox)}/{file}"
        whole = download(sandbox, path)
        assert (whole.status, whole.kind) == (200, kind)
        assert whole.headers["accept-ranges"] == "bytes"
        assert whole.headers["etag"]
        part = download(sandbox, path, headers={"Range": "bytes=100-199"})
        assert (part.status, part.content) == (206, whole.content[100:200])
        assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
        head = download(sandbox, path, method="HEAD")
        assert (head.status, head.content) == (200, b"")
        assert int(head.headers["content-length"]) == len(whole.content)
        assert (sandbox.report()["downloads"], sandbox.report()["tokens_at_cdn"]) == (3, 0)

    def test_url_has_clients_host(self, sandbox):
        """The URL of a file has the host of the client's request."""
        generation_id = submitted_id(sandbox)
        assert query(sandbox, generation_id).json["video"]["url"] == f"{sandbox.url}/cdn/{generation_id}/video.mp4"
        elsewhere = query(sandbox, generation_id, headers={**GATEWAY.headers, "Host": "luma.test:99"}).json
        assert elsewhere["last_frame"]["url"] == f"http://luma.test:99/cdn/{generation_id}/last_frame.jpg"

    def test_only_completed_has_files(self, slow_sandbox, clock):
        """A generation has files only after it is completed, and an unknown file is not found."""
        generation_id = submitted_id(slow_sandbox)
        assert download(slow_sandbox, f"/cdn/{generation_id}/video.mp4").status == 404
        clock.now += 10
        assert download(slow_sandbox, f"/cdn/{generation_id}/video.mp4").status == 200
        assert download(slow_sandbox, f"/cdn/{generation_id}/boat.mp4").status == 404

    def test_counts_tokens_at_cdn(self, sandbox):
        """The report counts the tokens that reach the CDN."""
        download(sandbox, f"/cdn/{submitted_id(sandbox)}/thumbnail.jpg", headers=GATEWAY.headers)
        assert sandbox.report()["tokens_at_cdn"] == 1

    @pytest.mark.parametrize(
        ("url", "settings", "seconds"),
        [(gateway_url, {"url_seconds": 10}, 10), (agents_url, {"url_seconds": 5}, 5), (agents_url, {}, 3600)],
        ids=["gateway", "agents", "agents-hour"],
    )
    def test_url_of_file_expires(self, url, settings, seconds, clock):
        """The URL of a file expires, and a later query has a valid URL."""
        with Sandbox(seconds=0, clock=clock, **settings) as sandbox:
            url = url(sandbox)
            first = url()
            clock.now += seconds
            assert download(sandbox, first).status == 200
            clock.now += 1
            assert download(sandbox, first).status == 403
            assert download(sandbox, url()).content[4:8] == b"ftyp"

    def test_video_of_your_own(self, tmp_path):
        """The video can be a file of your own, and with `ranges=False` it is sent only as a whole."""
        video = tmp_path / "video.mp4"
        video.write_bytes(b"ftyp" * 1000)
        with Sandbox(seconds=0, video=str(video), ranges=False) as sandbox:
            answer = download(sandbox, f"/cdn/{submitted_id(sandbox)}/video.mp4", headers={"Range": "bytes=100-199"})
            assert (answer.status, answer.content) == (200, video.read_bytes())

    @pytest.mark.parametrize(
        ("failure", "status", "kind"),
        [
            ("403", 403, "text/html"),
            ("429", 429, "application/json"),
            ("500", 500, "text/html"),
            ("503", 503, "text/html"),
            ("html", 200, "text/html"),
            ("json", 200, "application/json"),
        ],
    )
    def test_fails_by_weather(self, failure, status, kind, sandbox):
        """The weather can answer a download with an error, a web page or JSON."""
        sandbox.weather(cdn={failure: 1})
        answer = download(sandbox, f"/cdn/{submitted_id(sandbox)}/video.mp4")
        assert (answer.status, answer.kind) == (status, kind)

    def test_cut_download_can_resume(self, sandbox):
        """The weather can cut a download after a twentieth of the file, from any start."""
        path = f"/cdn/{submitted_id(sandbox)}/video.mp4"
        whole = download(sandbox, path).content
        sandbox.weather(cdn={"cut": 1})
        for start in (0, 1000):
            with pytest.raises(IncompleteRead) as caught:
                download(sandbox, path, headers={"Range": f"bytes={start}-"})
            assert caught.value.partial == whole[start : start + len(whole) // 20 + 1]
            assert caught.value.expected == len(whole) - start - len(caught.value.partial)


class TestClips:
    def test_are_small_videos(self):
        """Every clip is a small H.264 video with a different first and last frame."""
        for clip in (*CLIPS, VERTICAL):
            video = clip.path("video.mp4").read_bytes()
            assert len(video) < 60 * 1024
            assert b"avc1" in video
            assert clip.path("thumbnail.jpg").read_bytes() != clip.path("last_frame.jpg").read_bytes()
        assert len(list(FOLDER.iterdir())) == 3 * (len(CLIPS) + 1)

    @pytest.mark.parametrize(
        ("aspect_ratio", "size"),
        [("9:16", [360, 640, 10.0]), ("3:4", [360, 640, 10.0]), ("16:9", [640, 360, 4.0]), ("1:1", [640, 360, 4.0])],
    )
    def test_vertical_ratio_has_vertical_clip(self, aspect_ratio, size, sandbox):
        """A vertical aspect ratio selects the vertical clip, and the answer has the clip's size."""
        generation_id = submitted_id(sandbox, "a boat", aspect_ratio=aspect_ratio)
        video = query(sandbox, generation_id).json["video_raw"]
        content = download(sandbox, f"/cdn/{generation_id}/video.mp4").content
        assert [video[name] for name in ("width", "height", "duration")] == size
        assert (content == VERTICAL.path("video.mp4").read_bytes()) is (size[0] < size[1])

    def test_prompt_decides_the_clip(self):
        """A prompt always has the same clip, and every clip is used."""
        prompts = [f"prompt {number}" for number in range(30)]
        assert [pick(prompt) for prompt in prompts] == [pick(prompt) for prompt in prompts]
        assert {pick(prompt) for prompt in prompts} == set(CLIPS)

    @pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.name)
    def test_word_selects_clip(self, clip):
        """The name of a clip in a prompt selects this clip."""
        assert pick(f"[fail] {clip.name.upper()}, please") is clip
