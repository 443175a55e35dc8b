# SPDX-License-Identifier: Apache-2.0
# Builds with Android's NDK, against Android's own C library:
#
#   cmake -B build-android -G Ninja -DCMAKE_TOOLCHAIN_FILE=cmake/android-ndk.cmake \
#         -DANDROID_NDK=/path/to/ndk -DSHOAL_PREFIX=/path/to/libraries -DSHOAL_TESTS=OFF
#
# ANDROID_NDK may be an environment variable. SHOAL_PREFIX: where protobuf-c, lmdb, libsodium,
# xxhash, jansson and libqrencode, built for Android, were installed. ANDROID_ABI and
# ANDROID_PLATFORM may be given; Android 9 is the oldest that has all that Shoal
# calls (tests/phone/bionic.txt).
if(NOT ANDROID_NDK)
  set(ANDROID_NDK "$ENV{ANDROID_NDK}")
endif()
set(toolchain "${ANDROID_NDK}/build/cmake/android.toolchain.cmake")
if(NOT EXISTS "${toolchain}")
  message(FATAL_ERROR "no Android NDK: there is no file ${toolchain}; give -DANDROID_NDK=FOLDER")
endif()
if(NOT ANDROID_ABI)
  set(ANDROID_ABI arm64-v8a)
endif()
if(NOT ANDROID_PLATFORM)
  set(ANDROID_PLATFORM android-28)
endif()
# CMake reads this file again for each of its small trials: they need the same.
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ANDROID_NDK ANDROID_ABI ANDROID_PLATFORM
     SHOAL_PREFIX)
if(SHOAL_PREFIX)
  list(APPEND CMAKE_FIND_ROOT_PATH "${SHOAL_PREFIX}")
  set(ENV{PKG_CONFIG_LIBDIR} "${SHOAL_PREFIX}/lib/pkgconfig")
endif()
include("${toolchain}")
