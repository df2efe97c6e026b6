"""The listeners of Sluice inside Airflow: sensor, trigger, hand-over, and what the stage tasks call."""
