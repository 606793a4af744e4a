"""The hook: it makes a client from an Airflow connection."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_luma import DEFAULT_CONN_ID
from airflow_provider_luma.api import GenerationState, LumaClient, errors
from airflow_provider_luma.api.arguments import check_generation_id, check_poll_interval, parse_bool
from airflow_provider_luma.api.dialects.values import json_value
from airflow_provider_luma.api.download import Download
from airflow_provider_luma.api.url import is_this_machine
from airflow_provider_luma.api.waiting import Wait
from airflow_provider_luma.get_provider_info import CONNECTION_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Connection

    from airflow_provider_luma.api import Generation

DEFAULT_TIMEOUT = 30.0


class LumaHook(BaseHook):
    """
    Call the API of an Airflow connection.

    The connection has the type ``luma``. Its password is the API token. Its host is the API's address, with or without
    scheme, port and path. Its extras are ``api`` (the name of the API), ``timeout`` (seconds for one request, default
    30) and ``verify`` (true, false, or the path of a CA bundle).

    The extra ``api`` chooses the API. Without this extra the host chooses it, and without a host the token does. A
    token that belongs to an API is sent to another API only if the extra ``api`` names the other API. See
    :data:`airflow_provider_luma.apis.APIS` for the hosts and the tokens.

    :param luma_conn_id: the connection's id.
    """

    conn_name_attr = "luma_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "luma"
    hook_name = "Luma"

    def __init__(self, luma_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.luma_conn_id = luma_conn_id

    @staticmethod
    def get_ui_field_behaviour() -> dict[str, Any]:
        """Return the fields of the connection's form for Airflow before 3.2; later versions read the provider info."""
        behaviour: Any = CONNECTION_TYPE["ui-field-behaviour"]
        return {name.replace("-", "_"): value for name, value in behaviour.items()}

    @staticmethod
    def get_connection_form_widgets() -> dict[str, Any]:
        """Return the form's fields for the extras for Airflow before 3.2; later versions read the provider info."""
        from wtforms import BooleanField, IntegerField, StringField
        from wtforms.validators import Optional

        kinds = {"api": StringField, "timeout": IntegerField, "verify": BooleanField}
        fields: Any = CONNECTION_TYPE["conn-fields"]
        return {
            name: kinds[name](
                field["label"], [Optional()], description=field["description"], default=field["schema"]["default"]
            )
            for name, field in fields.items()
        }

    def get_conn(self) -> LumaClient:
        """
        Return the client for the connection.

        Each call returns the same client, until a :meth:`poll` finds that the API refuses its token.

        :raises AirflowNotFoundException: the connection does not exist.
        :raises LumaAuthenticationError: the connection has no token.
        :raises LumaInvalidRequest: the host, schema or extras are wrong, or the token belongs to another API.
        """
        return self._client

    def submit(self, user_prompt: str | None = None, **arguments: Any) -> Generation:
        """Submit a generation; arguments and errors are those of :meth:`LumaClient.submit`."""
        return self.get_conn().submit(user_prompt, **arguments)

    def extend(self, generation_id: str, user_prompt: str | None = None, **arguments: Any) -> Generation:
        """Submit an extension of a generation; arguments and errors are those of :meth:`LumaClient.extend`."""
        return self.get_conn().extend(generation_id, user_prompt, **arguments)

    def get_generation(self, generation_id: str, *, repeat: bool = True) -> Generation:
        """Poll one generation; parameters and errors are those of :meth:`LumaClient.get`."""
        return self.get_conn().get(generation_id, repeat=repeat)

    def get_generations(self, generation_ids: Iterable[str]) -> dict[str, Generation]:
        """
        Poll many generations, in one request if the API has a batch query.

        :return: the generations by id, without the generations that the API does not know.
        :raises LumaError: polling failed.
        """
        ids = set(generation_ids)
        found: dict[str, Generation] = {}
        # Each is polled alone if the API has no batch query, or answers it with an error.
        with suppress(errors.LumaApiError):
            found = self.get_conn().get_many(ids, repeat=False)
        for generation_id in ids - found.keys():
            with suppress(errors.LumaNotFound):
                found[generation_id] = self.get_generation(generation_id)
        return found

    def wait_for_generation(
        self, generation_id: str, *, target_state: Any = "completed", poll_interval: float | timedelta = 5.0
    ) -> Generation:
        """
        Wait on this worker until a generation is in a state.

        A poll that fails for another reason than those below is repeated. To limit the wait, set the task's
        ``execution_timeout``.

        :param generation_id: the id of the generation.
        :param target_state: the state to wait for, or a list of states.
        :param poll_interval: time between two polls, in seconds or as a ``timedelta``.
        :return: the generation, as the API described it in the last poll.
        :raises LumaGenerationFailed: the generation failed, and ``failed`` is not a target state.
        :raises LumaNotFound: the API did not know the id for a minute.
        :raises LumaAuthenticationError: the API refused the token for a minute.
        :raises LumaInvalidRequest: ``target_state`` or ``poll_interval`` is not valid.
        :raises LumaError: the generation is completed, and ``failed`` is the only target state; or the connection is
            wrong, see :meth:`get_conn`.
        """
        seconds = check_poll_interval(poll_interval)
        wait = Wait(check_generation_id(generation_id), target_state, log=self.log)
        while not (generation := self.poll(wait)):
            time.sleep(wait.pause(seconds))
        return generation

    def poll(self, wait: Wait, timeout: float | None = None) -> Generation | None:
        """
        Poll once for a wait; return the generation if the wait is over, and otherwise None.

        :param wait: decides when the wait is over.
        :param timeout: limit for this poll, in seconds, if it is shorter than the connection's ``timeout``.
        :raises LumaError: ``Wait.update`` raises it, or :meth:`get_conn`, because a wrong connection ends a wait.
        """
        client = self.get_conn()
        try:
            seen: Generation | errors.LumaError = client.get(wait.generation_id, repeat=False, timeout=timeout)
        except errors.LumaError as error:
            seen = error
            if isinstance(error, errors.LumaAuthenticationError):
                # Somebody may have replaced the token: the next poll looks the connection up again.
                del self._client
        return wait.update(seen)

    def download(self, generation_id: str, asset: str = "video") -> Download:
        """
        Ask the API for the URL of a file of a completed generation, and return the file's download.

        The URL comes from the API each time, because URLs expire.

        :param generation_id: the generation's id.
        :param asset: ``video``, ``video_raw``, ``thumbnail`` or ``last_frame``.
        :raises LumaGenerationFailed: the generation failed.
        :raises LumaError: the API gave no URL, because the generation is not completed or has no such file; or the API
            could not be asked.
        """

        def fresh_url() -> str:
            now = self.get_generation(generation_id)
            if now.state is GenerationState.FAILED:
                raise errors.LumaGenerationFailed(now)
            url = now.asset_url(asset)
            if not url:
                raise errors.LumaError(
                    f"Generation {now.id} is {now.state} and has no {asset} to store. If it is not completed, wait "
                    "for it with LumaGenerationSensor first. If it is completed, the API gave no URL for this file."
                )
            return url

        url, client = fresh_url(), self.get_conn()
        return Download(url, fresh_url, api_url=client.url, timeout=client.timeout, verify=client.verify)

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the connection works, and a sentence: which API it is, or what to do. Free of charge."""
        try:
            client = self.get_conn()
            client.test()
        except (errors.LumaError, AirflowNotFoundException) as error:
            # Airflow tests the form under a generated connection id. A message with this id would confuse the reader.
            return False, str(error.__cause__ if isinstance(error.__cause__, errors.LumaError) else error)
        return True, f"{client.url} is {client.dialect.API.label} and accepts the token."

    @cached_property
    def _client(self) -> LumaClient:
        try:
            connection = self.get_connection(self.luma_conn_id)
        except AirflowNotFoundException as error:
            raise AirflowNotFoundException(
                f"The connection {self.luma_conn_id!r} does not exist. Create it under Admin > Connections (type Luma) "
                f"or with: airflow connections add {self.luma_conn_id} --conn-type luma --conn-password '<API token>'"
            ) from error
        try:
            return self._client_for(connection)
        except errors.LumaError as error:
            raise type(error)(f"The connection {self.luma_conn_id!r}: {error}") from error
        except (AttributeError, OSError, TypeError, ValueError) as error:
            # Without the text, which may contain the token.
            kind = type(error).__name__
            raise errors.LumaInvalidRequest(f"The connection {self.luma_conn_id!r} is not valid ({kind}).") from None

    def _client_for(self, connection: Connection) -> LumaClient:
        token = (connection.password or "").strip()
        if not token:
            raise errors.LumaAuthenticationError(
                "there is no API token: put the token into the password (API token in the form)."
            )
        extra = json_value((connection.extra or "{}").encode())
        if not isinstance(extra, dict):
            # Airflow ignores such an extra. Without its "api", the token could go to another host.
            raise errors.LumaInvalidRequest("the extra is not a JSON object. Nothing was sent: correct the extra.")
        client = LumaClient(
            connection.host,
            token,
            api=extra.get("api"),
            schema=connection.schema,
            port=connection.port,
            timeout=_parse_timeout(extra.get("timeout")),
            verify=_parse_verify(extra.get("verify")),
        )
        if client.url.startswith("http:") and not is_this_machine(urlsplit(client.url).hostname or ""):
            self.log.warning(
                "Connection %r sends its token to %s unencrypted: use https.", self.luma_conn_id, client.url
            )
        return client


def _parse_timeout(value: Any) -> float:
    with suppress(TypeError, ValueError):
        seconds = float(DEFAULT_TIMEOUT if value in (None, "") else value)
        if 0 < seconds < 3600:
            return seconds
    raise errors.LumaInvalidRequest(
        f"the extra 'timeout' must be a number of seconds between 0 and 3600, got {value!r:.40}."
    )


def _parse_verify(value: Any) -> bool | str:
    if value in (None, ""):
        return True
    parsed = parse_bool(value)
    with suppress(OSError):
        if isinstance(parsed, bool) or (isinstance(parsed, str) and Path(parsed).exists()):
            return parsed
    raise errors.LumaInvalidRequest(
        f"the extra 'verify' must be true, false or the path of a CA bundle, got {value!r:.80}."
    )
