# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in a lab, as far as callers want to tell it apart."""


class LabError(Exception):
    """A step did not happen, or not in time; the text says which and what was seen instead."""


class Skip(Exception):
    """The scenario cannot run on this machine; the text says why."""
