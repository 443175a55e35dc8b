# SPDX-License-Identifier: Apache-2.0
# A thin front of CMake and its presets; see README.md.
#
#   make            install what is missing, build into build/
#   make demo       train LeNet on MNIST with four workers
#   make test       every test, then again under the sanitizers, those of the kernels also for ARM
#   make bench      training speed beside PyTorch and Caffe; BENCH="--help" tells more
#   make install    PREFIX=/usr/local DESTDIR=
#   make clean      remove the build folders

JOBS ?= $(shell nproc)
PREFIX ?= /usr/local

# Tests that run more than one thread or process: these go under the thread sanitizer.
THREADED = ^(unit_base_pool|unit_collective_.*|unit_train_.*|cluster_.*)$$

# Where the kernel randomises addresses too much for the thread sanitizer, without that.
FIXED_ADDRESSES = $$(setarch -R true 2>/dev/null && echo setarch -R)

.PHONY: all build deps demo test test-release test-asan test-tsan test-arm64 bench install clean

all: build

deps:
	@scripts/install_deps.sh

build: deps
	@[ -f build/build.ninja ] || cmake --preset release
	cmake --build --preset release --parallel $(JOBS)

demo:
	@scripts/demo.sh

test: test-arm64

test-release: build
	ctest --preset release --parallel $(JOBS)

test-asan: test-release
	@[ -f build-asan/build.ninja ] || cmake --preset asan
	cmake --build --preset asan --parallel $(JOBS)
	SHOAL_TEST_BRIEF=1 ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 \
		ctest --preset asan --parallel $(JOBS)

test-tsan: test-asan
	@[ -f build-tsan/build.ninja ] || cmake --preset tsan
	cmake --build --preset tsan --parallel $(JOBS)
	TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 \
		$(FIXED_ADDRESSES) ctest --preset tsan --parallel $(JOBS) --tests-regex '$(THREADED)'

# On an ARM machine the tests above are these.
test-arm64: test-tsan
	@[ "$$(uname -m)" = aarch64 ] || scripts/test_arm64.sh $(JOBS)

# BENCH: flags of bench/run.py, such as BENCH="--nets resnet50 --rounds 5". CAFFE: a caffe binary.
bench: build
	python3 bench/run.py $(BENCH)

install: build
	DESTDIR="$(DESTDIR)" cmake --install build --prefix "$(PREFIX)"

clean:
	rm -rf build build-asan build-tsan build-arm64
