"""A Luma gateway on your own machine: it answers, charges and misbehaves like the real one, for nothing."""

from airflow_provider_luma.sandbox.app import create_app
from airflow_provider_luma.sandbox.gateway import Settings
from airflow_provider_luma.sandbox.server import Sandbox

__all__ = ["Sandbox", "Settings", "create_app"]
