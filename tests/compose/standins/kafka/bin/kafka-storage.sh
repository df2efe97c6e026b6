#!/usr/bin/env bash
bin=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
exec "$bin/kafka-run-class.sh" kafka.tools.StorageTool "$@"
