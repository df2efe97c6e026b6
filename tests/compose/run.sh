#!/usr/bin/env bash
# Runs the tests of the stack in containers; what follows the options goes to pytest.
#
#   tests/compose/run.sh [--start-engine] [PYTEST ARGUMENT ...]
#
# Needs a Docker engine and `docker compose`. With --start-engine, and where there is none, they are put on this machine
# and the engine is stopped again at the end. Where that cannot be done, or no base images can be had, it says so and
# ends with 0. Where the public images cannot be had, stand-ins are built and used in their place.
set -euo pipefail
cd "$(dirname "$0")/../.."

PROBE=valkey/valkey:8.1.4
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/sluice

say() { printf '%s\n' "containers: $*" >&2; }

start=no
if [ "${1:-}" = --start-engine ]; then start=yes; shift; fi

scratch=$(mktemp -d)
engine=''
finish() {
    if [ -n "$engine" ]; then
        kill "$engine" 2>/dev/null || true
        tail --pid="$engine" -f /dev/null 2>/dev/null || true
        say 'the engine is stopped again'
    fi
    rm -rf "$scratch"
}
trap finish EXIT

if ! { docker compose version && docker info; } >/dev/null 2>&1; then
    if [ "$start" = no ]; then
        say 'a running Docker engine and docker compose 2.21 or newer are needed, and are not here.'
        exit 1
    fi
    if ! engine=$(tests/compose/engine.sh "$scratch/engine" --start); then
        engine=''
        say 'not run: there is no Docker engine here, and none can be started.'
        exit 0
    fi
fi

if [ -z "${SLUICE_TEST_COMPOSE_ENV:-}" ] && ! timeout 60 docker pull --quiet "$PROBE" >/dev/null 2>&1; then
    say "the public images cannot be had ($PROBE was asked for); building stand-ins. This run says nothing of the"
    say 'official images.'
    if ! tests/compose/standins/build.sh "$CACHE" > "$scratch/standins.env"; then
        say 'not run: neither the public images nor what stands in for them can be had.'
        if [ "$start" = yes ]; then exit 0; fi
        exit 1
    fi
    export SLUICE_TEST_COMPOSE_ENV=$scratch/standins.env
fi

SLUICE_TEST_COMPOSE=1 .venv/bin/python -m pytest tests/compose "$@"
