"""When a wait is over, and what it says on the way."""

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
)
from airflow_provider_luma.api.waiting import Wait


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


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


def test_completed(begin):
    """It is over when the generation is completed."""
    wait = begin()
    assert wait.update(generation("pending")) is None
    assert wait.update(generation("processing")) is None
    assert wait.update(generation("completed")).id == "x"


def test_failed(begin):
    """A generation that failed ends it with an error."""
    with pytest.raises(LumaGenerationFailed):
        begin().update(generation("failed"))


def test_failed_awaited(begin):
    """Unless that was waited for."""
    assert begin(["completed", "failed"]).update(generation("failed"))


def test_never_failed(begin):
    """Waiting for a failure of a generation that is completed is over, too."""
    with pytest.raises(LumaError, match="will never be failed") as caught:
        begin("failed").update(generation("completed"))
    assert not caught.value.retry_may_help


def test_passed_by(begin):
    """A state that was passed between two looks counts as seen."""
    assert begin("processing").update(generation("completed"))


@pytest.mark.parametrize("word", ["done", "", None, 3, ["completed", "done"], []])
def test_no_state(begin, word):
    """A word that is no state is refused."""
    with pytest.raises(LumaInvalidRequest):
        begin(word)


def test_said_once(begin, caplog):
    """Each change of state is said once, with the estimate where there is one."""
    wait = begin()
    for seen in ("pending", "pending", "processing", "processing", "completed"):
        wait.update(generation(seen, estimate_wait_seconds=42 if seen == "processing" else None))
    assert caplog.messages == [
        "Generation x is pending.",
        "Generation x is processing, about 42 s to go.",
        "Generation x is completed.",
    ]


def test_unknown_state(begin, caplog):
    """A state that this version does not know is said once, and no end."""
    wait = begin()
    assert wait.update(generation("rendering_preview")) is None
    assert wait.update(generation("rendering_preview")) is None
    assert caplog.messages == [
        "Generation x is 'rendering_preview', a state this version does not know; waiting goes on."
    ]


def test_unknown_id(begin, clock):
    """An id that the gateway does not know yet is waited for, for a minute."""
    wait = begin()
    for _ in range(6):
        assert wait.update(LumaNotFound("no such id")) is None
        clock.now += 10
    with pytest.raises(LumaNotFound):
        wait.update(LumaNotFound("no such id"))


def test_unknown_id_again(begin, clock):
    """The minute begins anew when the id was known in between."""
    wait = begin()
    clock.now += 59
    wait.update(generation("pending"))
    clock.now += 59
    assert wait.update(LumaNotFound("no such id")) is None


def test_unknown_id_after_trouble(begin, clock):
    """It begins when the id is first unknown, however long the gateway was in trouble before."""
    wait = begin()
    for _ in range(10):
        wait.update(LumaConnectionError("down"))
        clock.now += 60
    assert wait.update(LumaNotFound("no such id")) is None


def test_unknown_page(begin, clock):
    """A proxy that knows no page says nothing of the id."""
    wait = begin()
    nothing = LumaNotFound("an HTML page", from_gateway=False)
    for _ in range(10):
        assert wait.update(nothing) is None
        clock.now += 60


def test_memory(begin, clock, caplog):
    """A wait goes on in another process with what the first has seen."""
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


def test_token_refused(begin, clock):
    """A token is believed bad after three refusals in a row, over at least a minute."""
    wait = begin()
    for _ in range(4):
        assert wait.update(LumaAuthenticationError("no")) is None
        clock.now += 15
    with pytest.raises(LumaAuthenticationError):
        wait.update(LumaAuthenticationError("no"))


def test_token_refused_now_and_then(begin, clock):
    """Refusals that are not in a row do not count."""
    wait = begin()
    for _ in range(10):
        assert wait.update(LumaAuthenticationError("no")) is None
        clock.now += 60
        assert wait.update(generation("pending")) is None


def test_trouble(begin, clock, caplog):
    """All other trouble is waited out for as long as it takes, and said when it begins and ends."""
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


def test_pause(begin):
    """The pause is the poll interval, grows to a minute while there is trouble, and is what the gateway asked for."""
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
