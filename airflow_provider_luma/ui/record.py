"""What a task tells the Luma tab: one XCom, which it adds to while it runs."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
)

from airflow_provider_luma.api import LumaError, LumaGenerationFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.providers.common.compat.sdk import BaseOperator, Context

log = logging.getLogger(__name__)

XCOM_KEY = "luma"


@contextmanager
def recording(operator: BaseOperator, context: Context, *, resumed: bool = False) -> Iterator[Callable[..., None]]:
    """
    Give a function that adds facts to the task's record, and add by itself what a LumaError says.

    The facts, all optional and JSON types: ``request`` (of the submission, without images), ``generation_id``,
    ``submitted_at`` (RFC 3339), ``generation`` (as the sensor returns it) and ``seen_at`` (RFC 3339, when it was so),
    ``stored`` (a URI), ``problem`` (what went wrong, and what to do). A task with ``do_xcom_push=False`` records none.

    :param operator: whose task it is.
    :param resumed: whether the task was deferred, so that another process has recorded already.
    """
    facts: dict[str, Any] = {}

    def record(**more: Any) -> None:
        if not operator.do_xcom_push:
            return
        try:
            ti = context["ti"]
            if resumed and not facts:
                facts.update(ti.xcom_pull(key=XCOM_KEY, map_indexes=ti.map_index) or {})
            facts.update(more)
            ti.xcom_push(key=XCOM_KEY, value=facts)
        except Exception:
            # No task that has paid may fail for a picture of it.
            log.warning("The Luma tab will not show all of this task.", exc_info=True)

    try:
        yield record
    except (LumaError, AirflowFailException, AirflowNotFoundException, AirflowSkipException) as error:
        cause: BaseException | None = error
        # Airflow's ways to fail or skip a task are raised from what was wrong.
        while cause and not isinstance(cause, LumaError | AirflowNotFoundException):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, LumaGenerationFailed):
            record(problem=str(cause), generation=cause.generation.as_dict())
        elif cause:
            record(problem=str(cause))
        raise
