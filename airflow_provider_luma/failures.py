"""How a task ends without a video: with a LumaError, or because a person stopped it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_luma.api.errors import LumaError

if TYPE_CHECKING:
    from collections.abc import Iterator

STILL_RUNNING = (
    "Luma cannot cancel generation %s. It keeps running and is charged. To get its video later, use "
    "LumaGenerationSensor with this id."
)


@contextmanager
def fail_without_retry(*also: type[LumaError]) -> Iterator[None]:
    """
    Fail the task without a retry if no retry can fix the error.

    :param also: further errors that a retry of this task cannot fix, although a retry of another task might.
    """
    try:
        yield
    except LumaError as error:
        if error.retry_may_help and not isinstance(error, also):
            raise
        raise AirflowFailException(str(error)) from error
