# SPDX-License-Identifier: Apache-2.0
find_package(benchmark QUIET)
if(benchmark_FOUND AND NOT COLO_SANITIZE)   # nobody measures with a sanitizer
  add_executable(memory_bench ${CMAKE_CURRENT_LIST_DIR}/memory_bench.cpp)
  target_link_libraries(memory_bench PRIVATE colo_replication benchmark::benchmark)
endif()
