#!/usr/bin/env bash
# kafka-run-class.sh [-name NAME] [-loggc] CLASS [ARGUMENT...], with the variables of Kafka's own script.
set -euo pipefail

if [ $# = 0 ]; then
    echo "usage: $0 [-name NAME] [-loggc] CLASS [ARGUMENT...]" >&2
    exit 1
fi
home=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
while [ $# -gt 0 ]; do
    case $1 in
        -name) shift 2 ;;
        # Accepted for the calling convention; a log of the garbage collector is of no use to tests.
        -loggc) shift ;;
        -daemon) echo "$0: -daemon is not supported here" >&2; exit 1 ;;
        *) break ;;
    esac
done

: "${KAFKA_HEAP_OPTS:=-Xmx256M}"
: "${KAFKA_JVM_PERFORMANCE_OPTS:=-server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -Djava.awt.headless=true}"
: "${KAFKA_LOG4J_OPTS:=-Dlog4j2.configurationFile=$home/config/tools-log4j2.yaml}"
java=java
if [ -n "${JAVA_HOME:-}" ]; then java=$JAVA_HOME/bin/java; fi

# The variables hold several options each, separated by spaces, as Kafka's own script takes them.
# shellcheck disable=SC2086
exec "$java" $KAFKA_HEAP_OPTS $KAFKA_JVM_PERFORMANCE_OPTS ${KAFKA_GC_LOG_OPTS:-} ${KAFKA_JMX_OPTS:-} \
    -Dkafka.logs.dir="${LOG_DIR:-$home/logs}" $KAFKA_LOG4J_OPTS -cp "${CLASSPATH:+$CLASSPATH:}$home/libs/*" \
    ${KAFKA_OPTS:-} "$@"
