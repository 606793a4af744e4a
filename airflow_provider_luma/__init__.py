"""Make videos with Luma from an Apache Airflow DAG."""

__version__ = "0.1.0"

DEFAULT_CONN_ID = "luma_default"
"""The Airflow connection that is used unless a task names another."""
