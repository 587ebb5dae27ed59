#!/bin/sh
# Installs what the tests talk to: real brokers, databases, buses and a browser from Debian, peers from PyPI.
# Says what is missing where it may not install. Safe to run again: it does nothing when all is there.
set -eu
cd "$(dirname "$0")/.."

missing=""
need() { # command package
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"
}
need gpg gnupg
need xmllint libxml2-utils
need mosquitto mosquitto
need mosquitto_pub mosquitto-clients
need victoria-metrics victoria-metrics
need mbpoll mbpoll
need socat socat
need chromium chromium
need openssl openssl
need g++ g++
need unshare util-linux
need prlimit util-linux
need faketime faketime
need ip iproute2
need tc iproute2
need iptables iptables
need systemd-analyze systemd
need mmdebstrap mmdebstrap
[ -d /usr/share/fonts/opentype/noto ] || missing="$missing fonts-noto-cjk"
python3 -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"

if [ -n "$missing" ]; then
    root=""
    [ "$(id -u)" = 0 ] || root="sudo"
    echo "installing from Debian:$missing"
    # shellcheck disable=SC2086
    if ! { $root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $root apt-get install -qq -y --no-install-recommends $missing >/dev/null; }; then
        echo "could not install; run as root: apt-get install$missing" >&2
        exit 1
    fi
    # Debian starts a broker of its own on installation; the tests start theirs on free ports.
fi

python="target/test-python"
stamp="$python/.requirements"
if ! cmp -s tests/requirements.txt "$stamp" 2>/dev/null; then
    python3 -m venv "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check -r tests/requirements.txt
    cp tests/requirements.txt "$stamp"
fi
