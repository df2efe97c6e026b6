#!/bin/bash
# Gives the connections of the DAGs, `spark_default` and `sluice_kafka`, to an Airflow that is there already; replaces
# those of the same ids. Where Sluice's servers are, and the listener's password, come from SLUICE_* variables or from
# the file that SLUICE_SECRETS_FILE names. AIRFLOW is the command that speaks to that Airflow, `airflow` by default.
set -euo pipefail
cd "$(dirname "$0")/.."
file=$(mktemp --suffix=.json)
trap 'rm -f "$file"' EXIT
"${PYTHON:-python}" -m sluice.airflow_config > "$file"
${AIRFLOW:-airflow} connections import --overwrite "$file"
