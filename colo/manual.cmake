# SPDX-License-Identifier: Apache-2.0
# colo_manual(PROGRAM SECTION): its manual page, made from its own --help and installed.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(colo_manual_script ${CMAKE_CURRENT_LIST_DIR}/manual.py)
function(colo_manual program section)
  set(page ${CMAKE_CURRENT_BINARY_DIR}/${program}.${section})
  add_custom_command(
    OUTPUT ${page}
    COMMAND Python3::Interpreter ${colo_manual_script} $<TARGET_FILE:${program}> ${section} > ${page}
    DEPENDS ${program} ${colo_manual_script}
    VERBATIM)
  add_custom_target(${program}_manual ALL DEPENDS ${page})
  install(FILES ${page} DESTINATION share/man/man${section})
endfunction()
