#!/bin/sh
# Options or a configuration file alone are for valkey-server, which runs as user valkey: as in the public image.
set -eu

case ${1:-} in
    -* | *.conf) set -- valkey-server "$@" ;;
esac
if [ "${1:-}" = valkey-server ]; then
    if [ "$(id -u)" = 0 ]; then
        find . ! -user valkey -exec chown valkey {} +
        exec setpriv --reuid=valkey --regid=valkey --clear-groups "$0" "$@"
    fi
    umask 0077
    # The public image's server is built without protected mode, which would refuse other containers when there is
    # no password. Not with options that only inform.
    case " $* " in
        *' --protected-mode '* | *' --version '* | *' -v '* | *' --help '* | *' -h '*) ;;
        *) set -- "$@" --protected-mode no ;;
    esac
fi
exec "$@"
