# SPDX-License-Identifier: GPL-2.0-only
"""What in a kernel's log is a complaint."""

import re

SPLAT = re.compile(
    r"\bBUG\b|WARNING|Oops|panic|general protection|rcu.*stall|soft lockup|Call Trace|refcount|KASAN|leaked", re.I
)
# The kernel's own start-up says these.
HARMLESS = re.compile(
    r"out-of-tree|verification failed|rcu: |RCU |Command line|calibrate|PCI:|report a bug|MP-BIOS bug", re.I
)


def splats(log):
    """The lines of complaint in what dmesg printed."""
    return [line for line in log.splitlines() if SPLAT.search(line) and not HARMLESS.search(line)]
