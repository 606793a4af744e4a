"""The examples run as they are, whichever API the connection leads to; tests/system runs them with a gateway."""

from __future__ import annotations

import pytest

from airflow_provider_luma.examples import EXAMPLES
from tests.support.agents_judge import judge_submissions

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def run(run_dag, tmp_path):
    """Run an example to its end."""

    def run(name):
        assert run_dag((EXAMPLES / f"{name}.py").read_text(), f"{tmp_path.as_uri()}/").state == "success"

    return run


def bodies(sandbox):
    """Return what was submitted, one body for each video paid."""
    sent = [request.body for request in sandbox.requests if request.method == "POST"]
    assert len(sent) == sandbox.report()["charged"]
    return sent


@pytest.mark.luma_sandbox(api="agents")
class TestLumasOwnApi:
    @pytest.fixture(autouse=True)
    def judged(self, luma_sandbox):
        yield
        assert judge_submissions(luma_sandbox.requests) == luma_sandbox.report()["charged"] > 0

    def test_quickstart(self, run, luma_sandbox):
        run("example_luma_quickstart")
        (body,) = bodies(luma_sandbox)
        assert (body["model"], body["video"]) == ("ray-3.2", {"duration": "5s", "resolution": "720p"})

    def test_archive_stores_the_video(self, run, luma_sandbox, tmp_path):
        run("example_luma_archive")
        (made,) = luma_sandbox.report()["generations"]
        assert (tmp_path / f"{made['id']}.mp4").stat().st_size > 0
        assert luma_sandbox.report()["tokens_at_cdn"] == 0

    def test_each_extension_begins_at_the_clip_before_it(self, run, luma_sandbox):
        run("example_luma_extend")
        made = luma_sandbox.report()["generations"]
        assert [one["parent"] for one in made] == [None, made[0]["id"], made[1]["id"]]

    def test_an_image_that_a_task_has_stored_is_sent_as_base64(self, run, luma_sandbox):
        run("example_luma_image_to_video")
        (body,) = bodies(luma_sandbox)
        frame = body["video"]["start_frame"]
        assert (sorted(frame), frame["media_type"]) == (["data", "media_type"], "image/png")
        assert frame["data"].startswith("iVBORw0KGgo")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(body, marks=pytest.mark.luma_sandbox(api=api), id=api)
        for api, body in {
            "gateway": {"aspect_ratio": "9:16", "duration": "10s", "resolution": "720p"},
            "agents": {"aspect_ratio": "9:16", "video": {"duration": "10s", "resolution": "720p"}},
        }.items()
    ],
)
def test_a_vertical_video_of_ten_seconds_is_asked_for_as_the_api_has_it(body, run, luma_sandbox):
    run("example_luma_vertical")
    (sent,) = bodies(luma_sandbox)
    assert body.items() <= sent.items()
