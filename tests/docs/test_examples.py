"""The examples run unchanged with each API; tests/system runs them in a real Airflow."""

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
    """Return the submitted bodies, one for each charge."""
    sent = [request.body for request in sandbox.requests if request.method == "POST"]
    assert len(sent) == sandbox.report()["charged"]
    return sent


@pytest.mark.luma_sandbox(api="agents")
class TestLumasOwnApi:
    @pytest.fixture(autouse=True)
    def judged(self, luma_sandbox):
        yield
        assert judge_submissions(luma_sandbox.requests) == luma_sandbox.report()["charged"] > 0

    def test_quickstart_submits_its_arguments(self, run, luma_sandbox):
        """The quickstart submits its length and size to Luma's default model."""
        run("example_luma_quickstart")
        (body,) = bodies(luma_sandbox)
        assert (body["model"], body["video"]) == ("ray-3.2", {"duration": "5s", "resolution": "720p"})

    def test_archive_stores_the_video(self, run, luma_sandbox, tmp_path):
        """The archive stores the video, and the token stays away from the CDN."""
        run("example_luma_archive")
        (made,) = luma_sandbox.report()["generations"]
        assert (tmp_path / f"{made['id']}.mp4").stat().st_size > 0
        assert luma_sandbox.report()["tokens_at_cdn"] == 0

    def test_extensions_form_a_chain(self, run, luma_sandbox):
        """Each extension continues the clip before it."""
        run("example_luma_extend")
        made = luma_sandbox.report()["generations"]
        assert [generation["parent"] for generation in made] == [None, made[0]["id"], made[1]["id"]]

    def test_stored_image_becomes_base64(self, run, luma_sandbox):
        """An image that a task has stored is sent within the request."""
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
def test_vertical_video_fits_the_api(body, run, luma_sandbox):
    """The shape and length of a vertical video have the names and places of each API."""
    run("example_luma_vertical")
    (sent,) = bodies(luma_sandbox)
    assert body.items() <= sent.items()
