"""The links on a task in Airflow's UI."""
