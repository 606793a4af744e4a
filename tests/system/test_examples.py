"""The example DAGs, and errors, in a real Airflow: scheduler, dag processor, triggerer and API server."""

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


def test_every_example_dag_is_parsed_without_an_error(deployment):
    too_new = ["example_luma_approval"] if Version("3.1") > AIRFLOW else []
    examples = {path.stem for path in EXAMPLE_DAGS.glob("*.py")} - set(too_new)

    def parsed():
        return {one["dag_id"] for one in deployment.api("GET", "dags", params={"limit": 100})["dags"]}

    deployment.wait_for(lambda: examples <= parsed())
    assert [Path(one["filename"]).stem for one in deployment.import_errors()] == too_new


def test_quickstart_returns_the_generation_id_and_then_the_generation(deployment, sandbox):
    """The task that submits returns the id, the sensor the generation."""
    run_id = deployment.run_to_end("example_luma_quickstart")
    generation_id = deployment.xcom("example_luma_quickstart", run_id, "submit")
    assert generation_id in [one["id"] for one in sandbox.report()["generations"]]
    check_generation(deployment.xcom("example_luma_quickstart", run_id, "wait"), generation_id)
    assert "/video.mp4" in deployment.log("example_luma_quickstart", run_id, "show")


def test_a_deferred_task_has_both_and_logs_each_state_once(deployment):
    """A task that waits in the triggerer returns the id, and has the generation under a key of its own."""
    run_id = deployment.run_to_end("example_luma_deferrable", conf={"prompt": "The sun rises over a city"})
    generation_id = deployment.xcom("example_luma_deferrable", run_id, "generate")
    check_generation(deployment.xcom("example_luma_deferrable", run_id, "generate", "generation"), generation_id)
    log = deployment.log("example_luma_deferrable", run_id, "generate")
    assert log.count(f"Generation {generation_id} is completed.") == 1


def test_each_extension_begins_at_the_clip_before_it(deployment, sandbox):
    run_id = deployment.run_to_end("example_luma_extend")
    ids = [deployment.xcom("example_luma_extend", run_id, task) for task in ("opening", "middle", "ending")]
    parents = {one["id"]: one["parent"] for one in sandbox.report()["generations"]}
    assert [parents[one] for one in ids] == [None, *ids[:2]]


def test_mapped_tasks_show_their_prompt_and_have_a_wait_each(deployment):
    run_id = deployment.run_to_end("example_luma_mapped")
    for index in range(3):
        generation_id = deployment.xcom("example_luma_mapped", run_id, "submit", map_index=index)
        check_generation(deployment.xcom("example_luma_mapped", run_id, "wait", map_index=index), generation_id)
    assert deployment.task_instance("example_luma_mapped", run_id, "submit", 0)["rendered_map_index"] == (
        "A paper boat crosses a puddle"
    )


@pytest.mark.parametrize(("api", "connection_id"), [("gateway", "luma_default"), ("agents", "luma_own")])
def test_every_way_to_wait_ends_with_the_video(api, connection_id, deployment, sandboxes):
    """On a worker, rescheduled, or deferred; with one video paid for each."""
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


def test_a_moderated_prompt_fails_without_a_retry(deployment):
    """Every kind of wait fails at its first try, though it has another."""
    run_id = deployment.run_to_end("luma_bad_days", conf={"prompt": "A boat [moderated]"}, state="failed")
    for task_id in ("wait", "defer", "reschedule"):
        ti = deployment.task_instance("luma_bad_days", run_id, task_id)
        assert (ti["state"], ti["try_number"]) == ("failed", 1)
        assert "change the prompt or the images" in deployment.log("luma_bad_days", run_id, task_id)


def test_a_refused_token_fails_without_a_retry(deployment):
    """Every kind of task fails at its first try, though it has another."""
    run_id = deployment.run_to_end("luma_bad_days", conf={"luma_conn_id": "luma_refused"}, state="failed")
    for task_id in ("submit", "wait", "defer"):
        ti = deployment.task_instance("luma_bad_days", run_id, task_id)
        assert (ti["state"], ti["try_number"]) == ("failed", 1)
        assert "Check the token" in deployment.log("luma_bad_days", run_id, task_id)


@pytest.mark.since("3.1")
def test_the_connection_form_has_five_labelled_fields(deployment):
    """Fields that a Luma connection does not use are hidden."""
    answer = requests.get(
        f"{deployment.url}/ui/connections/hook_meta",
        headers={"Authorization": f"Bearer {deployment.api_token()}"},
        timeout=30,
    )
    (form,) = [one for one in answer.json() if one["connection_type"] == "luma"]
    assert form["hook_name"] == "Luma"
    shown = {name: field for name, field in form["standard_fields"].items() if not (field or {}).get("hidden")}
    assert "Luma for a key that begins with luma-" in shown["host"]["placeholder"]
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
def test_the_test_button_reports_whether_the_api_accepts_the_token(
    connection_id, extra, token, said, deployment, sandboxes
):
    fields = {"conn_type": "luma", "host": sandboxes[connection_id].url, "password": token, "extra": json.dumps(extra)}
    outcome = deployment.api("POST", "connections/test", json={"connection_id": "tried", **fields})
    assert outcome["status"] is ("accepts" in said)
    assert said in outcome["message"]


def listed(deployment, *command):
    """Return what a command lists; Airflow 3.0 prints what it logs before it."""
    return json.loads(deployment.command(*command, "--output", "json").splitlines()[-1])


def test_airflow_lists_the_provider_and_its_hook(deployment):
    (found,) = listed(deployment, "providers", "get", "airflow-provider-luma")
    assert found["Version"]
    hooks = listed(deployment, "providers", "hooks")
    assert [one["hook_name"] for one in hooks if one["connection_type"] == "luma"] == ["Luma"]
