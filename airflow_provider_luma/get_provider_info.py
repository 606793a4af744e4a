"""The provider's description, which Airflow reads when it starts; this module imports only the table of APIs."""

from __future__ import annotations

from airflow_provider_luma.apis import APIS

CONNECTION_TYPE: dict[str, object] = {
    "connection-type": "luma",
    "hook-class-name": "airflow_provider_luma.hooks.luma.LumaHook",
    "hook-name": "Luma",
    "ui-field-behaviour": {
        "hidden-fields": ["description", "login", "port", "schema", "extra"],
        "relabeling": {"host": "Host", "password": "API token"},
        "placeholders": {
            "host": "leave empty for the default: "
            + ", ".join(f"{api.hosts[0]} for keys with {api.key_prefix}" for api in APIS.values() if api.key_prefix)
            + f", else {next(iter(APIS.values())).url.partition('://')[2]}",
            "password": "the token, with or without Bearer",
        },
    },
    "conn-fields": {
        "api": {
            "label": "API",
            "description": "Needed only if neither the host nor the token belongs to an API, as for a proxy. "
            + ", ".join(f"{api.name}: {api.label}" for api in APIS.values())
            + ".",
            "schema": {"type": ["string", "null"], "default": None, "enum": [*APIS]},
        },
        "timeout": {
            "label": "Timeout (seconds)",
            "description": "Limit for one request.",
            "schema": {"type": ["number", "null"], "default": 30, "minimum": 1, "maximum": 3599},
        },
        "verify": {
            "label": "Verify TLS",
            "description": "Check the host's certificate. The extra 'verify' can also be the path of a CA bundle.",
            "schema": {"type": ["boolean", "null"], "default": True},
        },
    },
}
"""The connection's form: Airflow's own fields, and the extras."""


def get_provider_info() -> dict[str, object]:
    """Return the provider's description in the form of Airflow's ``provider.yaml``."""
    return {
        "package-name": "airflow-provider-luma",
        "name": "Luma",
        "description": "Make videos with `Luma <https://lumalabs.ai/>`__: submit, wait, and store the result.",
        "integrations": [
            {
                "integration-name": "Luma",
                "external-doc-url": "https://docs.lumalabs.ai/docs/video-generation",
                "tags": ["service", "ai", "generative-ai"],
            }
        ],
        "extra-links": ["airflow_provider_luma.links.luma.WatchVideoLink"],
        "triggers": [{"integration-name": "Luma", "python-modules": ["airflow_provider_luma.triggers.luma"]}],
        "task-decorators": [
            {"class-name": "airflow_provider_luma.decorators.luma.luma_video_task", "name": "luma_video"}
        ],
        "connection-types": [CONNECTION_TYPE],
    }
