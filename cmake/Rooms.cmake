# SPDX-License-Identifier: Apache-2.0
# A room is a folder of src/: compiled once, as objects; tests link only the room that they test
# and those below it, so a forbidden call fails at link time too.

set(SHOAL_WARNINGS -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes
    -Wmissing-prototypes -Wvla -Wformat=2 -Wundef)
set(SHOAL_ROOMS "" CACHE INTERNAL "")

# Compiles one .proto of a room with protoc-c into the build folder.
function(shoal_protoc room proto out_sources)
  get_filename_component(stem ${proto} NAME_WE)
  set(dir ${CMAKE_CURRENT_BINARY_DIR}/generated/${room})
  file(MAKE_DIRECTORY ${dir})
  find_program(PROTOC_C protoc-c REQUIRED)
  add_custom_command(
    OUTPUT ${dir}/${stem}.pb-c.c ${dir}/${stem}.pb-c.h
    COMMAND ${PROTOC_C} --c_out=${dir} -I${CMAKE_CURRENT_SOURCE_DIR}/src/${room}
            ${CMAKE_CURRENT_SOURCE_DIR}/src/${room}/${proto}
    DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/${room}/${proto} VERBATIM)
  set_source_files_properties(${dir}/${stem}.pb-c.c PROPERTIES COMPILE_OPTIONS "-w")
  set(${out_sources} ${dir}/${stem}.pb-c.c ${dir}/${stem}.pb-c.h PARENT_SCOPE)
endfunction()

# Files under an avx2/, avx512/ or neon/ folder get that instruction set; on other processors they
# are empty. No trapping math: it lets the compiler turn conditions into selects, and changes no
# value.
function(shoal_instruction_sets)
  set(neon -fno-trapping-math) # NEON itself is part of every AArch64
  set(avx2 -mavx2 -mfma -fno-trapping-math)
  set(avx512 ${avx2} -mavx512f -mavx512vl -mavx512bw -mavx512dq -mprefer-vector-width=512)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(levels "avx2|avx512")
  else()
    set(levels neon)
  endif()
  foreach(source ${ARGN})
    if(source MATCHES "/(${levels})/[^/]*$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${${CMAKE_MATCH_1}}")
    endif()
  endforeach()
endfunction()

# shoal_room(NAME [DEPENDS room...] [LIBRARIES lib...] [PROTOS file...])
function(shoal_room name)
  cmake_parse_arguments(ROOM "" "" "DEPENDS;LIBRARIES;PROTOS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/${name}/*.c)
  set(generated "")
  foreach(proto ${ROOM_PROTOS})
    shoal_protoc(${name} ${proto} out)
    list(APPEND generated ${out})
  endforeach()
  add_library(objects_${name} OBJECT ${sources} ${generated})
  shoal_instruction_sets(${sources})
  target_include_directories(objects_${name} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/include
    ${CMAKE_CURRENT_SOURCE_DIR}/src ${CMAKE_CURRENT_BINARY_DIR}/generated)
  target_compile_definitions(objects_${name} PUBLIC _GNU_SOURCE)
  target_compile_options(objects_${name} PRIVATE ${SHOAL_WARNINGS})
  if(SHOAL_PHONE)
    target_compile_options(objects_${name} PRIVATE -ffunction-sections -fdata-sections
      -fno-asynchronous-unwind-tables -fno-unwind-tables)
    if(name MATCHES "^(net|solver|data|collective)$")
      target_compile_options(objects_${name} PRIVATE -O2)
    elseif(NOT name STREQUAL kernels) # they compute nothing
      target_compile_options(objects_${name} PRIVATE -Os)
    endif()
  endif()
  # The same sums on every machine: no contraction that the source does not spell. Nobody asks errno
  # about arithmetic, and without it square roots vectorise.
  target_compile_options(objects_${name} PRIVATE -ffp-contract=off -fno-math-errno)
  target_link_libraries(objects_${name} PUBLIC ${ROOM_LIBRARIES} Threads::Threads)

  add_library(room_${name} STATIC $<TARGET_OBJECTS:objects_${name}>)
  target_include_directories(room_${name} PUBLIC
    $<TARGET_PROPERTY:objects_${name},INTERFACE_INCLUDE_DIRECTORIES>)
  target_compile_definitions(room_${name} PUBLIC _GNU_SOURCE)
  target_link_libraries(room_${name} PUBLIC ${ROOM_LIBRARIES} Threads::Threads m)
  foreach(dep ${ROOM_DEPENDS})
    target_link_libraries(room_${name} PUBLIC room_${dep})
    # Generated headers and libraries of the rooms below.
    target_link_libraries(objects_${name} PRIVATE
      $<TARGET_PROPERTY:objects_${dep},INTERFACE_LINK_LIBRARIES>)
    add_dependencies(objects_${name} objects_${dep})
  endforeach()
  set(SHOAL_ROOMS ${SHOAL_ROOMS} ${name} CACHE INTERNAL "")
endfunction()

# libshoal, static and shared, out of all rooms.
function(shoal_library)
  set(objects "")
  foreach(room ${SHOAL_ROOMS})
    list(APPEND objects $<TARGET_OBJECTS:objects_${room}>)
  endforeach()
  foreach(kind STATIC SHARED)
    string(TOLOWER ${kind} lower)
    add_library(shoal_${lower} ${kind} ${objects})
    set_target_properties(shoal_${lower} PROPERTIES OUTPUT_NAME shoal)
    target_include_directories(shoal_${lower} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/include)
    target_link_libraries(shoal_${lower} PRIVATE PkgConfig::PROTOBUF_C PkgConfig::LMDB
      PkgConfig::SODIUM PkgConfig::XXHASH ${SHOAL_IMAGE_LIBRARIES} ${SHOAL_HDF5_LIBRARY}
      ${SHOAL_MPI_LIBRARY} Threads::Threads m)
  endforeach()
  set_target_properties(shoal_shared PROPERTIES VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR})
  install(TARGETS shoal_static shoal_shared)
  install(DIRECTORY include/shoal DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  # Where the prefix is, seen from the .pc file: the tree may be installed or moved anywhere.
  file(RELATIVE_PATH SHOAL_PC_TO_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
  string(REGEX REPLACE "/$" "" SHOAL_PC_TO_PREFIX "${SHOAL_PC_TO_PREFIX}")
  configure_file(cmake/shoal.pc.in shoal.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/shoal.pc
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()

# The program, as one file that starts on an Android phone; its segments suit pages of 4, 16 and 64
# KiB. What phone_start.c does before the C library is up must not look for a stack's guard.
function(shoal_phone_program)
  set_source_files_properties(src/cli/phone_start.c PROPERTIES COMPILE_OPTIONS
    "-fno-stack-protector;-fno-sanitize=all")
  target_compile_definitions(shoal PRIVATE SHOAL_PHONE)
  target_compile_options(shoal PRIVATE -Os -fno-asynchronous-unwind-tables -fno-unwind-tables)
  target_link_options(shoal PRIVATE -static-pie -Wl,-e,shoal_phone_start
    -Wl,--wrap=pthread_sigmask -Wl,--gc-sections -Wl,--fatal-warnings -s
    -Wl,-z,max-page-size=65536 -Wl,-z,noexecstack -Wl,-z,relro -Wl,-z,now)
  if(CMAKE_SYSTEM_PROCESSOR STREQUAL x86_64)
    # Debian's static libxxhash has not the functions that choose an instruction set.
    foreach(name XXH3_64bits XXH3_64bits_withSeed)
      target_link_options(shoal PRIVATE -Wl,--undefined=${name}
        -Wl,--defsym=${name}_dispatch=${name})
    endforeach()
  endif()
endfunction()

# The binary build/shoal: the command line over libshoal.
function(shoal_program)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/cli/*.c)
  if(SHOAL_PHONE)
    list(FILTER sources EXCLUDE REGEX "/qr\\.c$") # phone_start.c has what stands for it
  else()
    list(FILTER sources EXCLUDE REGEX "/phone_start\\.c$")
  endif()
  add_executable(shoal ${sources})
  target_include_directories(shoal PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/src)
  target_compile_definitions(shoal PRIVATE _GNU_SOURCE)
  target_compile_options(shoal PRIVATE ${SHOAL_WARNINGS})
  target_link_libraries(shoal PRIVATE shoal_static PkgConfig::JANSSON)
  if(SHOAL_PHONE)
    shoal_phone_program()
  else()
    target_link_libraries(shoal PRIVATE PkgConfig::QRENCODE)
  endif()
  install(TARGETS shoal)
  # What `make phone` has built, where `shoal deploy` finds it.
  install(DIRECTORY ${CMAKE_BINARY_DIR}/phone DESTINATION lib/shoal OPTIONAL USE_SOURCE_PERMISSIONS)
  install(FILES docs/shoal.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endfunction()
