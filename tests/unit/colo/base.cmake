# SPDX-License-Identifier: Apache-2.0
colo_unit_test(colo_config_test config_test.cpp LIBS colo_base)
target_compile_definitions(colo_config_test PRIVATE COLO_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
colo_unit_test(colo_state_file_test state_file_test.cpp LIBS colo_base)
colo_unit_test(colo_arbiter_test arbiter_test.cpp LIBS colo_base)
colo_unit_test(colo_heartbeat_test heartbeat_test.cpp heartbeat_lease_test.cpp own_health_test.cpp LIBS colo_base)
colo_unit_test(colo_heartbeat_thread_test heartbeat_thread_test.cpp LIBS colo_base)
colo_unit_test(colo_heartbeat_freeze_test heartbeat_freeze_test.cpp LIBS colo_base)
colo_unit_test(colo_channel_test channel_test.cpp LIBS colo_base)
