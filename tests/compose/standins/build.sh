#!/usr/bin/env bash
# Builds local stand-ins for the public base images of the compose set-up, for machines which reach package
# mirrors but no public image registry. They are for tests only: same commands, users and folders as the public
# images where the set-up relies on them, with Debian's packages inside.
#
#   tests/compose/standins/build.sh CACHE > standin.env
#
# CACHE holds bin/minio (the MinIO server's program) and kafka-jars/*.jar. Prints an env file for compose on
# standard output; all else goes to standard error. Needs root, a running engine and debootstrap
# (tests/compose/engine.sh). Repeating it is cheap.
#
# Read from the environment: STANDIN_DEBIAN_MIRROR, STANDIN_DEBIAN_SECURITY_MIRROR, STANDIN_MAVEN_REPOSITORY, and
# the package-index and proxy variables named below, which are handed on to the images.
set -euo pipefail

# The env file is written to the original standard output at the end; no program may write between.
exec 3>&1 1>&2

say() { printf '%s\n' "standins: $*"; }
die() { say "$*"; exit 1; }

[ $# = 1 ] || die 'usage: build.sh CACHE'
[ -d "$1" ] || die "there is no folder $1"
cache=$(cd "$1" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mirror=${STANDIN_DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${STANDIN_DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security}
maven=${STANDIN_MAVEN_REPOSITORY:-https://repo1.maven.org/maven2}

[ -x "$cache/bin/minio" ] || die "$cache/bin/minio is missing"
compgen -G "$cache/kafka-jars/kafka_2*.jar" >/dev/null || die "$cache/kafka-jars has no Kafka in it"
docker info >/dev/null || die 'the container engine does not answer'

export DOCKER_BUILDKIT=1
# The engine's own builder: another one would not see the images that exist only in this engine.
export BUILDX_BUILDER=default BUILDX_NO_DEFAULT_ATTESTATIONS=1

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT

# --- base -----------------------------------------------------------------------------------------------------

base=sluice-standin/debian:bookworm
ca_in_image=/etc/ssl/sluice-standin-ca.pem

bundle=
for candidate in "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}" /etc/ssl/certs/ca-certificates.crt; do
    if [ -n "$candidate" ] && [ -r "$candidate" ]; then bundle=$candidate; break; fi
done
[ -n "$bundle" ] || die 'no CA bundle: set SSL_CERT_FILE or install ca-certificates'

# `docker import` takes Dockerfile instructions one by one; inheriting them spares every child a copy.
changes=()
environment() { changes+=(--change "ENV $1=\"$(printf '%s' "$2" | sed 's/[\\"$]/\\&/g')\""); }
environment PATH /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
environment LANG C.UTF-8
for name in PIP_CERT SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE GIT_SSL_CAINFO NODE_EXTRA_CA_CERTS; do
    environment "$name" "$ca_in_image"
done
environment UV_NATIVE_TLS true
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_DEFAULT_TIMEOUT \
    UV_INDEX_URL UV_DEFAULT_INDEX UV_INDEX UV_EXTRA_INDEX_URL UV_HTTP_TIMEOUT \
    http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    if [ -n "${!name:-}" ]; then environment "$name" "${!name}"; fi
done
changes+=(--change 'CMD ["bash"]')
description=org.opencontainers.image.description
changes+=(--change "LABEL $description=\"Stand-in of debian:bookworm-slim for tests; not for use\"")

# What the base was made of, so that another CA bundle or index makes a new one and nothing else does.
recipe=$({ cat "$bundle"; printf '%s\n' "$mirror" "$security" "${changes[@]}"; sed -n '/^make_base()/,/^}/p' "$0"; } \
    | sha256sum | cut -d' ' -f1)
recipe_label=sluice.standin.recipe

make_base() {
    local root=$work/root
    command -v debootstrap >/dev/null || die 'debootstrap is missing (tests/compose/engine.sh installs it)'
    say "making $base with debootstrap"
    debootstrap --variant=minbase --include=ca-certificates bookworm "$root" "$mirror"
    printf 'deb %s\n' "$mirror bookworm main" "$mirror bookworm-updates main" "$security bookworm-security main" \
        >"$root/etc/apt/sources.list"

    # As in the public slim images: packages do not start services, and leave neither archives nor manuals.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    printf '%s\n' 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };' \
        'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";' 'Acquire::Languages "none";' \
        'Acquire::Retries "3";' >"$root/etc/apt/apt.conf.d/80standin"
    printf 'path-exclude=%s\n' '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/info/*' \
        >"$root/etc/dpkg/dpkg.cfg.d/80standin"
    # Folders stay: a package of Java's sets links in those of the manuals and fails without them.
    find "$root"/usr/share/{doc,man,info} ! -type d -delete
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/archives/*.deb

    # The bundle under a name which no package rewrites, for the programs that are pointed at a file ...
    install -D -m 644 "$bundle" "$root$ca_in_image"
    # ... and what Debian does not have itself also as single certificates, where update-ca-certificates takes them
    # from: its hooks are what fills the key store of a Java that a child image installs.
    local extra=$root/usr/local/share/ca-certificates
    mkdir -p "$extra"
    awk -v folder="$extra" '
        /-BEGIN CERTIFICATE-/ { inside = 1; text = "" }
        inside { sub(/\r$/, ""); text = text $0 "\n" }
        /-END CERTIFICATE-/ {
            inside = 0
            if (FNR == NR) known[text] = 1
            else if (!(text in known)) {
                known[text] = 1
                file = sprintf("%s/sluice-standin-%03d.crt", folder, ++count)
                printf "%s", text >file
                close(file)
            }
        }' "$root/etc/ssl/certs/ca-certificates.crt" "$bundle"
    chroot "$root" update-ca-certificates

    tar -C "$root" --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' --numeric-owner -c . \
        | docker import "${changes[@]}" --change "LABEL $recipe_label=$recipe" - "$base"
}

present=$(docker image inspect --format "{{index .Config.Labels \"$recipe_label\"}}" "$base" 2>/dev/null || true)
if [ "$present" = "$recipe" ]; then say "$base is there already"; else make_base; fi

# --- children -------------------------------------------------------------------------------------------------

# build IMAGE PUBLIC_NAME TAR_ARGUMENTS...: the context comes as a tar archive, so that files of the repository and
# of CACHE can be put together without copies. Its modes make all readable for any user of the image; a chmod in a
# Dockerfile would store large files twice.
build() {
    local image=$1 public=$2
    shift 2
    say "building $image"
    tar --owner=0 --group=0 --mode=u=rwX,go=rX -c "$@" \
        | docker build --progress=plain --build-arg BASE="$base" -t "$image" \
            --label "$description=Stand-in of $public for tests; not for use" -
}

python=sluice-standin/python:3.11
airflow=sluice-standin/airflow:3.3.2-python3.11
postgres=sluice-standin/postgres:15
kafka=sluice-standin/kafka:4
valkey=sluice-standin/valkey:7
minio=sluice-standin/minio

# Kafka's command line tools are a module of their own, which the server does not need and CACHE may lack.
tools_from=$cache/kafka-jars
if ! compgen -G "$tools_from/kafka-tools-[0-9]*.jar" >/dev/null; then
    version=$(basename "$(compgen -G "$cache/kafka-jars/kafka-clients-[0-9]*.jar" | head -n 1)" .jar)
    version=${version#kafka-clients-}
    tools_from=$cache/standins/kafka-jars
    if [ ! -s "$tools_from/kafka-tools-$version.jar" ]; then
        command -v curl >/dev/null || die 'curl is missing'
        mkdir -p "$tools_from"
        curl --cacert "$bundle" -fsSL --retry 3 -o "$tools_from/.part" \
            "$maven/org/apache/kafka/kafka-tools/$version/kafka-tools-$version.jar"
        mv "$tools_from/.part" "$tools_from/kafka-tools-$version.jar"
    fi
    tools=(-C "$tools_from" --transform "s|^kafka-tools-|kafka-jars/&|" "kafka-tools-$version.jar")
else
    tools=()
fi

build "$python" python:3.11-slim-bookworm -C "$here/python" .
build "$airflow" apache/airflow:3.3.2-python3.11 -C "$here/airflow" .
build "$postgres" postgres:15 -C "$here/postgres" .
build "$kafka" apache/kafka:4 -C "$here/kafka" . -C "$cache" kafka-jars "${tools[@]}"
build "$valkey" valkey/valkey:7 -C "$here/valkey" .
build "$minio" minio/minio -C "$here/minio" . -C "$cache/bin" minio

cat >&3 <<END
PYTHON_IMAGE=$python
AIRFLOW_IMAGE=$airflow
POSTGRES_IMAGE=$postgres
KAFKA_IMAGE=$kafka
VALKEY_IMAGE=$valkey
MINIO_IMAGE=$minio
PULL_POLICY=never
END
