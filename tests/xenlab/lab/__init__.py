# SPDX-License-Identifier: Apache-2.0
"""A Xen host with a Debian dom0 inside QEMU, made of Debian packages alone. See tests/xenlab/README.md."""
