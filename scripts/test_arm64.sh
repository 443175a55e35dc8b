#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the kernels for 64-bit ARM with a cross compiler, runs their tests under qemu, and bounds
# the inner loops with llvm-mca. Installs what that takes.
#
#   scripts/test_arm64.sh [JOBS]
set -eu
cd "$(dirname "$0")/.."
jobs=${1:-$(nproc)}
scripts/install_deps.sh arm64
[ -f build-arm64/build.ninja ] || cmake --preset arm64
cmake --build --preset arm64 --parallel "$jobs"
ctest --preset arm64 --parallel "$jobs"
