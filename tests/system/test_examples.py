"""The example DAGs, errors and the connection form in a real Airflow."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
import requests
from packaging.version import Version

from dev.local_airflow import EXAMPLE_DAGS
from tests.support.deployment import AIRFLOW
from tests.support.tokens import KEY, REFUSED_KEY, REFUSED_TOKEN, TOKEN

pytestmark = pytest.mark.together

GENERATION_FIELDS = [
    "id",
    "state",
    "video_url",
    "thumbnail_url",
    "last_frame_url",
    "width",
    "height",
    "duration",
    "created_at",
    "failure_reason",
]


def check_generation(generation, generation_id, api="gateway"):
    assert list(generation) == GENERATION_FIELDS
    assert generation["id"] == generation_id
    assert generation["state"] == "completed"
    assert generation["failure_reason"] is None
    if api == "gateway":
        assert (generation["width"], generation["height"]) == (640, 360)
        assert isinstance(generation["duration"], float)
    else:
        unknown = ("thumbnail_url", "last_frame_url", "width", "height", "duration")
        assert [generation[name] for name in unknown] == [None] * 5
    assert datetime.fromisoformat(generation["created_at"].replace("Z", "+00:00")).tzinfo
    assert requests.get(generation["video_url"], timeout=10).headers["Content-Type"] == "video/mp4"


def test_examples_are_parsed(deployment):
    """Airflow parses each example DAG without an error."""
    too_new = ["example_luma_approval"] if Version("3.1") > AIRFLOW else []
    examples = {path.stem for path in EXAMPLE_DAGS.glob("*.py")} - set(too_new)

    def parsed():
        return {one["dag_id"] for one in deployment.api("GET", "dags", params={"limit": 100})["dags"]}

    deployment.wait_for(lambda: examples <= parsed())
    assert [Path(one["filename"]).stem for one in deployment.import_errors()] == too_new


def test_quickstart_returns_generation(deployment, sandbox):
    """The task that submits returns the generation id, and the sensor returns the generation."""
    run_id = deployment.run_to_end("example_luma_quickstart")
    generation_id = deployment.xcom("example_luma_quickstart", run_id, "submit")
    assert generation_id in [one["id"] for one in sandbox.report()["generations"]]
    check_generation(deployment.xcom("example_luma_quickstart", run_id, "wait"), generation_id)
    assert "/video.mp4" in deployment.log("example_luma_quickstart", run_id, "show")


def test_deferred_task_pushes_generation(deployment):
    """A task that waits in the triggerer returns the id, pushes the generation, and logs each state once."""
    run_id = deployment.run_to_end("example_luma_deferrable", conf={"prompt": "The sun rises over a city"})
    generation_id = deployment.xcom("example_luma_deferrable", run_id, "generate")
    check_generation(deployment.xcom("example_luma_deferrable", run_id, "generate", "generation"), generation_id)
    log = deployment.log("example_luma_deferrable", run_id, "generate")
    assert log.count(f"Generation {generation_id} is completed.") == 1


def test_extensions_follow_each_other(deployment, sandbox):
    """Each extension begins at the video before it."""
    run_id = deployment.run_to_end("example_luma_extend")
    ids = [deployment.xcom("example_luma_extend", run_id, task) for task in ("generate", "extend", "extend_again")]
    parents = {one["id"]: one["parent"] for one in sandbox.report()["generations"]}
    assert [parents[one] for one in ids] == [None, *ids[:2]]


def test_mapped_tasks_show_prompts(deployment):
    """Each mapped task shows its prompt and has its own wait."""
    run_id = deployment.run_to_end("example_luma_mapped")
    for index in range(3):
        generation_id = deployment.xcom("example_luma_mapped", run_id, "submit", map_index=index)
        check_generation(deployment.xcom("example_luma_mapped", run_id, "wait", map_index=index), generation_id)
    assert deployment.task_instance("example_luma_mapped", run_id, "submit", 0)["rendered_map_index"] == (
        "A paper boat crosses a puddle"
    )


@pytest.mark.parametrize(("api", "connection_id"), [("gateway", "luma_default"), ("agents", "luma_own")])
def test_each_wait_ends_with_video(api, connection_id, deployment, sandboxes):
    """Each way to wait (worker, rescheduled, deferred) ends with the video, and each video is paid once."""
    prompt = f"A paper boat of every way, {api}"
    run_id = deployment.run_to_end("luma_bad_days", conf={"prompt": prompt, "luma_conn_id": connection_id})
    for task_id in ("wait", "defer"):
        generation_id = deployment.xcom("luma_bad_days", run_id, task_id)
        check_generation(deployment.xcom("luma_bad_days", run_id, task_id, "generation"), generation_id, api)
    generation_id = deployment.xcom("luma_bad_days", run_id, "submit")
    check_generation(deployment.xcom("luma_bad_days", run_id, "reschedule"), generation_id, api)
    paid = [one for one in sandboxes[connection_id].report()["generations"] if one["prompt"] == prompt]
    assert {one["id"] for one in paid} == {
        deployment.xcom("luma_bad_days", run_id, one) for one in ("submit", "wait", "defer")
    }
    assert {one["api"] for one in paid} == {api}
    assert len(paid) == 3


def test_moderated_prompt_is_not_retried(deployment):
    """If moderation refuses the prompt, each kind of wait fails at the first of two tries."""
    run_id = deployment.run_to_end("luma_bad_days", conf={"prompt": "A boat [moderated]"}, state="failed")
    for task_id in ("wait", "defer", "reschedule"):
        ti = deployment.task_instance("luma_bad_days", run_id, task_id)
        assert (ti["state"], ti["try_number"]) == ("failed", 1)
        assert "change the prompt or the images" in deployment.log("luma_bad_days", run_id, task_id)


def test_refused_token_is_not_retried(deployment):
    """If the token is refused, each kind of task fails at the first of two tries."""
    run_id = deployment.run_to_end("luma_bad_days", conf={"luma_conn_id": "luma_refused"}, state="failed")
    for task_id in ("submit", "wait", "defer"):
        ti = deployment.task_instance("luma_bad_days", run_id, task_id)
        assert (ti["state"], ti["try_number"]) == ("failed", 1)
        assert "Check the token" in deployment.log("luma_bad_days", run_id, task_id)


@pytest.mark.since("3.1")
def test_connection_form_fields(deployment):
    """The form has five labelled fields; those that a Luma connection does not use are hidden."""
    answer = requests.get(
        f"{deployment.url}/ui/connections/hook_meta",
        headers={"Authorization": f"Bearer {deployment.api_token()}"},
        timeout=30,
    )
    (form,) = [one for one in answer.json() if one["connection_type"] == "luma"]
    assert form["hook_name"] == "Luma"
    shown = {name: field for name, field in form["standard_fields"].items() if not (field or {}).get("hidden")}
    assert "leave empty for the default" in shown["host"]["placeholder"]
    assert shown["password"]["title"] == "API token"
    assert set(form["standard_fields"]) - set(shown) >= {"description", "login", "port", "url_schema"}
    assert {name: field["schema"]["title"] for name, field in form["extra_fields"].items()} == {
        "api": "API",
        "timeout": "Timeout (seconds)",
        "verify": "Verify TLS",
    }


@pytest.mark.parametrize(
    ("connection_id", "extra", "token", "said"),
    [
        ("luma_default", {}, TOKEN, "accepts the token"),
        ("luma_default", {}, REFUSED_TOKEN, "Check the token"),
        ("luma_own", {"api": "agents"}, KEY, "is Luma's own API and accepts the token"),
        ("luma_own", {"api": "agents"}, REFUSED_KEY, "Check the API key"),
        ("luma_default", {}, KEY, "which is not sent to 127.0.0.1"),
    ],
    ids=["good", "refused", "own-good", "own-refused", "own-misplaced"],
)
def test_connection_test_reports_token(connection_id, extra, token, said, deployment, sandboxes):
    """The test of a connection reports whether the API accepts its token."""
    fields = {"conn_type": "luma", "host": sandboxes[connection_id].url, "password": token, "extra": json.dumps(extra)}
    outcome = deployment.api("POST", "connections/test", json={"connection_id": "tried", **fields})
    assert outcome["status"] is ("accepts" in said)
    assert said in outcome["message"]


def listed(deployment, *command):
    """Return the list that a command prints. Airflow 3.0 prints its log before it."""
    return json.loads(deployment.command(*command, "--output", "json").splitlines()[-1])


def test_airflow_lists_provider(deployment):
    """Airflow lists the provider and its hook."""
    (found,) = listed(deployment, "providers", "get", "airflow-provider-luma")
    assert found["Version"]
    hooks = listed(deployment, "providers", "hooks")
    assert [one["hook_name"] for one in hooks if one["connection_type"] == "luma"] == ["Luma"]
