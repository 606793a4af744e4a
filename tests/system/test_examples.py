"""The example DAGs, and bad days, in a real Airflow: scheduler, dag processor, triggerer and API server."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
import requests
from packaging.version import Version

from tests.system.conftest import AIRFLOW, REFUSED_TOKEN, TOKEN

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


def check_generation(generation, generation_id):
    assert list(generation) == GENERATION_FIELDS
    assert generation["id"] == generation_id
    assert generation["state"] == "completed"
    assert generation["failure_reason"] is None
    assert (generation["width"], generation["height"]) == (640, 360)
    assert isinstance(generation["duration"], float)
    assert datetime.fromisoformat(generation["created_at"].replace("Z", "+00:00")).tzinfo
    assert requests.get(generation["video_url"], timeout=10).headers["Content-Type"] == "video/mp4"


def succeeded(deployment, dag_id, **kwargs):
    run_id = deployment.run(dag_id, **kwargs)
    assert deployment.wait(dag_id, run_id) == "success"
    return run_id


def test_no_import_errors(deployment):
    """Every DAG file is parsed."""
    deployment.wait_for(lambda: len(deployment.api("GET", "dags")["dags"]) >= 5)
    too_new = ["example_luma_approval"] if Version("3.1") > AIRFLOW else []
    assert [Path(one["filename"]).stem for one in deployment.import_errors()] == too_new


def test_quickstart(deployment, sandbox):
    """The submitting task gives the task id, the sensor the generation."""
    run_id = succeeded(deployment, "example_luma_quickstart")
    generation_id = deployment.xcom("example_luma_quickstart", run_id, "submit")
    assert generation_id in [one["id"] for one in sandbox.report()["generations"]]
    check_generation(deployment.xcom("example_luma_quickstart", run_id, "wait"), generation_id)
    assert "/video.mp4" in deployment.log("example_luma_quickstart", run_id, "show")


def test_deferrable(deployment):
    """A task that waits in the triggerer gives both, and says each change of state once."""
    run_id = succeeded(deployment, "example_luma_deferrable", conf={"prompt": "The sun rises over a city"})
    generation_id = deployment.xcom("example_luma_deferrable", run_id, "generate")
    check_generation(deployment.xcom("example_luma_deferrable", run_id, "generate", "generation"), generation_id)
    log = deployment.log("example_luma_deferrable", run_id, "generate")
    assert log.count(f"Generation {generation_id} is completed.") == 1


def test_extend(deployment, sandbox):
    """Each extension has the clip before it for parent."""
    run_id = succeeded(deployment, "example_luma_extend")
    ids = [deployment.xcom("example_luma_extend", run_id, task) for task in ("opening", "middle", "ending")]
    parents = {one["id"]: one["parent"] for one in sandbox.report()["generations"]}
    assert [parents[one] for one in ids] == [None, *ids[:2]]


def test_mapped(deployment):
    """One task for each prompt, under its prompt, and one wait for each."""
    run_id = succeeded(deployment, "example_luma_mapped")
    for index in range(3):
        generation_id = deployment.xcom("example_luma_mapped", run_id, "submit", map_index=index)
        check_generation(deployment.xcom("example_luma_mapped", run_id, "wait", map_index=index), generation_id)
    assert deployment.task_instance("example_luma_mapped", run_id, "submit", 0)["rendered_map_index"] == (
        "A paper boat crosses a puddle"
    )


def test_every_mode(deployment):
    """On a worker, rescheduled or deferred: it ends with the video."""
    run_id = succeeded(deployment, "luma_bad_days")
    for task_id in ("wait", "defer"):
        generation_id = deployment.xcom("luma_bad_days", run_id, task_id)
        check_generation(deployment.xcom("luma_bad_days", run_id, task_id, "generation"), generation_id)
    generation_id = deployment.xcom("luma_bad_days", run_id, "submit")
    check_generation(deployment.xcom("luma_bad_days", run_id, "reschedule"), generation_id)


def test_moderated(deployment):
    """A prompt that moderation refuses fails every wait at its first try, though it has another."""
    run_id = deployment.run("luma_bad_days", conf={"prompt": "A boat [moderated]"})
    assert deployment.wait("luma_bad_days", run_id) == "failed"
    for task_id in ("wait", "defer", "reschedule"):
        ti = deployment.task_instance("luma_bad_days", run_id, task_id)
        assert (ti["state"], ti["try_number"]) == ("failed", 1)
        assert "change the prompt or the images" in deployment.log("luma_bad_days", run_id, task_id)


def test_refused_token(deployment):
    """So does a bad token."""
    run_id = deployment.run("luma_bad_days", conf={"luma_conn_id": "luma_refused"})
    assert deployment.wait("luma_bad_days", run_id) == "failed"
    for task_id in ("submit", "wait", "defer"):
        ti = deployment.task_instance("luma_bad_days", run_id, task_id)
        assert (ti["state"], ti["try_number"]) == ("failed", 1)
        assert "Check the token" in deployment.log("luma_bad_days", run_id, task_id)


@pytest.mark.since("3.1")
def test_connection_form(deployment):
    """The form of a Luma connection has four fields, labelled, and a button that tests them."""
    answer = requests.get(
        f"{deployment.url}/ui/connections/hook_meta",
        headers={"Authorization": f"Bearer {deployment.api_token()}"},
        timeout=30,
    )
    (form,) = [one for one in answer.json() if one["connection_type"] == "luma"]
    assert form["hook_name"] == "Luma"
    shown = {name: field for name, field in form["standard_fields"].items() if not (field or {}).get("hidden")}
    assert shown["host"]["placeholder"] == "https://www.kkiai.com"
    assert shown["password"]["title"] == "API token"
    assert set(form["standard_fields"]) - set(shown) >= {"description", "login", "port", "url_schema"}
    assert {name: field["schema"]["title"] for name, field in form["extra_fields"].items()} == {
        "timeout": "Timeout (seconds)",
        "verify": "Verify TLS",
    }


@pytest.mark.parametrize(("token", "good"), [(TOKEN, True), (REFUSED_TOKEN, False)])
def test_test_button(token, good, deployment, sandbox):
    """The button says whether the gateway takes the token."""
    fields = {"connection_id": "tried", "conn_type": "luma", "host": sandbox.url, "password": token}
    outcome = deployment.api("POST", "connections/test", json=fields)
    assert outcome["status"] is good
    assert ("takes the token" if good else "The token is refused") in outcome["message"]


def listed(deployment, *command):
    """Return what a command lists; Airflow 3.0 prints what it logs before it."""
    return json.loads(deployment.command(*command, "--output", "json").splitlines()[-1])


def test_providers(deployment):
    """Airflow lists the provider and what it has."""
    (found,) = listed(deployment, "providers", "get", "airflow-provider-luma")
    assert found["Version"]
    hooks = listed(deployment, "providers", "hooks")
    assert [one["hook_name"] for one in hooks if one["connection_type"] == "luma"] == ["Luma"]
