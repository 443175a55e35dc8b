# SPDX-License-Identifier: Apache-2.0
# What SHOAL_KERNELS_ONLY leaves after the rooms: their tests, for a machine whose libraries are not
# here (preset arm64). In place of cmocka the tests see tests/small_cmocka/.

if(NOT SHOAL_TESTS)
  return()
endif()
enable_testing()

# As shoal_test() of Tests.cmake, for tests that need no program and no data.
function(shoal_kernels_only_test name source room)
  add_executable(${name} ${source})
  target_compile_definitions(${name} PRIVATE _GNU_SOURCE)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests
    ${CMAKE_SOURCE_DIR}/tests/small_cmocka)
  target_link_libraries(${name} PRIVATE room_${room})
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS ${room} TIMEOUT 600)
endfunction()

file(GLOB sources CONFIGURE_DEPENDS tests/kernels/test_*.c)
foreach(source ${sources})
  get_filename_component(stem ${source} NAME_WE)
  string(REPLACE "test_" "kernels_" name ${stem})
  shoal_kernels_only_test(${name} ${source} kernels)
endforeach()
shoal_kernels_only_test(unit_base_pool tests/unit/base/test_pool.c base)
shoal_kernels_only_test(unit_cpu_cpu tests/unit/cpu/test_cpu.c cpu)

# qemu tells nothing of speed; a model of the cores does.
if(CMAKE_SYSTEM_PROCESSOR STREQUAL aarch64)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  add_test(NAME bound_neon
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/scripts/bound_neon.py
                   --cc=${CMAKE_C_COMPILER})
  set_tests_properties(bound_neon PROPERTIES LABELS kernels TIMEOUT 600 SKIP_RETURN_CODE 77)
endif()
