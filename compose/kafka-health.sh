#!/bin/bash
# Whether the broker answers a request (ApiVersions, which needs no login): a JVM for each look would cost a second.
set -euo pipefail
exec 3<>"/dev/tcp/127.0.0.1/${KAFKA_HEALTH_PORT:-9092}"
# Length 16, key 18, version 0, correlation 1, client "health".
printf '\x00\x00\x00\x10\x00\x12\x00\x00\x00\x00\x00\x01\x00\x06health' >&3
answer=$(head -c 10 <&3 | od -An -tx1 | tr -d ' \n')
# After the length: the same correlation, no error.
[ "${answer:8}" = "000000010000" ]
