"""Make videos with Luma from an Apache Airflow DAG."""

__version__ = "0.1.0"
