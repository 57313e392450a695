# SPDX-License-Identifier: Apache-2.0
# Headers of others, parsed once for each set of flags. Only with clang, which compiles many files in half the time with
# them; g++ gains little in the sanitizer trees, and loses track of what is a system header, so that it warns of the standard
# library. That g++ builds without them also shows that each file includes what it uses. Never headers of ours: a change to
# one would rebuild everything.
set(precompiled_default OFF)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang" AND NOT COLO_FUZZ)   # the fuzzers' libraries differ in their flags
  set(precompiled_default ON)
endif()
option(COLO_PRECOMPILED "Precompiled headers of the standard library, spdlog, Asio and gtest" ${precompiled_default})

set(colo_std_headers <algorithm> <array> <atomic> <bit> <cerrno> <charconv> <chrono> <condition_variable> <csignal>
  <cstdint> <cstdio> <cstdlib> <cstring> <deque> <filesystem> <fstream> <functional> <iterator> <limits> <list> <map>
  <memory> <mutex> <optional> <random> <set> <span> <sstream> <string> <string_view> <thread> <unordered_map> <utility>
  <variant> <vector> <boost/system/result.hpp> <spdlog/spdlog.h>)
set(colo_asio_headers <boost/asio/io_context.hpp> <boost/asio/post.hpp> <boost/asio/posix/stream_descriptor.hpp>
  <boost/asio/signal_set.hpp> <boost/asio/steady_timer.hpp>)

# A target that only carries precompiled headers; executables differ from libraries (-fPIE, -fPIC).
function(colo_headers name kind libraries)
  if(NOT COLO_PRECOMPILED)
    return()
  endif()
  set(source ${CMAKE_BINARY_DIR}/generated/${name}.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "int main() {}\n")
  if(kind STREQUAL "EXECUTABLE")
    add_executable(${name} EXCLUDE_FROM_ALL ${source})
  else()
    add_library(${name} STATIC EXCLUDE_FROM_ALL ${source})
  endif()
  target_link_libraries(${name} PRIVATE colo_options Boost::headers spdlog::spdlog Threads::Threads ${libraries})
  target_precompile_headers(${name} PRIVATE ${ARGN})
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")   # the same bytes each time, which ccache needs
    target_compile_options(${name} PRIVATE "SHELL:-Xclang -fno-pch-timestamp")
  endif()
endfunction()

# colo_use_headers(HEADERS targets...)
function(colo_use_headers name)
  if(COLO_PRECOMPILED)
    foreach(target ${ARGN})
      target_precompile_headers(${target} REUSE_FROM ${name})
    endforeach()
  endif()
endfunction()

colo_headers(colo_headers_std LIBRARY "" ${colo_std_headers})
colo_headers(colo_headers_asio LIBRARY "" ${colo_std_headers} ${colo_asio_headers})
