#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The tests of the programs for phones, which `make phone` builds. Installs what that takes.
#
#   scripts/test_phone.sh
set -eu
cd "$(dirname "$0")/.."
scripts/install_deps.sh test-phone
mkdir -p build/tests/scratch
for test in tests/phone/test_*.py; do
    echo "$test"
    code=0
    (cd build/tests/scratch &&
        PYTHONDONTWRITEBYTECODE=1 python3 "../../../$test" ../../shoal ../../../../shared) || code=$?
    [ $code -eq 0 ] || [ $code -eq 77 ] || exit $code
done
