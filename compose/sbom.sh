#!/bin/bash
# Prints a bill of materials (CycloneDX, JSON) of the Python packages in an image: compose/sbom.sh sluice/airflow:dev
# Debian's packages and, in the image of Spark, jars are not in it: those are in compose/jars/*.sha256.
set -euo pipefail
cd "$(dirname "$0")/.."
list='import importlib.metadata as m; print(*sorted({f"{d.name}=={d.version}" for d in m.distributions()}), sep="\n")'
docker run --rm --network none --entrypoint python "$1" -c "$list" | .venv/bin/cyclonedx-py requirements -
