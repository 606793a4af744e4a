"""The table of the APIs that offer Luma's models; imports nothing. Every list of APIs is generated from it."""

from __future__ import annotations

from typing import NamedTuple


class Api(NamedTuple):
    """
    One API.

    :param name: its name in the connection's extra ``api``, and of its module in ``api/dialects/``.
    :param label: its name in the connection's form and in messages.
    :param url: its default address.
    :param hosts: the host names that belong to it; none for an API that others offer on hosts of their own.
    :param key_prefix: the beginning of the keys that belong to it; empty if its keys have no common form, or if it has
        no hosts of its own.
    :param sandbox_token: the token of the pytest fixture ``luma_sandbox``; empty if the sandbox does not play this API.
    :param retired: the message for a connection that uses its host or its key, if this package does not support it.
    """

    name: str
    label: str
    url: str
    hosts: tuple[str, ...] = ()
    key_prefix: str = ""
    sandbox_token: str = ""
    retired: str = ""


_TABLE = (
    Api(
        name="gateway",
        label="a Luma gateway",
        url="https://www.kkiai.com",
        sandbox_token="token-of-the-sandbox",  # noqa: S106  # nosec B106
    ),
    Api(
        name="agents",
        label="Luma's own API",
        url="https://agents.lumalabs.ai",
        hosts=("agents.lumalabs.ai",),
        key_prefix="luma-api-",
        sandbox_token="luma-api-of-the-sandbox",  # noqa: S106  # nosec B106
    ),
    Api(
        name="dream_machine",
        label="Luma's former API",
        url="https://api.lumalabs.ai",
        hosts=("api.lumalabs.ai",),
        key_prefix="luma-",
        retired="Luma's former API (Dream Machine, api.lumalabs.ai) is not supported. Its current API, at "
        "agents.lumalabs.ai, needs a key of its own, which begins with luma-api-. Nothing was sent.",
    ),
)

APIS = {api.name: api for api in _TABLE if not api.retired}
"""The supported APIs by name. The first is the default."""

RETIRED = tuple(api for api in _TABLE if api.retired)
"""The APIs that are recognised in order to refuse them."""
