# SPDX-License-Identifier: GPL-2.0-only
"""Runs the clients' tests in the guest; the exit status says whether all passed and the kernel's log is clean."""

import re
import sys

import cluster
import failover
import health
import kernel_tests
import lab
import libraries
import matrix
from verdict import verdict

MODULES = (health, failover, kernel_tests, libraries, matrix)


def argument(name):
    """A word of the kernel's command line: `name=word`."""
    with open("/proc/cmdline") as file:
        return re.search(rf"\b{name}=(\S+)", file.read())[1]


def main():
    wanted = sys.argv[1:]
    # The stock module's name, for that is what the clients ask for; modprobe's configuration makes it ours.
    lab.sh("modprobe ip_vs")
    lab.sh(f"lsmod | grep -q ^{argument('director')}")
    cluster.build()
    tests = [(name, test) for module in MODULES for name, test in vars(module).items() if name.startswith("test_")]
    return verdict([(name, test) for name, test in tests if not wanted or name in wanted])


sys.exit(failover.machine() if argument("role") == "director" else main())
