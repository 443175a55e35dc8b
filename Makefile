# SPDX-License-Identifier: Apache-2.0
# A thin front of CMake and its presets; see README.md.
#
#   make            install what is missing, build into build/
#   make phone      build one static program for phones (and one for emulators) into build/phone/
#   make demo       train LeNet on MNIST with four workers
#   make test       every test, then again under the sanitizers, those of the kernels also for ARM,
#                   and the programs for phones
#   make bench      training speed beside PyTorch and Caffe; BENCH="--help" tells more
#   make bench-cluster  collectives beside Gloo and MPI, recovery, scaling, over shaped links (root)
#   make MPI=1      the same as make, with --collective=mpi
#   make install    PREFIX=/usr/local DESTDIR=
#   make clean      remove the build folders

JOBS ?= $(shell nproc)
PREFIX ?= /usr/local

# Tests that run more than one thread or process: these go under the thread sanitizer.
THREADED = ^(unit_base_pool|unit_collective_.*|unit_train_.*|cluster_(equality|faults|resume|modes))$$

# What tests the network between machines, or other programs, rather than ours, or takes long beside
# others of its kind: once is enough.
ONCE = ^(cluster_(lab|netns)|discovery|deploy_adb|golden_largerlenet)$$

# Where the kernel randomises addresses too much for the thread sanitizer, without that.
FIXED_ADDRESSES = $$(setarch -R true 2>/dev/null && echo setarch -R)

# Processors of phones that programs are built for here.
PHONES = aarch64 $(if $(filter x86_64,$(shell uname -m)),x86_64)

# Bytes that the program for aarch64 may have.
PHONE_LIMIT = 3000000

.PHONY: all build deps phone demo test test-release test-asan test-tsan test-mpi test-arm64 \
	test-phone bench bench-cluster soak install clean

all: build

deps:
	@scripts/install_deps.sh

build: deps
	@[ -f build/build.ninja ] || cmake --preset release
	@[ -z "$(MPI)" ] || { scripts/install_deps.sh mpi && cmake --preset release -DSHOAL_MPI=ON; }
	cmake --build --preset release --parallel $(JOBS)

# `shoal deploy` looks for them beside the program.
phone:
	@scripts/install_deps.sh phone
	@[ "$$(uname -m)" = aarch64 ] || scripts/phone_sysroot.sh
	@set -e; mkdir -p build/phone; for arch in $(PHONES); do \
		[ -f build-phone-$$arch/build.ninja ] || cmake --preset phone-$$arch; \
		cmake --build --preset phone-$$arch --parallel $(JOBS); \
		cmp -s build-phone-$$arch/shoal build/phone/shoal-$$arch || \
			install build-phone-$$arch/shoal build/phone/shoal-$$arch; done
	@[ $$(stat -c %s build/phone/shoal-aarch64) -lt $(PHONE_LIMIT) ] || \
		{ echo "build/phone/shoal-aarch64 has $(PHONE_LIMIT) bytes or more" >&2; exit 1; }

demo:
	@scripts/demo.sh

test: test-phone

test-release: build
	@scripts/install_deps.sh test || echo "test: some tests will say what they lack, and be left out"
	ctest --preset release --parallel $(JOBS)

test-asan: test-release
	@[ -f build-asan/build.ninja ] || cmake --preset asan
	cmake --build --preset asan --parallel $(JOBS)
	SHOAL_TEST_BRIEF=1 ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 \
		ctest --preset asan --parallel $(JOBS) --exclude-regex '$(ONCE)'

test-tsan: test-asan
	@[ -f build-tsan/build.ninja ] || cmake --preset tsan
	cmake --build --preset tsan --parallel $(JOBS)
	TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 \
		$(FIXED_ADDRESSES) ctest --preset tsan --parallel $(JOBS) --tests-regex '$(THREADED)'

test-mpi: test-tsan
	@if scripts/install_deps.sh mpi; then set -e; for kind in openmpi mpich; do \
		[ -f build-$$kind/build.ninja ] || cmake --preset $$kind; \
		cmake --build --preset $$kind --parallel $(JOBS); ctest --preset $$kind; done; \
	else echo "test-mpi: left out: Open MPI and MPICH cannot be installed here"; fi

# On an ARM machine the tests above are these.
test-arm64: test-mpi
	@[ "$$(uname -m)" = aarch64 ] || scripts/test_arm64.sh $(JOBS)

test-phone: test-arm64 phone
	@scripts/test_phone.sh

# BENCH: flags of bench/run.py, such as BENCH="--nets resnet50 --rounds 5". CAFFE: a caffe binary.
bench: build
	python3 bench/run.py $(BENCH)

# Needs root, for network namespaces. BENCH: flags of `bench/cluster.py allreduce`.
bench-cluster: build
	scripts/install_deps.sh bench-cluster
	python3 bench/cluster.py rates
	python3 bench/cluster.py allreduce $(BENCH)
	python3 bench/cluster.py recovery
	python3 bench/cluster.py scaling

# An hour of failures.
soak: build
	python3 bench/cluster.py soak

install: build
	DESTDIR="$(DESTDIR)" cmake --install build --prefix "$(PREFIX)"

clean:
	rm -rf build build-asan build-tsan build-arm64 build-openmpi build-mpich build-phone-*
