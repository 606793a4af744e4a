"""A wait: when it is over, and its lines in the log."""

from __future__ import annotations

import json
import logging

import pytest

from airflow_provider_luma.api import (
    Generation,
    GenerationState,
    LumaAuthenticationError,
    LumaConnectionError,
    LumaError,
    LumaGenerationFailed,
    LumaInvalidRequest,
    LumaNotFound,
    LumaRateLimited,
    LumaServerError,
    retry,
)
from airflow_provider_luma.api.waiting import Wait
from tests.support.clock import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def begin(clock, caplog):
    caplog.set_level(logging.INFO)

    def begin(target_state="completed", **kwargs):
        return Wait("x", target_state, log=logging.getLogger("test"), clock=clock, **kwargs)

    return begin


def generation(state: str, **kwargs) -> Generation:
    known = GenerationState(state) if state in list(GenerationState) else GenerationState.UNKNOWN
    url = "https://cdn.example.net/video.mp4" if state == "completed" else None
    return Generation(id="x", state=known, state_name=state, **{"video_url": url, **kwargs})


def test_ends_when_completed(begin):
    """A wait ends when the generation is completed."""
    wait = begin()
    assert wait.update(generation("pending")) is None
    assert wait.update(generation("processing")) is None
    assert wait.update(generation("completed")).id == "x"


def test_failure_is_an_error(begin):
    """A failed generation ends the wait with an error."""
    with pytest.raises(LumaGenerationFailed):
        begin().update(generation("failed"))


def test_awaited_failure_ends_well(begin):
    """A failure that the wait is for is not an error."""
    assert begin(["completed", "failed"]).update(generation("failed"))


def test_completed_cannot_fail_later(begin):
    """A wait for a failure ends with an error if the generation is completed, and no retry helps."""
    with pytest.raises(LumaError, match=r"cannot fail any more\. Change target_state") as caught:
        begin("failed").update(generation("completed"))
    assert not caught.value.retry_may_help


def test_passed_state_counts(begin):
    """A state that passed between two polls counts as seen."""
    assert begin("processing").update(generation("completed"))


@pytest.mark.parametrize("word", ["done", "", None, 3, ["completed", "done"], []])
def test_unknown_target_is_refused(begin, word):
    """A target that is not a state is refused."""
    with pytest.raises(LumaInvalidRequest):
        begin(word)


def test_logs_each_change_once(begin, caplog):
    """Each change of state is logged once, with the estimate if there is one."""
    wait = begin()
    for seen in ("pending", "pending", "processing", "processing", "completed"):
        wait.update(generation(seen, estimate_wait_seconds=42 if seen == "processing" else 0))
    assert caplog.messages == [
        "Generation x is pending.",
        "Generation x is processing, about 42 s to go.",
        "Generation x is completed.",
    ]


def test_logs_once_a_minute(begin, clock, caplog, monkeypatch):
    """Without a change, one line a minute says so."""
    monkeypatch.setattr(retry.random, "uniform", lambda least, most: least)
    wait = begin()
    for to_go in range(200, 50, -5):
        wait.update(generation("processing", estimate_wait_seconds=to_go))
        clock.now += 5
    assert caplog.messages == [
        "Generation x is processing, about 200 s to go.",
        "Generation x is still processing, about 140 s to go.",
        "Generation x is still processing, about 80 s to go.",
    ]


def test_waits_write_apart(begin, clock, caplog):
    """Waits that changed together do not all write at the same moment: that would block the triggerer."""
    waits = [begin() for _ in range(100)]
    written = []
    for _ in range(20):
        caplog.clear()
        for wait in waits:
            wait.update(generation("processing"))
        written.append(len(caplog.messages))
        clock.now += 5
    assert written[:12] == [100] + 11 * [0]
    assert sum(written[12:16]) == 100
    assert max(written[12:16]) < 80


def test_unknown_state_ends_nothing(begin, caplog):
    """An unknown state is logged once, and the wait continues."""
    wait = begin()
    assert wait.update(generation("rendering_preview")) is None
    assert wait.update(generation("rendering_preview")) is None
    assert caplog.messages == [
        "Generation x is 'rendering_preview', a state that this package does not know. The wait continues."
    ]


LASTING = [LumaNotFound("no such id"), LumaAuthenticationError("no")]


@pytest.mark.parametrize("error", LASTING, ids=["unknown", "refused"])
def test_lasting_error_has_a_minute(error, begin, clock):
    """An unknown id and a refused token end the wait after a minute."""
    wait = begin()
    for _ in range(6):
        assert wait.update(error) is None
        clock.now += 9.9
    clock.now += 0.6
    with pytest.raises(type(error)):
        wait.update(error)


@pytest.mark.parametrize(
    "between", [generation("pending"), LumaConnectionError("down"), None], ids=["known", "down", "other"]
)
@pytest.mark.parametrize("error", LASTING, ids=["unknown", "refused"])
def test_other_answers_restart_the_minute(between, error, begin, clock):
    """The minute starts again after any other answer."""
    wait = begin()
    for _ in range(3):
        assert wait.update(error) is None
        clock.now += 59
        assert wait.update(error) is None
        wait.update(between or next(other for other in LASTING if other is not error))
        clock.now += 2


def test_minute_starts_with_unknown_id(begin, clock):
    """The minute starts when the id is first unknown, however long other trouble lasted."""
    wait = begin()
    for _ in range(10):
        wait.update(LumaConnectionError("down"))
        clock.now += 60
    assert wait.update(LumaNotFound("no such id")) is None


def test_page_never_ends_a_wait(begin, clock):
    """A page that a proxy sent in place of the API's answer never ends a wait."""
    wait = begin()
    for _ in range(10):
        assert wait.update(LumaServerError("HTTP 404, an HTML page", status=404, from_api=False)) is None
        clock.now += 60


def test_continues_in_another_process(begin, clock, caplog):
    """A wait continues in another process with the memory of the first."""
    first = begin()
    first.update(generation("pending"))
    first.update(LumaNotFound("no such id"))
    clock.now += 61
    caplog.clear()
    second = begin(memory=first.memory)
    assert second.update(generation("pending")) is None
    assert caplog.messages == ["Generation x can be polled again."]
    with pytest.raises(LumaNotFound):
        begin(memory=first.memory).update(LumaNotFound("no such id"))


def test_other_memory_is_ignored(begin, clock):
    """The memory of a wait for another generation is not used."""
    first = begin()
    first.update(LumaNotFound("no such id"))
    clock.now += 61
    memory = {**first.memory, "generation_id": "y"}
    assert begin(memory=memory).update(LumaNotFound("no such id")) is None


def test_memory_is_json(begin):
    """The memory of a wait can be stored as JSON."""
    wait = begin()
    wait.update(generation("pending"))
    wait.update(LumaAuthenticationError("no"))
    assert json.loads(json.dumps(wait.memory)) == wait.memory


def test_other_errors_never_end(begin, clock, caplog):
    """Any other error is logged when it begins and when it ends, and never ends the wait."""
    wait = begin()
    for _ in range(100):
        assert wait.update(LumaConnectionError("down")) is None
        clock.now += 600
    wait.update(generation("pending"))
    assert caplog.messages == [
        "Polling generation x failed; it is polled again: down",
        "Generation x can be polled again.",
        "Generation x is pending.",
    ]


def test_pause_doubles_after_failures(begin):
    """The pause doubles up to a minute while polling fails, and is never shorter than the API asked for."""
    wait = begin()
    wait.update(generation("pending"))
    assert wait.pause(5) == 5
    pauses = []
    for _ in range(6):
        wait.update(LumaConnectionError("down"))
        pauses.append(wait.pause(5))
    for pause, least in zip(pauses, [10, 20, 40, 60, 60, 60], strict=True):
        assert least <= pause <= 1.25 * least
    assert 300 <= wait.pause(300) <= 375
    wait.update(LumaRateLimited("wait", retry_after=90))
    assert 90 <= wait.pause(5) <= 112.5
    wait.update(generation("pending"))
    assert wait.pause(5) == 5


def test_pauses_spread_out(begin):
    """Waits that were asked to pause equally long do not all poll at the same moment."""
    wait = begin()
    wait.update(LumaRateLimited("wait", retry_after=90))
    pauses = [wait.pause(5) for _ in range(100)]
    assert max(pauses) - min(pauses) > 5


def test_pause_stays_a_minute(begin):
    """The pause after thousands of failures is still a minute."""
    wait = begin()
    for _ in range(3000):
        wait.update(LumaConnectionError("down"))
    assert 60 <= wait.pause(5) <= 75
