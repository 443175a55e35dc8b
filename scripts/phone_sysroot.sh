#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Puts the libraries for 64-bit ARM phones, Debian's own arm64 packages, into build-phone-sysroot/.
# Nothing is installed: arm64 -dev packages would push out the machine's own. apt works with lists
# and a cache in that folder, so the machine's architectures and lists stay what they are, and no
# root is needed. Does nothing when all is there.
#
#   scripts/phone_sysroot.sh [FOLDER]
set -eu
cd "$(dirname "$0")/.."
root=${1:-build-phone-sysroot}
# Of libqrencode there is no static library; a test wants its header.
packages='libprotobuf-c-dev liblmdb-dev libsodium-dev libxxhash-dev libjansson-dev libqrencode-dev
libturbojpeg0-dev libpng-dev zlib1g-dev'

[ "$(cat "$root/.packages" 2>/dev/null)" != "$packages" ] || exit 0
command -v apt-get >/dev/null || {
    echo "phone_sysroot.sh: needs Debian's apt-get; put libraries for aarch64 into $root" >&2
    exit 1
}
mkdir -p "$root/.apt/lists/partial" "$root/.apt/archives/partial" "$root/.apt/debs"
root=$(cd "$root" && pwd)
rm -f "$root/.packages"
touch "$root/.apt/status" # of no package: what the machine has installed does not matter

apt() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 \
        -o Dir::State="$root/.apt" -o Dir::State::status="$root/.apt/status" \
        -o Dir::Cache="$root/.apt" -o APT::Sandbox::User=root "$@"
}

echo "downloading for arm64: $packages"
apt update || true # a source that has nothing for arm64 is no matter; a missing package is
cd "$root/.apt/debs"
# shellcheck disable=SC2086 # a list of names
apt download $packages || {
    echo "phone_sysroot.sh: apt-get cannot download these for arm64: $packages" >&2
    exit 1
}
for package in *.deb; do
    dpkg -x "$package" "$root"
done
rm -rf "$root/.apt"
echo "$packages" >"$root/.packages"
