#!/usr/bin/env bash
# kafka-server-start.sh server.properties [--override NAME=VALUE]...
set -euo pipefail
bin=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
export KAFKA_HEAP_OPTS="${KAFKA_HEAP_OPTS:--Xmx1G -Xms1G}"
export KAFKA_LOG4J_OPTS="${KAFKA_LOG4J_OPTS:--Dlog4j2.configurationFile=$bin/../config/log4j2.yaml}"
exec "$bin/kafka-run-class.sh" -name kafkaServer -loggc kafka.Kafka "$@"
