#!/usr/bin/env bash
# Puts a container engine, `docker compose` and `docker buildx` on a bare Debian machine, from package sources
# only: the engine from Debian, the two plugins compiled from the Go module proxy (Debian 12 has neither).
# To be run as root; what is there already is left as it is.
#
#   tests/compose/engine.sh SOURCES [--start]
#
# SOURCES is a folder for the plugins' Go modules and, with --start, the engine's log.
# --start also starts the engine, waits until it answers, and prints its process id on standard output.
set -euo pipefail

COMPOSE_VERSION=v2.40.3
BUILDX_VERSION=v0.29.1
START_LIMIT_SECONDS=60

say() { printf '%s\n' "engine.sh: $*" >&2; }
die() { say "$*"; exit 1; }

sources='' start=no
for argument in "$@"; do
    case $argument in
        --start) start=yes ;;
        -*) die "unknown option $argument" ;;
        *) [ -z "$sources" ] || die 'only one folder can be given'; sources=$argument ;;
    esac
done
[ -n "$sources" ] || die 'usage: engine.sh SOURCES [--start]'
[ "$(id -u)" = 0 ] || die 'must be run as root: it installs packages and the engine needs it.'
mkdir -p "$sources"
sources=$(cd "$sources" && pwd)

# debootstrap is not for the engine but for the stand-in images, which are made next to it.
packages=()
for pair in dockerd:docker.io docker:docker.io iptables:iptables debootstrap:debootstrap; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || packages+=("${pair##*:}")
done
if [ ${#packages[@]} -gt 0 ]; then
    say "installing ${packages[*]}"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >&2
fi

# plugin NAME MODULE_PACKAGE VERSION VERSION_VARIABLE
plugin() {
    local name=$1 package=$2 version=$3 variable=$4
    local target="${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins/docker-$name"
    if [ -x "$target" ] || docker "$name" version >/dev/null 2>&1; then
        return
    fi
    command -v go >/dev/null \
        || die "docker $name is missing and has to be compiled, for which a Go toolchain ('go') must be on PATH."
    say "compiling docker $name $version"
    mkdir -p "$sources/$name" "${target%/*}"
    (
        cd "$sources/$name"
        # A module of its own which only names the tool: `go install package@version` refuses modules that have
        # replace directives, as both of these do.
        [ -f go.mod ] || go mod init "invalid.example/$name"
        go get -tool "$package@$version"
        CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X $variable=$version" -o "$target.new" "$package"
    ) >&2
    # Renamed only when whole, so that an interrupted run is not taken for a finished one.
    mv "$target.new" "$target"
}
plugin buildx github.com/docker/buildx/cmd/buildx "$BUILDX_VERSION" github.com/docker/buildx/version.Version
plugin compose github.com/docker/compose/v2/cmd "$COMPOSE_VERSION" github.com/docker/compose/v2/internal.Version

[ "$start" = yes ] || exit 0

if docker info >/dev/null 2>&1; then
    say 'the engine answers already'
    cat /var/run/docker.pid
    exit 0
fi
log=$sources/dockerd.log
# A session of its own, so that the engine outlives this script and the terminal; nice, so that tests next to it
# stay responsive.
setsid nice -n 2 dockerd >"$log" 2>&1 </dev/null &
pid=$!
deadline=$((SECONDS + START_LIMIT_SECONDS))
until docker info >/dev/null 2>&1; do
    if ! kill -0 "$pid" 2>/dev/null; then
        tail -n 20 "$log" >&2
        die "the engine ended at once; its log is $log"
    fi
    if [ "$SECONDS" -ge "$deadline" ]; then
        kill "$pid"
        die "the engine did not answer within $START_LIMIT_SECONDS seconds; its log is $log"
    fi
    sleep 1
done
printf '%s\n' "$pid"
