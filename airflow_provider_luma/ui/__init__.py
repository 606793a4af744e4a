"""The Luma tab in Airflow's UI (Airflow 3.1 and later)."""
