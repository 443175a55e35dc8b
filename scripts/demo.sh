#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The demonstration: installs what is missing, builds, brings MNIST into demo/, trains LeNet with a
# coordinator and worker processes on this machine, and tests it. May be interrupted and run again.
#
#   scripts/demo.sh                        or: make demo
#   WORKERS=8 MNIST_DIR=FOLDER scripts/demo.sh
#
# WORKERS: how many workers (4). MNIST_DIR: a folder that holds the four files of MNIST already.
set -eu

fail() {
    echo "demo.sh: $*" >&2
    exit 1
}

say() {
    printf '\n==> %s\n' "$*"
}

# An LMDB at $3 from the images $1 and labels $2; it gets its name only when it is whole.
convert() {
    [ -d "demo/$3" ] || {
        echo "converting to demo/$3"
        build/shoal convert_mnist_data "demo/mnist/$1" "demo/mnist/$2" "demo/$3"
    }
}

workers=${WORKERS:-4}
least=0.985 # part of the test images that must be right
final=demo/lenet_iter_3000.caffemodel
cd "$(dirname "$0")/.."

say "Building"
scripts/install_deps.sh demo
make --no-print-directory build

say "Data"
scripts/get_mnist.sh demo/mnist
convert train-images-idx3-ubyte train-labels-idx1-ubyte mnist_train_lmdb
convert t10k-images-idx3-ubyte t10k-labels-idx1-ubyte mnist_test_lmdb

say "Training: a coordinator and $workers workers"
rm -f "$final"
start=$(date +%s)
build/shoal train --solver=examples/mnist/lenet_solver.prototxt --workers="$workers"
seconds=$(($(date +%s) - start))

say "Testing $final"
build/shoal test --model=examples/mnist/lenet_train_test.prototxt --weights="$final" \
    --iterations=100 >demo/test.log
accuracy=$(sed -n 's/^accuracy = //p' demo/test.log)
[ -n "$accuracy" ] || fail "demo/test.log has no accuracy"
awk -v accuracy="$accuracy" -v seconds="$seconds" -v workers="$workers" 'BEGIN {
    printf "%.2f %% of the 10,000 test images are right, after %d s of training with %d workers\n",
        100 * accuracy, seconds, workers }'
awk -v accuracy="$accuracy" -v least="$least" 'BEGIN { exit !(accuracy > least) }' ||
    fail "expected more than $least; please report this with demo/test.log"
