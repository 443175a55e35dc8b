# SPDX-License-Identifier: Apache-2.0
# Builds for 64-bit ARM with Debian's cross compiler; tests run under qemu's user mode. The CPU is
# the oldest that counts, so an instruction beyond Armv8.0-A ends a test with SIGILL.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -cpu cortex-a53)
# Static programs need no ARM system to be loaded from.
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
