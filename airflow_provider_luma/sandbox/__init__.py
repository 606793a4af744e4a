"""Luma on your own machine: the sandbox plays the APIs, free of charge, with their errors."""

from airflow_provider_luma.sandbox.app import create_app
from airflow_provider_luma.sandbox.memory import Settings
from airflow_provider_luma.sandbox.server import Sandbox

__all__ = ["Sandbox", "Settings", "create_app"]
