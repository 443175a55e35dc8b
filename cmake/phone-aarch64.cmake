# SPDX-License-Identifier: Apache-2.0
# Builds the static binary for phones: Debian's cross compiler, and the libraries that
# scripts/phone_sysroot.sh unpacks. The CPU is the oldest that counts, Armv8.0-A. On a 64-bit ARM
# machine it is the machine's own compiler and libraries.
if(NOT CMAKE_HOST_SYSTEM_PROCESSOR STREQUAL aarch64)
  set(CMAKE_SYSTEM_NAME Linux)
  set(CMAKE_SYSTEM_PROCESSOR aarch64)
  set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
  set(SHOAL_SYSROOT ${CMAKE_CURRENT_LIST_DIR}/../build-phone-sysroot)
  set(ENV{PKG_CONFIG_LIBDIR} ${SHOAL_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig)
  set(ENV{PKG_CONFIG_SYSROOT_DIR} ${SHOAL_SYSROOT})
  # Their headers are in a usr/include, which pkg-config would leave out.
  set(ENV{PKG_CONFIG_ALLOW_SYSTEM_CFLAGS} 1)
  set(ENV{PKG_CONFIG_ALLOW_SYSTEM_LIBS} 1)
endif()
