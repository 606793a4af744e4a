"""How a task ends that has no video: with an error of Luma's, or stopped by a person."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_luma.api.errors import LumaError

if TYPE_CHECKING:
    from collections.abc import Iterator

STILL_RUNNING = (
    "Luma has no way to cancel: generation %s goes on and is paid for. "
    "Its video can be had later with LumaGenerationSensor and this id."
)


@contextmanager
def fail_without_retry(*also: type[LumaError]) -> Iterator[None]:
    """
    Turn an error that no retry can mend into Airflow's way of failing a task without another try.

    :param also: errors that no retry of this task can mend, though one of another task might.
    """
    try:
        yield
    except LumaError as error:
        if error.retry_may_help and not isinstance(error, also):
            raise
        raise AirflowFailException(str(error)) from error
