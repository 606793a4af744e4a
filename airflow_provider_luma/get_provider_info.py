"""What Airflow reads of this package at start-up; imports nothing."""

from __future__ import annotations

CONNECTION_TYPE: dict[str, object] = {
    "connection-type": "luma",
    "hook-class-name": "airflow_provider_luma.hooks.luma.LumaHook",
    "hook-name": "Luma",
    "ui-field-behaviour": {
        "hidden-fields": ["description", "login", "port", "schema", "extra"],
        "relabeling": {"host": "Host", "password": "API token"},
        "placeholders": {
            "host": "empty: Luma for a key that begins with luma-, else www.kkiai.com, a third party's gateway",
            "password": "the token, without Bearer",
        },
    },
    "conn-fields": {
        "api": {
            "label": "API",
            "description": "agents is Luma's own API, gateway a third party's. Without a choice the host decides: "
            "agents.lumalabs.ai is Luma's own; with an empty one, so is a token that begins with luma-.",
            "schema": {"type": ["string", "null"], "default": None, "enum": ["gateway", "agents"]},
        },
        "timeout": {
            "label": "Timeout (seconds)",
            "description": "How long one request may take.",
            "schema": {"type": ["number", "null"], "default": 30, "minimum": 1, "maximum": 3599},
        },
        "verify": {
            "label": "Verify TLS",
            "description": "Check the host's certificate. The extra 'verify' may also be the path of a CA bundle.",
            "schema": {"type": ["boolean", "null"], "default": True},
        },
    },
}
"""The connection's form: what of it Airflow itself has, and what it asks of the extras."""


def get_provider_info() -> dict[str, object]:
    """Return the provider's description, in the form of Airflow's ``provider.yaml``."""
    return {
        "package-name": "airflow-provider-luma",
        "name": "Luma",
        "description": "Make videos with `Luma <https://lumalabs.ai/>`__: submit, wait, and hand on the result.",
        "integrations": [
            {
                "integration-name": "Luma",
                "external-doc-url": "https://docs.lumalabs.ai/docs/video-generation",
                "tags": ["service", "ai", "generative-ai"],
            }
        ],
        "hooks": [{"integration-name": "Luma", "python-modules": ["airflow_provider_luma.hooks.luma"]}],
        "operators": [{"integration-name": "Luma", "python-modules": ["airflow_provider_luma.operators.luma"]}],
        "sensors": [{"integration-name": "Luma", "python-modules": ["airflow_provider_luma.sensors.luma"]}],
        "triggers": [{"integration-name": "Luma", "python-modules": ["airflow_provider_luma.triggers.luma"]}],
        "extra-links": [
            "airflow_provider_luma.links.luma.LumaTaskLink",
            "airflow_provider_luma.links.luma.WatchVideoLink",
        ],
        "task-decorators": [
            {"class-name": "airflow_provider_luma.decorators.luma.luma_video_task", "name": "luma_video"}
        ],
        "connection-types": [CONNECTION_TYPE],
    }
