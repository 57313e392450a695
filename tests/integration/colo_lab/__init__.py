# SPDX-License-Identifier: Apache-2.0
"""Two hosts, a client and a switch as network namespaces, with colod on the hosts.

Used by the integration tests, the demo, the benchmarks and the soak run. Standard library only. Needs root: network
namespaces, veth pairs and taps are made, and dropped again when the lab is closed, also after a failure or a signal.
"""
from .errors import LabError, Skip  # noqa: F401
from .lab import Lab  # noqa: F401
