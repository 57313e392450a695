# SPDX-License-Identifier: Apache-2.0
# Configuration, state file, arbiters, heartbeat and channels of the daemon.
set(colo_base_sources
  config.cpp config_print.cpp config_reader.cpp config_text.cpp
  state_file.cpp
  arbiter.cpp arbiter_command.cpp arbiter_lock.cpp
  heartbeat.cpp heartbeat_socket.cpp heartbeat_thread.cpp
  own_health.cpp
  channel.cpp)
