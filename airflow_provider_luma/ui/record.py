"""
The record of a task: the XCom with the task's facts about a video, for the Luma tab.

Every record is untrusted, because any task can push an XCom of this name. It is parsed into a model, so that the rest
of the tab can rely on the types. A record that is not valid becomes an :class:`Unreadable`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeAlias

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, FiniteFloat, ValidationError

from airflow_provider_luma.outcome import RECORD_KEY

LONGEST_TEXT = 4_000
LONGEST_PROMPT = 10_000
"""Characters. Longer texts are cut."""

OUTSIDE = "your XCom backend stores it elsewhere. Set [common.io] xcom_objectstorage_threshold = 65536."


def _clean(value: Any, longest: int = LONGEST_TEXT) -> Any:
    # JSON can contain half a surrogate pair, which UTF-8 cannot.
    return value[:longest].encode(errors="replace").decode() if isinstance(value, str) else value


def _text(value: Any) -> Any:
    return "" if value is None else _clean(value)


def _prompt(value: Any) -> Any:
    return "" if value is None else _clean(value, LONGEST_PROMPT)


def web_url(value: Any) -> str | None:
    """Return an http(s) URL, or None for anything else, such as ``javascript:``, a file, or a URL that is too long."""
    known = isinstance(value, str) and value.lower().startswith(("https://", "http://"))
    return str(_clean(value)) if known and len(value) < LONGEST_TEXT else None


Text: TypeAlias = Annotated[str, BeforeValidator(_text)]
Web: TypeAlias = Annotated[str | None, BeforeValidator(web_url)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)


class Request(_Model):
    """The arguments of a submission that the tab shows."""

    user_prompt: Annotated[str, BeforeValidator(_prompt)] = ""
    model_name: Text = ""
    resolution: Text = ""
    aspect_ratio: Text = ""
    duration: Text = ""
    image_url: Text = ""
    image_end_url: Text = ""


class Generation(_Model):
    """A generation, as the sensor returns it."""

    state: Text = ""
    video_url: Web = None
    thumbnail_url: Web = None
    width: FiniteFloat | None = None
    height: FiniteFloat | None = None
    duration: FiniteFloat | None = None
    failure_reason: Text = ""


class Record(_Model):
    """The facts that a task has recorded. Without any facts, the task has no record."""

    request: Request | None = None
    generation_id: Text = ""
    submitted_at: AwareDatetime | None = None
    generation: Generation | None = None
    seen_at: AwareDatetime | None = None
    stored: Text = ""
    problem: Text = ""


class Unreadable(Record):
    """A record that is not valid. Its ``problem`` says why."""


def read(text: str | None) -> Record:
    """
    Parse a record.

    :param text: the record as JSON, as in the column of Airflow's database; None if there is no record. Some versions
        of Airflow store a JSON text that contains the JSON.
    """
    reason = "it is not valid JSON."
    try:
        value = json.loads(text) if text else None
        if isinstance(value, str):
            reason = OUTSIDE if value[:1] not in ("[", "{") else reason
            value = json.loads(value)
        return Record.model_validate({} if value is None else value)
    except ValidationError as error:
        place = ".".join(
            map(str, error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"])
        )
        reason = f"its field {place} is not valid." if place else "it is not an object."
    except (ValueError, RecursionError):
        pass
    return Unreadable(problem=f"The tab cannot read this task's record (XCom {RECORD_KEY}): {reason}")
