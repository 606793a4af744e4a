"""When a wait is over, and what it logs until then."""

from __future__ import annotations

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
    return Generation(id="x", state=known, state_name=state, **kwargs)


def test_a_wait_ends_when_the_generation_is_completed(begin):
    wait = begin()
    assert wait.update(generation("pending")) is None
    assert wait.update(generation("processing")) is None
    assert wait.update(generation("completed")).id == "x"


def test_a_failed_generation_ends_the_wait_with_an_error(begin):
    with pytest.raises(LumaGenerationFailed):
        begin().update(generation("failed"))


def test_a_failure_that_was_waited_for_is_no_error(begin):
    assert begin(["completed", "failed"]).update(generation("failed"))


def test_waiting_for_a_failure_ends_with_an_error_when_the_generation_is_completed(begin):
    with pytest.raises(LumaError, match="will never be failed") as caught:
        begin("failed").update(generation("completed"))
    assert not caught.value.retry_may_help


def test_a_state_that_passed_between_two_polls_counts_as_seen(begin):
    assert begin("processing").update(generation("completed"))


@pytest.mark.parametrize("word", ["done", "", None, 3, ["completed", "done"], []])
def test_a_word_that_is_no_state_is_refused(begin, word):
    with pytest.raises(LumaInvalidRequest):
        begin(word)


def test_each_change_of_state_is_logged_once_with_the_estimate(begin, caplog):
    wait = begin()
    for seen in ("pending", "pending", "processing", "processing", "completed"):
        wait.update(generation(seen, estimate_wait_seconds=42 if seen == "processing" else 0))
    assert caplog.messages == [
        "Generation x is pending.",
        "Generation x is processing, about 42 s to go.",
        "Generation x is completed.",
    ]


def test_while_nothing_changes_one_line_a_minute_says_so(begin, clock, caplog, monkeypatch):
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


def test_waits_that_have_changed_together_do_not_all_write_at_the_same_moment(begin, clock, caplog):
    """A triggerer that writes hundreds of lines at once stands still meanwhile."""
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


def test_an_unknown_state_is_logged_once_and_ends_nothing(begin, caplog):
    wait = begin()
    assert wait.update(generation("rendering_preview")) is None
    assert wait.update(generation("rendering_preview")) is None
    assert caplog.messages == [
        "Generation x is 'rendering_preview', a state this version does not know; waiting goes on."
    ]


def test_an_unknown_id_ends_the_wait_after_a_minute(begin, clock):
    wait = begin()
    for _ in range(6):
        assert wait.update(LumaNotFound("no such id")) is None
        clock.now += 10
    with pytest.raises(LumaNotFound):
        wait.update(LumaNotFound("no such id"))


@pytest.mark.parametrize(
    "between",
    [generation("pending"), LumaConnectionError("down"), LumaAuthenticationError("no")],
    ids=["known", "down", "refused"],
)
def test_the_minute_starts_again_after_any_other_answer(between, begin, clock):
    wait = begin()
    wait.update(LumaNotFound("no such id"))
    clock.now += 59
    wait.update(between)
    clock.now += 2
    assert wait.update(LumaNotFound("no such id")) is None
    clock.now += 59
    assert wait.update(LumaNotFound("no such id")) is None
    clock.now += 1
    with pytest.raises(LumaNotFound):
        wait.update(LumaNotFound("no such id"))


def test_the_minute_starts_when_the_id_is_first_unknown_however_long_other_trouble_lasted(begin, clock):
    wait = begin()
    for _ in range(10):
        wait.update(LumaConnectionError("down"))
        clock.now += 60
    assert wait.update(LumaNotFound("no such id")) is None


def test_a_proxys_404_never_ends_the_wait(begin, clock):
    wait = begin()
    nothing = LumaNotFound("an HTML page", from_api=False)
    for _ in range(10):
        assert wait.update(nothing) is None
        clock.now += 60


def test_a_wait_continues_in_another_process_with_what_the_first_has_seen(begin, clock, caplog):
    first = begin()
    first.update(generation("pending"))
    first.update(LumaNotFound("no such id"))
    clock.now += 61
    caplog.clear()
    second = begin(memory=first.memory)
    assert second.update(generation("pending")) is None
    assert caplog.messages == []
    with pytest.raises(LumaNotFound):
        begin(memory=first.memory).update(LumaNotFound("no such id"))


def test_a_token_that_is_refused_for_a_minute_ends_the_wait(begin, clock):
    wait = begin()
    for _ in range(4):
        assert wait.update(LumaAuthenticationError("no")) is None
        clock.now += 15
    with pytest.raises(LumaAuthenticationError):
        wait.update(LumaAuthenticationError("no"))


@pytest.mark.parametrize(
    "between",
    [generation("pending"), LumaConnectionError("down"), LumaNotFound("no such id")],
    ids=["known", "down", "unknown"],
)
def test_refusals_that_are_not_in_a_row_do_not_end_the_wait(between, begin, clock):
    wait = begin()
    for _ in range(10):
        assert wait.update(LumaAuthenticationError("no")) is None
        clock.now += 60
        assert wait.update(between) is None


def test_any_other_error_is_waited_out_and_logged_when_it_begins_and_ends(begin, clock, caplog):
    wait = begin()
    for _ in range(100):
        assert wait.update(LumaConnectionError("down")) is None
        clock.now += 600
    wait.update(generation("pending"))
    assert caplog.messages == [
        "Polling generation x failed, will keep trying: down",
        "Generation x can be polled again.",
        "Generation x is pending.",
    ]


def test_the_pause_doubles_up_to_a_minute_while_polling_fails_and_is_what_the_gateway_asked_for(begin):
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


def test_those_that_were_asked_to_wait_equally_long_do_not_come_back_at_once(begin):
    wait = begin()
    wait.update(LumaRateLimited("wait", retry_after=90))
    pauses = [wait.pause(5) for _ in range(100)]
    assert max(pauses) - min(pauses) > 5


def test_the_pause_after_thousands_of_failures_is_a_minute(begin):
    wait = begin()
    for _ in range(3000):
        wait.update(LumaConnectionError("down"))
    assert 60 <= wait.pause(5) <= 75
