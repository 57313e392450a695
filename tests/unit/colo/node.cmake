# SPDX-License-Identifier: Apache-2.0
colo_unit_test(colo_node_test node_pair.cpp node_hello_test.cpp node_mode_test.cpp node_session_test.cpp
  node_failover_test.cpp node_health_test.cpp node_operator_test.cpp node_migration_test.cpp node_reset_test.cpp node_texts_test.cpp LIBS colo_machines)
