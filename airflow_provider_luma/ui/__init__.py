"""The Luma tab of Airflow's UI, from Airflow 3.1 on."""
