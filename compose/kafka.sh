#!/bin/bash
# Becomes the broker; formats its folder at the first start.
set -euo pipefail
properties=/run/secrets/kafka/server.properties
if [ ! -f /var/lib/sluice/kafka/data/meta.properties ]; then
    # The storage tool would take an id that begins with a dash for an option.
    id=$(/opt/kafka/bin/kafka-storage.sh random-uuid)
    /opt/kafka/bin/kafka-storage.sh format --standalone -t "$id" -c "$properties"
fi
exec /opt/kafka/bin/kafka-server-start.sh "$properties"
