# SPDX-License-Identifier: Apache-2.0
# Every tests/unit/<room>/test_*.c is one cmocka program, linked with that room and those below it.

function(shoal_test name source)
  cmake_parse_arguments(TEST "" "" "ROOMS;LABELS" ${ARGN})
  add_executable(${name} ${source})
  target_compile_definitions(${name} PRIVATE _GNU_SOURCE SHOAL_SHARED="${SHOAL_SHARED}"
    SHOAL_BINARY="$<TARGET_FILE:shoal>" SHOAL_SOURCE="${CMAKE_SOURCE_DIR}")
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  foreach(room ${TEST_ROOMS})
    target_link_libraries(${name} PRIVATE room_${room})
  endforeach()
  target_link_libraries(${name} PRIVATE PkgConfig::CMOCKA)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${TEST_LABELS}" TIMEOUT 600)
endfunction()

function(shoal_unit_tests)
  foreach(room ${SHOAL_ROOMS})
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/unit/${room}/test_*.c)
    foreach(source ${sources})
      get_filename_component(stem ${source} NAME_WE)
      string(REPLACE "test_" "unit_${room}_" name ${stem})
      shoal_test(${name} ${source} ROOMS ${room} LABELS unit)
    endforeach()
  endforeach()
endfunction()
