"""An Airflow connection becomes a Luma client."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_luma import DEFAULT_CONN_ID
from airflow_provider_luma.api import (
    GenerationState,
    LumaApiError,
    LumaAuthenticationError,
    LumaClient,
    LumaConnectionError,
    LumaError,
    LumaGenerationFailed,
    LumaInvalidRequest,
    LumaNotFound,
)
from airflow_provider_luma.api.dialects import DIALECTS, choose_dialect
from airflow_provider_luma.api.download import Download
from airflow_provider_luma.api.url import base_url, is_this_machine
from airflow_provider_luma.api.waiting import Wait
from airflow_provider_luma.get_provider_info import CONNECTION_TYPE
from airflow_provider_luma.template import parse_bool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.providers.common.compat.sdk import Connection

    from airflow_provider_luma.api import Generation

DEFAULT_TIMEOUT = 30.0


class LumaHook(BaseHook):
    """
    Call the API that an Airflow connection leads to.

    The connection, of type ``luma``: its password is the API token; its host is where the API is, in any form a person
    would type; its extras are ``api`` (``gateway`` or ``agents``, which is Luma's own), ``timeout`` (seconds for one
    request, default 30) and ``verify`` (true, false, or the path of a CA bundle).

    Without ``api``, the host ``agents.lumalabs.ai`` is Luma's own API and any other a gateway. An empty host is Luma's
    own for a token that begins with ``luma-api-``, and the default gateway, which is a third party's, for one that does
    not begin with ``luma-``. One that does is sent to a gateway only where ``api`` says so.

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
        """Return which fields the connection's form has, to Airflow before 3.2; later ones read the provider info."""
        behaviour: Any = CONNECTION_TYPE["ui-field-behaviour"]
        return {name.replace("-", "_"): value for name, value in behaviour.items()}

    @staticmethod
    def get_connection_form_widgets() -> dict[str, Any]:
        """Return the form's fields for the extras, to Airflow before 3.2; later ones read the provider info."""
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
        Return the client for the connection, the same one each time.

        :raises AirflowNotFoundException: there is no such connection.
        :raises LumaAuthenticationError: it has no token.
        :raises LumaInvalidRequest: its host, schema or extras are wrong, or its token is not one for its host.
        """
        return self._client

    def submit(self, user_prompt: str | None = None, **arguments: Any) -> Generation:
        """Submit a generation; arguments and errors are those of :meth:`LumaClient.submit`."""
        return self.get_conn().submit(user_prompt, **arguments)

    def extend(self, generation_id: str, user_prompt: str | None = None, **arguments: Any) -> Generation:
        """Submit the continuation of a generation; arguments and errors are those of :meth:`LumaClient.extend`."""
        return self.get_conn().extend(generation_id, user_prompt, **arguments)

    def get_generation(self, generation_id: str, *, repeat: bool = True) -> Generation:
        """Poll one generation; parameters and errors are those of :meth:`LumaClient.get`."""
        return self.get_conn().get(generation_id, repeat=repeat)

    def get_generations(self, generation_ids: Iterable[str]) -> dict[str, Generation]:
        """
        Poll many generations, in one request where the API can.

        :return: the generations by their ids; ids that the API does not know are left out.
        :raises LumaError: polling failed.
        """
        ids = set(generation_ids)
        found: dict[str, Generation] = {}
        # Where this API has no batch query, or not for so many, each is polled by itself.
        with suppress(LumaNotFound, LumaInvalidRequest):
            found = self.get_conn().get_many(ids)
        for left_out in ids - found.keys():
            try:
                found[left_out] = self.get_generation(left_out)
            except LumaNotFound as error:
                if not error.from_api:
                    raise
        return found

    def wait_for_generation(
        self, generation_id: str, *, target_state: Any = "completed", poll_interval: float = 5.0
    ) -> Generation:
        """
        Wait, on this worker, until a generation is in a state.

        An API in trouble does not end the wait: the time limit is the task's ``execution_timeout``.

        :param target_state: the state to wait for, or several.
        :param poll_interval: seconds between two polls.
        :raises LumaGenerationFailed: it failed, and that was not waited for.
        :raises LumaNotFound: the API does not know the id, for over a minute.
        :raises LumaError: the connection is wrong, as :meth:`get_conn` says.
        """
        wait = Wait(generation_id, target_state, log=self.log)
        while not (generation := self.poll(wait)):
            time.sleep(wait.pause(poll_interval))
        return generation

    def poll(self, wait: Wait) -> Generation | None:
        """Poll once for a wait, and return the generation when that is over; errors are those of its ``update``."""
        # Waiting does not mend an invalid connection.
        client = self.get_conn()
        try:
            seen: Generation | LumaError = client.get(wait.generation_id, repeat=False)
        except LumaError as error:
            seen = error
        return wait.update(seen)

    def download(self, generation: Generation, asset: str = "video") -> Download:
        """
        Return the download of one of a completed generation's files.

        The API is asked for its URL, as old ones expire; only where that fails is the one of ``generation`` tried.

        :param generation: of which at least the id is known.
        :param asset: ``video``, ``video_raw``, ``thumbnail`` or ``last_frame``.
        :raises LumaGenerationFailed: it failed, so that there is none.
        :raises LumaError: it is not completed, has no such file, or its URL is unknown.
        """
        known = generation.asset_url(asset)

        def fresh_url(*, repeat: bool = True) -> str:
            now = self.get_generation(generation.id, repeat=repeat)
            if now.state is GenerationState.FAILED:
                raise LumaGenerationFailed(now)
            url = now.asset_url(asset)
            if not url:
                raise LumaError(
                    f"Generation {now.id} is {now.state} and has no {asset} to store. Wait for it with "
                    "LumaGenerationSensor first; if it is completed, the API gave no URL."
                )
            return url

        try:
            url = fresh_url(repeat=not known)
        except (LumaApiError, LumaConnectionError) as error:
            if known is None:
                raise
            self.log.warning("%s Trying the URL that was given.", error)
            url = known
        client = self.get_conn()
        host = urlsplit(client.url).hostname or ""
        return Download(url, fresh_url, api_host=host, timeout=client.timeout, verify=client.verify)

    def test_connection(self) -> tuple[bool, str]:
        """Find out, at no cost, whether the connection works, and say in a sentence what to do where it does not."""
        try:
            client = self.get_conn()
            client.test()
        except (LumaError, AirflowNotFoundException) as error:
            # Airflow tests what the form holds under a name of its own, which would help nobody.
            return False, str(error.__cause__ if isinstance(error.__cause__, LumaError) else error)
        return True, f"{client.url} is {client.dialect.NAME} and accepts the token."

    @cached_property
    def _client(self) -> LumaClient:
        try:
            connection = self.get_connection(self.luma_conn_id)
        except AirflowNotFoundException as error:
            raise AirflowNotFoundException(
                f"There is no connection {self.luma_conn_id!r}. Make it under Admin > Connections (type Luma), or "
                f"with: airflow connections add {self.luma_conn_id} --conn-type luma --conn-password '<API token>'"
            ) from error
        try:
            return self._client_for(connection)
        except LumaError as error:
            raise type(error)(f"The connection {self.luma_conn_id!r}: {error}") from error

    def _client_for(self, connection: Connection) -> LumaClient:
        token = (connection.password or "").strip()
        if not token:
            raise LumaAuthenticationError("there is no API token: put it into the password, the form's API token.")
        extra = connection.extra_dejson
        api = choose_dialect(extra.get("api"), connection.host, token)
        url = base_url(connection.host, DIALECTS[api], schema=connection.schema, port=connection.port)
        if url.startswith("http:") and not is_this_machine(urlsplit(url).hostname or ""):
            self.log.warning("Connection %r sends its token to %s unencrypted: use https.", self.luma_conn_id, url)
        timeout = _parse_timeout(extra.get("timeout"))
        verify = _parse_verify(extra.get("verify"))
        return LumaClient(url, token, dialect=api, timeout=timeout, verify=verify)


def _parse_timeout(value: Any) -> float:
    with suppress(TypeError, ValueError):
        seconds = float(DEFAULT_TIMEOUT if value in (None, "") else value)
        if 0 < seconds < 3600:
            return seconds
    raise LumaInvalidRequest(f"the extra 'timeout' must be a number of seconds, got {value!r:.40}.")


def _parse_verify(value: Any) -> bool | str:
    if value in (None, ""):
        return True
    parsed = parse_bool(value)
    if isinstance(parsed, bool) or (isinstance(parsed, str) and Path(parsed).exists()):
        return parsed
    raise LumaInvalidRequest(f"the extra 'verify' must be true, false or the path of a CA bundle, got {value!r:.80}.")
